"""Every story has a stage of its own."""

import pytest

from scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()

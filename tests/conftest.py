"""What every test may use: golden files."""

from collections.abc import Callable

import pytest

from golden_files import GOLDEN, check_golden


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate-golden", action="store_true", help="rewrite golden files instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: the text is what ``tests/golden/<name>`` holds."""
    regenerate = bool(request.config.getoption("--regenerate-golden"))
    return lambda name, text: check_golden(GOLDEN / name, text, regenerate)

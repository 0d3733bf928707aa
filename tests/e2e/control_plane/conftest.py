"""One control plane for the tests that leave it as it was, and fresh ones for those that do not."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.control_plane.cluster import Cluster
from sandbox.assets import Assets, find_or_build


@pytest.fixture(scope="session")
def assets() -> Assets:
    return find_or_build()


@pytest.fixture(scope="module")
def cluster(assets: Assets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    value = Cluster(tmp_path_factory.mktemp("cluster"), assets)
    try:
        value.control_plane.start()
        yield value
    finally:
        value.control_plane.stop()


@pytest.fixture
def new_cluster(assets: Assets, tmp_path: Path) -> Iterator[Callable[[str], Cluster]]:
    with ExitStack() as stack:

        def make(name: str) -> Cluster:
            value = Cluster(tmp_path / name, assets)
            stack.callback(value.control_plane.stop)
            value.control_plane.start()
            return value

        yield make

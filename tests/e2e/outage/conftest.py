"""``far``: an agent behind a proxy, on a node of its own, for all tests of this folder."""

from collections.abc import Iterator

import pytest

from e2e.outage.proxied import Far, far_agent
from sandbox.cluster import Sandbox
from sandbox.qemu import QemuBuild


@pytest.fixture(scope="module")
def far(cluster: Sandbox, qemu: QemuBuild) -> Iterator[Far]:
    with far_agent(cluster, qemu) as agent:
        yield agent

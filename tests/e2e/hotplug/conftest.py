"""A stage that a whole file shares: a Linux takes seconds to boot, and most stories only need one that runs."""

import secrets
from collections.abc import Iterator

import pytest

from e2e.stage import Stage
from sandbox.cluster import Sandbox


@pytest.fixture(scope="module")
def scene(cluster: Sandbox, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A namespace of the file's own; what is in it is deleted after the file, and the deletion must converge."""
    words = request.node.path.stem.removeprefix("test_").replace("_", "-")
    namespace = f"hotplug-{words}-{secrets.token_hex(2)}"
    cluster.kubectl("create", "namespace", namespace)
    stage = Stage(sandbox=cluster, namespace=namespace)
    yield stage
    stage.repair()
    cluster.kubectl("delete", "virtualguests", "--all", "-n", namespace, "--timeout=100s", timeout_s=110)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")

"""One sandbox for all end-to-end tests: the real control plane, the controller, two agents, real QEMU, real guests.

It is made by the very code of hack/up (``sandbox.cluster``), under ``GUESTLET_TEST_ROOT`` when hack/test gives one, so
that hack/test can end what an interrupted run leaves. ``GUESTLET_TEST_QEMU=10`` runs the suite on that major version.

* ``cluster``: the ``Sandbox``; ``cluster.kubectl`` is the administrator's kubectl, ``cluster.node("node-a")`` a node.
* ``kubectl``: that kubectl.
* ``stage``: a namespace of the test's own with everything to tell a story about guests (``e2e.stage``); what is in it
  is deleted after the test, and the deletion must converge.
* ``audit_log``: the API server's log of requests, for ``sandbox.audit.read_audit_log``.
"""

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.stage import NODES, Stage
from sandbox.cluster import Sandbox
from sandbox.components import Options
from sandbox.kubectl import Kubectl
from sandbox.qemu import QemuBuild, ensure_qemu, ensure_system_qemu

HERE = Path(__file__).parent
TIMEOUT_S = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder that QEMU's unprivileged uid may pass through, and whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="gt-", dir=os.environ.get("GUESTLET_TEST_ROOT", "/tmp")) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture(scope="session")
def qemu() -> QemuBuild:
    """The QEMU that this run is about."""
    major = os.environ.get("GUESTLET_TEST_QEMU")
    return ensure_qemu(int(major)) if major else ensure_system_qemu()


@pytest.fixture(scope="session")
def audit_log(short_folder: Path) -> Path:
    return short_folder / "audit.log"


@pytest.fixture(scope="session")
def cluster(short_folder: Path, qemu: QemuBuild, audit_log: Path) -> Iterator[Sandbox]:
    sandbox = Sandbox(short_folder / "s", options=Options(audit_log=audit_log))
    try:
        sandbox.start_cluster()
        sandbox.install()
        sandbox.register(*NODES)
        for name in NODES:
            node = sandbox.prepare_node(name, qemu)
            sandbox.put_test_guest(node)
            node.agent.start()
        sandbox.start_controller()
        sandbox.wait_for_nodes(*NODES)
        yield sandbox
    finally:
        sandbox.down()
    assert sandbox.leftovers() == {}
    assert [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(sandbox.root.path) in line] == []
    sandbox.root.purge()


@pytest.fixture
def kubectl(cluster: Sandbox) -> Kubectl:
    return cluster.kubectl


@pytest.fixture
def stage(cluster: Sandbox, request: pytest.FixtureRequest) -> Iterator[Stage]:
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")
    namespace = f"{words[:40].strip('-')}-{secrets.token_hex(2)}"
    cluster.kubectl("create", "namespace", namespace)
    stage = Stage(sandbox=cluster, namespace=namespace)
    yield stage
    stage.repair()
    cluster.kubectl("delete", "virtualguests", "--all", "-n", namespace, "--timeout=100s", timeout_s=110)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")

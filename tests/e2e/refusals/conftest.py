"""Where bad manifests are tried: a namespace for all of them, and a node that is as poor as some of them need it."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from e2e.stage import Stage
from sandbox.cluster import Sandbox
from sandbox.nodes import POOL, Node, run_guestlet
from sandbox.qemu import QemuBuild

POOR_NODE = "node-poor"
MUTE = "mute"
# A QEMU that never opens its monitor when the guest is called so; told to name itself, it is the real one.
_WRAPPER = """\
#!/bin/sh
case "$*" in *"guest="*/{mute},*) exec sleep 3600 ;; esac
exec {binary} "$@"
"""


@contextmanager
def full_file_system(folder: Path) -> Iterator[None]:
    """A file system at the folder with not one block left."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M,mode=711", "guestlet-test", folder], check=True, timeout=10)
    try:
        run_guestlet("pool", "init", str(folder))
        with (folder / "filler").open("wb", buffering=0) as filler:
            free = os.statvfs(folder)
            filler.write(bytes(free.f_bavail * free.f_frsize))
        yield
    finally:
        subprocess.run(["umount", folder], check=True, timeout=10)


@pytest.fixture(scope="session")
def poor_node(cluster: Sandbox, qemu: QemuBuild) -> Iterator[Node]:
    """A node with a full pool, without firmware, and with a QEMU that is sometimes mute."""
    node = cluster.node(POOR_NODE)
    folders = {name: node.folder / name for name in ("pools/full", "firmware", "bin")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    node.folder.chmod(0o711)
    wrapper = folders["bin"] / "qemu"
    wrapper.write_text(_WRAPPER.format(mute=MUTE, binary=qemu.binary))
    for path in (folders["bin"], wrapper):
        path.chmod(0o755)
    settings = {
        "pools": [{"name": POOL, "path": str(node.pool())}, {"name": "full", "path": str(folders["pools/full"])}],
        "firmwareDirs": [str(folders["firmware"])],
        "qemuBinary": str(wrapper),
        "qmpGreetingTimeoutSeconds": 2,
    }
    with ExitStack() as stack:
        stack.enter_context(full_file_system(folders["pools/full"]))
        cluster.register(POOR_NODE)
        stack.callback(cluster.kubectl, "delete", "node", POOR_NODE)
        # Only who names it comes here: the guests of other stories need a better one.
        cluster.kubectl("cordon", POOR_NODE)
        cluster.prepare_node(POOR_NODE, qemu, settings=settings)
        stack.callback(node.agent.stop)
        cluster.put_test_guest(node)
        node.agent.start()
        cluster.wait_for_nodes(POOR_NODE)
        yield node


@pytest.fixture(scope="session")
def yard(cluster: Sandbox, poor_node: Node) -> Iterator[Stage]:
    """A namespace that all bad manifests share, so that what takes time takes it side by side.

    It goes before the poor node does, whose agent ends its guests.
    """
    namespace = f"bad-{secrets.token_hex(2)}"
    cluster.kubectl("create", "namespace", namespace)
    yield Stage(sandbox=cluster, namespace=namespace)
    cluster.kubectl("delete", "virtualguests", "--all", "-n", namespace, "--timeout=100s", timeout_s=110)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")

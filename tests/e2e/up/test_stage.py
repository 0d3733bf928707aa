"""The stage that all end-to-end stories stand on does what it says."""

import pytest

from e2e.stage import NODES, Stage
from sandbox.leftovers import running_guests

pytestmark = pytest.mark.slow


def test_a_guest_boots_linux_and_is_gone_after_its_deletion(stage: Stage) -> None:
    guest = stage.guest("tux", {"nodeName": NODES[1]})
    guest.wait()
    assert guest.pid() == int(guest.field(".status.qemu.pid"))
    assert guest.node.name == NODES[1]
    guest.wait_for_console("guest# ")
    assert guest.patch({"nodeName": NODES[0]}).code != 0

    pid = guest.pid()
    guest.delete()
    assert not guest.exists()
    assert pid not in running_guests(stage.sandbox.root.nodes).values()


def test_a_killed_agent_comes_back_to_the_same_qemu(stage: Stage) -> None:
    guest = stage.guest(boot=False)
    guest.wait()
    pid, node = guest.pid(), guest.node.name
    stage.kill_agent(node)
    stage.start_agent(node)
    guest.edit({"paused": True})
    guest.wait("Paused")

    assert guest.pid() == pid

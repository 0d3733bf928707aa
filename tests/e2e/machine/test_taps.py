"""Bridges and taps of the node: what the guest sends arrives, scripts hear of every coming and going, nothing stays.

The bridge is made here, on this machine; guestlet never makes one.
"""

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from e2e.life.witness import TINY
from e2e.machine.linux import ask, first_report
from e2e.machine.rebuild.compare import rebuilt, running
from e2e.stage import Guest, Stage, eventually
from sandbox.cluster import Sandbox
from sandbox.nodes import Node
from sandbox.qemu import QemuBuild

NODE = "node-net"
NET = Path("/sys/class/net")
# TEST-NET-2: nobody's own.
HOST, PEER = "198.51.100.1", "198.51.100.2"
TELL = """\
#!/bin/sh
{ tr '\\0' '\\n' </proc/$$/environ | sort | tr '\\n' ' '
  [ -d "/sys/class/net/$GUESTLET_TAP" ] && echo there || echo gone; } >>"${0%/*}/told"
"""
FAIL = '#!/bin/sh\necho "no such thing as $GUESTLET_TAP"\nexit 3\n'


@pytest.fixture(scope="module")
def bridge() -> Iterator[str]:
    name = f"gtbr{secrets.token_hex(3)}"
    ip("link", "add", name, "type", "bridge")
    try:
        ip("address", "add", f"{HOST}/24", "dev", name)
        ip("link", "set", name, "up")
        yield name
        assert (NET / name).exists()
        assert list((NET / name / "brif").iterdir()) == []
    finally:
        ip("link", "delete", name)


@pytest.fixture(scope="module")
def node(cluster: Sandbox, qemu: QemuBuild, bridge: str) -> Iterator[Node]:
    cluster.register(NODE)
    made = cluster.prepare_node(NODE, qemu, settings={"allowedBridges": [bridge]})
    cluster.put_test_guest(made)
    for name, text in (("tell", TELL), ("fail", FAIL)):
        (made.scripts / name).write_text(text)
        (made.scripts / name).chmod(0o755)
    made.agent.start()
    cluster.wait_for_nodes(NODE)
    yield made
    made.agent.stop()
    cluster.kubectl("delete", "node", NODE)


def ip(*words: str) -> None:
    run = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=10)
    assert run.returncode == 0, f"ip {' '.join(words)}: {run.stderr}"


def told(node: Node) -> list[str]:
    """What the script wrote: its whole environment, and whether the tap was there."""
    log = node.scripts / "told"
    return log.read_text().splitlines() if log.exists() else []


def with_tap(**scripts: str) -> Mapping[str, object]:
    return {**TINY, "nodeName": NODE, "networks": [{"name": "lan", "tap": scripts}]}


def test_a_guest_on_a_bridge_is_reached(stage: Stage, node: Node, bridge: str) -> None:
    networks = [
        {"name": "lan", "bridge": {"name": bridge}},
        {"name": "old", "model": "E1000", "bridge": {"name": bridge}},
        {"name": "wide", "bridge": {"name": bridge}, "queues": 2},
    ]
    guest = stage.guest(spec={"nodeName": NODE, "networks": networks, "cpu": {"count": 2}})
    seen = first_report(guest)
    taps = {str(each["name"]): str(each["tapName"]) for each in entries(guest)}
    macs = {str(each["name"]): str(each["macAddress"]) for each in entries(guest)}
    assert {(NET / tap / "master").resolve().name for tap in taps.values()} == {bridge}
    assert len(set(taps.values())) == 3
    assert set(seen.nics) == set(macs.values())
    assert rebuilt(guest.read()) == running(guest)

    find = f"for i in /sys/class/net/eth*; do grep -q {macs['lan']} $i/address && echo ${{i##*/}}; done"
    ask(guest, f"ip address add {PEER}/24 dev $({find})")
    assert " 0% packet loss" in ask(guest, f"ping -c 2 -W 5 {HOST}")

    guest.delete()
    assert [tap for tap in taps.values() if (NET / tap).exists()] == []


def test_scripts_hear_of_a_tap_and_of_its_end(stage: Stage, node: Node) -> None:
    before = len(told(node))
    guest = stage.guest(spec=with_tap(upScript="tell", downScript="tell"), boot=False)
    guest.wait()
    (nic,) = entries(guest)
    tap, mac = str(nic["tapName"]), str(nic["macAddress"])
    assert rebuilt(guest.read()) == running(guest)

    def words(event: str, where: str) -> str:
        who = f"GUESTLET_EVENT={event} GUESTLET_GUEST={stage.namespace}/guest GUESTLET_MAC={mac} GUESTLET_TAP={tap}"
        return f"{who} PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin {where}"

    assert told(node)[before:] == [words("up", "there")]

    # Its end, however it comes, is told before the next beginning.
    pid = guest.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: guest.pid() not in (None, pid), timeout_s=60, what="the next QEMU")
    guest.wait()
    assert told(node)[before + 1 :] == [words("down", "gone"), words("up", "there")]

    guest.edit({"runStrategy": "Halted"})
    guest.wait_for(".status.phase", "Stopped")
    assert told(node)[before + 3 :] == [words("down", "gone")]
    assert not (NET / tap).exists()


def test_a_script_that_fails_refuses_the_start(stage: Stage, node: Node) -> None:
    before, interfaces = len(told(node)), set(NET.iterdir())
    guest = stage.guest(spec=with_tap(upScript="fail", downScript="tell"), boot=False)
    message = guest.wait_for_reason("Stalled", "ScriptFailed")["message"]
    assert "fail" in message
    assert "no such thing as" in message
    assert guest.pid() is None
    # The user names another script: the start goes on, and nothing of the failed one is left.
    guest.edit({"networks": [{"name": "lan", "tap": {"upScript": "tell", "downScript": "tell"}}]})
    guest.wait()
    # Each attempt that failed is taken down before the next.
    *downs, last = [line.partition(" ")[0] for line in told(node)[before:]]
    assert set(downs) == {"GUESTLET_EVENT=down"}
    assert last == "GUESTLET_EVENT=up"
    (nic,) = entries(guest)
    assert set(NET.iterdir()) - interfaces == {NET / str(nic["tapName"])}


def entries(guest: Guest) -> list[Mapping[str, object]]:
    """``status.networks``."""
    found = guest.status()["networks"]
    assert isinstance(found, list)
    return found

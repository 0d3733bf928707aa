"""Taps of a running guest: made and taken away with the interface, moved between bridges; and edits that fail in part.

The bridges are made here, on this machine; guestlet never makes one. One guest for the whole file.
"""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.hotplug.changes import GROWING, change, disk, mac_of, serials, settle, wait_for_report
from e2e.hotplug.monitor import belongings, has_device
from e2e.life.witness import life_of
from e2e.machine.linux import ask, first_report
from e2e.machine.published import objects
from e2e.stage import Guest, Stage, eventually
from sandbox.cluster import Sandbox
from sandbox.kubectl import Object
from sandbox.nodes import Node
from sandbox.qemu import QemuBuild

NODE = "node-hotplug"
NET = Path("/sys/class/net")
# TEST-NET-3: nobody's own.
HOST, PEER = "203.0.113.1", "203.0.113.2"
TELL = """\
#!/bin/sh
echo "$GUESTLET_EVENT $GUESTLET_GUEST $GUESTLET_MAC" >>"${0%/*}/told"
"""
FAIL = '#!/bin/sh\necho "no such thing as $GUESTLET_TAP"\nexit 3\n'


@pytest.fixture(scope="module")
def bridges() -> Iterator[tuple[str, str]]:
    names = (f"gtha{secrets.token_hex(3)}", f"gthb{secrets.token_hex(3)}")
    try:
        for name in names:
            ip("link", "add", name, "type", "bridge")
            ip("link", "set", name, "up")
        yield names
        assert [port for name in names for port in (NET / name / "brif").iterdir()] == []
    finally:
        for name in names:
            ip("link", "delete", name)


@pytest.fixture(scope="module")
def node(cluster: Sandbox, qemu: QemuBuild, bridges: tuple[str, str]) -> Iterator[Node]:
    cluster.register(NODE)
    made = cluster.prepare_node(NODE, qemu, settings={"allowedBridges": list(bridges)})
    cluster.put_test_guest(made)
    for name, text in (("tell", TELL), ("fail", FAIL)):
        (made.scripts / name).write_text(text)
        (made.scripts / name).chmod(0o755)
    made.agent.start()
    cluster.wait_for_nodes(NODE)
    yield made
    made.agent.stop()
    cluster.kubectl("delete", "node", NODE)


@pytest.fixture(scope="module")
def guest(node: Node, scene: Stage) -> Iterator[Guest]:
    # Two processors, because Linux uses no more queues of an interface than it has processors.
    spec = {**GROWING, "cpu": {"count": 2}, "nodeName": NODE, "disks": [disk(scene, "root")]}
    made = scene.guest(spec=spec)
    first_report(made)
    settle(made)
    life = life_of(made)
    yield made
    assert life_of(made) == life, "one of the stories restarted the guest"
    # The bridges must be empty before they go.
    made.delete()


def ip(*words: str) -> None:
    run = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=10)
    assert run.returncode == 0, f"ip {' '.join(words)}: {run.stderr}"


def on(bridge: str, **more: object) -> Object:
    return {"name": "lan", "bridge": {"name": bridge}, **more}


def tap_of(guest: Guest, name: str = "lan") -> str:
    (found,) = (each for each in objects(guest.status(), "networks") if each["name"] == name)
    return str(found["tapName"])


def master_of(tap: str) -> str:
    return (NET / tap / "master").resolve().name


def answers(guest: Guest, bridge: str) -> bool:
    """Whether the guest reaches the host over this bridge."""
    ip("address", "add", f"{HOST}/24", "dev", bridge)
    try:
        return " 0% packet loss" in ask(guest, f"ping -c 2 -W 5 {HOST}")
    finally:
        ip("address", "del", f"{HOST}/24", "dev", bridge)


def test_an_interface_comes_on_a_bridge_moves_to_another_and_goes(guest: Guest, bridges: tuple[str, str]) -> None:
    first, second = bridges
    before = belongings(guest)
    change(guest, {"networks": [on(first)]})
    mac, tap = mac_of(guest, "lan"), tap_of(guest)
    wait_for_report(guest, lambda seen: mac in seen.nics, "the interface")
    find = f"for i in /sys/class/net/eth*; do grep -q {mac} $i/address && echo ${{i##*/}}; done"
    ask(guest, f"ip address add {PEER}/24 dev $({find})")
    assert master_of(tap) == first
    assert answers(guest, first)

    change(guest, {"networks": [on(second)]})
    assert (mac_of(guest, "lan"), tap_of(guest), master_of(tap)) == (mac, tap, second)
    assert answers(guest, second)
    wait_for_report(guest, lambda seen: list(seen.nics) == [mac], "the same interface")

    change(guest, {"networks": []})
    wait_for_report(guest, lambda seen: not seen.nics, "its end")
    assert not (NET / tap).exists()
    assert belongings(guest) == before


def test_more_queues_come_with_the_interface(guest: Guest, bridges: tuple[str, str]) -> None:
    change(guest, {"networks": [{**on(bridges[0], queues=2), "name": "wide"}]})
    mac, tap = mac_of(guest, "wide"), tap_of(guest, "wide")
    wait_for_report(guest, lambda seen: mac in seen.nics, "the interface")
    find = f"for i in /sys/class/net/eth*; do grep -q {mac} $i/address && ls $i/queues; done"
    assert ask(guest, find).split() == ["rx-0", "rx-1", "tx-0", "tx-1"]
    change(guest, {"networks": []})
    assert not (NET / tap).exists()


def test_scripts_hear_of_a_tap_that_comes_and_goes_hot(scene: Stage, node: Node, guest: Guest) -> None:
    log = node.scripts / "told"
    change(guest, {"networks": [{"name": "hooked", "tap": {"upScript": "tell", "downScript": "tell"}}]})
    mac, who = mac_of(guest, "hooked"), f"{scene.namespace}/{guest.name}"
    assert log.read_text().splitlines() == [f"up {who} {mac}"]
    change(guest, {"networks": []})
    assert log.read_text().splitlines() == [f"up {who} {mac}", f"down {who} {mac}"]


def test_a_script_that_fails_refuses_the_plug_and_leaves_nothing(scene: Stage, guest: Guest) -> None:
    before, interfaces = belongings(guest), set(NET.iterdir())
    guest.edit({"networks": [{"name": "broken", "tap": {"upScript": "fail"}}]})
    told = guest.wait_for_reason("Stalled", "ScriptFailed")
    assert "networks[broken]" in told["message"]
    assert "no such thing as" in told["message"]
    assert guest.condition("Ready")["status"] == "True"
    assert belongings(guest) == before
    eventually(lambda: set(NET.iterdir()) == interfaces, timeout_s=10, what="the end of the tap")
    guest.edit({"networks": [{"name": "broken", "tap": {"upScript": "no-such"}}]})
    assert "no-such" in guest.wait_for_reason("Stalled", "NoSuchScript")["message"]
    change(guest, {"networks": []})


def test_one_change_that_fails_does_not_hold_up_the_others(
    scene: Stage, guest: Guest, bridges: tuple[str, str]
) -> None:
    root = disk(scene, "root")
    before, interfaces = belongings(guest), set(NET.iterdir())
    guest.edit(
        {
            "networks": [{"name": "bad", "bridge": {"name": "no-such-bridge"}}, {"name": "good", "isolated": {}}],
            "disks": [{**root, "throttle": {"iops": 400}}, disk(scene, "more"), disk(scene, "wide", bus="SCSI")],
            "memory": {"size": "416Mi"},
        }
    )
    told = guest.wait_for_reason("Stalled", "NoSuchBridge")
    assert "networks[bad]" in told["message"]
    assert "no-such-bridge" in told["message"]
    assert guest.condition("Ready")["status"] == "True"
    seen = wait_for_report(
        guest,
        lambda seen: len(seen.disks) == 3 and len(seen.nics) == 1 and seen.memory_kib > 400 * 1024,
        "all but what is impossible",
    )
    assert list(seen.nics) == [mac_of(guest, "good")]
    assert not has_device(guest, "nic-bad")
    assert set(NET.iterdir()) == interfaces
    assert guest.condition("Stalled")["status"] == "True"

    change(guest, {"networks": [{"name": "bad", "bridge": {"name": bridges[0]}}, {"name": "good", "isolated": {}}]})
    wait_for_report(guest, lambda seen: len(seen.nics) == 2, "what was mended")
    assert master_of(tap_of(guest, "bad")) == bridges[0]

    change(guest, {"networks": [], "disks": [root]})
    wait_for_report(guest, lambda seen: set(serials(seen)) == {"ROOT"} and not seen.nics, "the guest as it was")
    # The SCSI controller stays for the next disk, and memory is only ever given.
    left = belongings(guest)
    assert left.devices - before.devices == {"scsi"}
    assert (left.objects, left.nodes, left.netdevs) == (before.objects, before.nodes, before.netdevs)

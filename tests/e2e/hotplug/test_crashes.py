"""An agent killed in the middle of a change: the next one completes it or undoes it, and nothing is left or doubled.

One guest for the whole file: each story begins with what the one before left.
"""

import json
from collections.abc import Callable, Mapping

import pytest

from e2e.hotplug.changes import GROWING, addressed, disk, serials, settle, wait_for_report
from e2e.hotplug.monitor import Belongings, belongings
from e2e.life.witness import life_of
from e2e.machine.linux import first_report
from e2e.machine.published import objects, places
from e2e.stage import Guest, Stage, eventually
from sandbox.kubectl import Object

LAN: Object = {"name": "lan", "isolated": {}}
EXTRA: Object = {"name": "extra", "user": {}}
# How far a plug has come when the agent is killed. A moment that is over before it is seen is no moment missed: the
# agent is killed all the same, a little later.
PLUGGING: Mapping[str, Callable[[Belongings], bool]] = {
    "at once": lambda _: True,
    "file opened": lambda found: "disk-more-file" in found.nodes,
    "image opened": lambda found: "disk-more" in found.nodes,
    "disk plugged": lambda found: "disk-more" in found.devices,
    "back end made": lambda found: "net-extra" in found.netdevs,
    "interface plugged": lambda found: "nic-extra" in found.devices,
}
UNPLUGGING: Mapping[str, Callable[[Belongings], bool]] = {
    "at once": lambda _: True,
    "disk gone": lambda found: "disk-more" not in found.devices,
    "interface gone": lambda found: "nic-extra" not in found.devices,
}


@pytest.fixture(scope="module")
def guest(scene: Stage) -> Guest:
    made = scene.guest(spec={**GROWING, "disks": [disk(scene, "root"), disk(scene, "data", bus="SCSI")]})
    made.edit({"networks": [LAN]})
    first_report(made)
    settle(made)
    addressed(made)
    return made


def small(scene: Stage) -> Mapping[str, object]:
    return {"disks": [disk(scene, "root"), disk(scene, "data", bus="SCSI")], "networks": [LAN]}


def large(scene: Stage) -> Mapping[str, object]:
    disks = [disk(scene, "root"), disk(scene, "data", bus="SCSI")]
    added = [disk(scene, "more", ioThread=True), disk(scene, "wide", bus="SCSI")]
    return {"disks": [*disks, *added], "networks": [LAN, EXTRA]}


def kill_at(scene: Stage, guest: Guest, moment: Callable[[Belongings], bool]) -> None:
    """Kills the agent at that moment, and starts the next one."""
    eventually(lambda: moment(belongings(guest)), timeout_s=30, what="the moment")
    scene.kill_agent("node-a")
    scene.start_agent("node-a")
    settle(guest)


def pending(guest: Guest) -> object:
    """What the record has as begun."""
    return json.loads((guest.state / "record.json").read_text()).get("pending", [])


@pytest.mark.timeout(200)
def test_whatever_the_moment_a_change_ends_right(scene: Stage, guest: Guest) -> None:
    before, table, life = belongings(guest), places(guest.status()), life_of(guest)
    expected = {
        "devices": {"disk-more", "disk-wide", "nic-extra"},
        "objects": {"iothread-more"},
        "nodes": {"disk-more", "disk-more-file", "disk-wide", "disk-wide-file"},
        "netdevs": {"nic-extra", "net-extra"},
    }
    unplugs = iter(UNPLUGGING.values())
    for moment in PLUGGING.values():
        guest.edit(large(scene))
        kill_at(scene, guest, moment)
        found = belongings(guest)
        assert {name: getattr(found, name) - getattr(before, name) for name in expected} == expected
        assert table.items() <= places(guest.status()).items(), "what was there moved"

        guest.edit(small(scene))
        unplug = next(unplugs, None)
        if unplug is None:
            settle(guest)
        else:
            kill_at(scene, guest, unplug)
        assert belongings(guest) == before
        assert places(guest.status()) == table
        assert pending(guest) == []
    wait_for_report(guest, lambda seen: set(serials(seen)) == {"ROOT", "DATA"} and len(seen.nics) == 1, "the guest")
    assert life_of(guest) == life


def test_an_edit_during_a_change_is_what_counts(scene: Stage, guest: Guest) -> None:
    before = belongings(guest)
    for _ in range(3):
        guest.edit(large(scene))
        guest.edit(small(scene))
    guest.edit({"disks": large(scene)["disks"]})
    settle(guest)
    assert {"disk-more", "disk-wide"} <= belongings(guest).devices
    guest.edit(small(scene))
    settle(guest)
    assert belongings(guest) == before
    assert not objects(guest.status(), "pci", "anonymous")


def test_a_change_while_no_agent_runs_is_made_by_the_next(scene: Stage, guest: Guest) -> None:
    before, life = belongings(guest), life_of(guest)
    scene.kill_agent("node-a")
    guest.edit({**large(scene), "memory": {"size": "288Mi"}})
    assert belongings(guest) == before
    scene.start_agent("node-a")
    settle(guest)
    seen = wait_for_report(guest, lambda seen: len(seen.disks) == 4 and len(seen.nics) == 2, "the devices")
    assert set(serials(seen)) == {"ROOT", "DATA", "MORE", "WIDE"}
    assert life_of(guest) == life

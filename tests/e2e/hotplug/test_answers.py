"""What a guest does while it is asked for something: nothing, stand still, boot, reboot, migrate.

Whatever it does, the change is made in the end, and what it waits for is told.
"""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.hotplug.changes import (
    GROWING,
    addressed,
    boots,
    change,
    disk,
    serials,
    settle,
    wait_for_belongings,
    wait_for_boot,
    wait_for_report,
)
from e2e.hotplug.monitor import ask_qemu, belongings, has_device
from e2e.life.witness import TINY, life_of, run_state, type_line
from e2e.machine.linux import ask, first_report
from e2e.stage import Guest, Stage
from sandbox.kubectl import Object

LAN: Object = {"name": "lan", "isolated": {}}


@pytest.fixture(scope="module")
def deaf(scene: Stage) -> Guest:
    """A guest without an operating system, which never answers; it is asked for a disk at once."""
    made = scene.guest("deaf", spec={**TINY, "disks": [disk(scene, "d0"), disk(scene, "d1")]}, boot=False)
    settle(made)
    addressed(made)
    made.edit({"disks": [disk(scene, "d0")]})
    return made


@pytest.fixture(scope="module")
def guest(scene: Stage, deaf: Guest) -> Guest:
    """A Linux that is booted while the deaf guest is waited for."""
    made = scene.guest(spec={**GROWING, "disks": [disk(scene, "root")], "networks": [LAN]})
    first_report(made)
    settle(made)
    return made


@pytest.fixture
def sink(short_folder: Path) -> Iterator[str]:
    """Where a migration goes that nobody reads."""
    path = short_folder / "sink"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        # QEMU has a user of its own.
        path.chmod(0o777)
        listener.listen(1)
        yield f"unix:{path}"
    path.unlink()


def wait_for_disks(guest: Guest, expected: set[str]) -> None:
    wait_for_report(guest, lambda seen: set(serials(seen)) == expected, f"the disks {expected}")


def test_while_the_guest_is_asked_the_device_is_named(deaf: Guest) -> None:
    told = deaf.wait_for_reason("Reconciling", "Unplugging")
    assert "disks[d1]" in told["message"] or "disk-d1" in told["message"]
    assert deaf.condition("Ready")["status"] == "True"
    assert has_device(deaf, "disk-d1")


def test_a_disk_that_is_plugged_while_the_guest_boots_is_seen(scene: Stage) -> None:
    booting = scene.guest("booting", spec={**GROWING, "disks": [disk(scene, "b0")]})
    booting.wait()
    booting.edit({"disks": [disk(scene, "b0"), disk(scene, "b1")], "networks": [LAN], "memory": {"size": "288Mi"}})
    wait_for_belongings(booting, lambda found: {"disk-b1", "nic-lan"} <= found.devices, "the plugged devices")
    assert "guest# " not in booting.console(), "the guest had booted already"
    booting.wait_for_console("guest# ", timeout_s=120)
    seen = wait_for_report(
        booting, lambda seen: len(seen.disks) == 2 and len(seen.nics) == 1 and seen.memory_kib > 280_000, "all of it"
    )
    assert set(serials(seen)) == {"B0", "B1"}
    settle(booting)
    booting.delete()


def test_a_guest_that_stands_still_is_changed_when_it_can_be(scene: Stage, guest: Guest) -> None:
    root, more = disk(scene, "root"), disk(scene, "more")
    guest.edit({"paused": True})
    guest.wait("Paused")
    guest.edit({"disks": [root, more]})
    wait_for_belongings(guest, lambda found: "disk-more" in found.devices, "the disk of a paused guest")
    guest.edit({"paused": False})
    settle(guest)
    wait_for_report(guest, lambda seen: "MORE" in serials(seen), "the disk")

    guest.edit({"paused": True})
    guest.wait("Paused")
    guest.edit({"disks": [root]})
    guest.wait_for_reason("Reconciling", "Unplugging")
    assert run_state(guest) == "paused"
    assert has_device(guest, "disk-more")
    guest.edit({"paused": False})
    settle(guest)
    assert not has_device(guest, "disk-more")
    wait_for_report(guest, lambda seen: set(serials(seen)) == {"ROOT"}, "its end")


def test_a_reboot_in_the_middle_of_an_unplug_and_of_a_plug(scene: Stage, guest: Guest) -> None:
    root, more, life = disk(scene, "root"), disk(scene, "more"), life_of(guest)
    before = belongings(guest)
    change(guest, {"disks": [root, more]})
    for disks, expected in (([root], {"ROOT"}), ([root, more], {"ROOT", "MORE"}), ([root], {"ROOT"})):
        earlier = boots(guest)
        type_line(guest, "reboot")
        guest.edit({"disks": disks})
        wait_for_boot(guest, earlier + 1)
        settle(guest)
        wait_for_disks(guest, expected)
        addressed(guest)
    assert belongings(guest) == before
    assert life_of(guest) == life


def test_a_guest_that_migrates_is_changed_afterwards(scene: Stage, guest: Guest, sink: str) -> None:
    root, more = disk(scene, "root"), disk(scene, "more")
    ask_qemu(guest, "migrate-set-parameters", {"max-bandwidth": 4096})
    ask_qemu(guest, "migrate", {"uri": sink})
    guest.edit({"disks": [root, more]})
    told = guest.wait_for_reason("Reconciling", "Migrating")
    assert "disks[more]" in told["message"]
    assert not has_device(guest, "disk-more")
    assert guest.condition("Ready")["status"] == "True"
    ask_qemu(guest, "migrate_cancel")
    settle(guest)
    wait_for_report(guest, lambda seen: "MORE" in serials(seen), "the disk")
    change(guest, {"disks": [root]})


def test_a_disk_that_the_guest_uses_is_still_let_go_of(scene: Stage, guest: Guest) -> None:
    root, more = disk(scene, "root"), disk(scene, "more")
    change(guest, {"disks": [root, more]})
    seen = wait_for_report(guest, lambda seen: "MORE" in serials(seen), "the disk")
    name = seen.disk("MORE").name
    # Linux lets go of a PCI function whoever has it open; what reads it gets errors.
    ask(guest, f"(exec 9</dev/{name}; touch /tmp/open; while [ -e /tmp/open ]; do sleep 0.1; done) & true")
    change(guest, {"disks": [root]})
    ask(guest, "rm -f /tmp/open")
    assert belongings(guest).nodes == {"disk-root", "disk-root-file"}


def test_a_guest_that_never_answers_is_named_and_asked_again_when_it_reboots(scene: Stage, deaf: Guest) -> None:
    told = deaf.wait_for_reason("Stalled", "UnplugIgnored", timeout_s=90)
    assert "disks[d1]" in told["message"] or "disk-d1" in told["message"]
    assert deaf.condition("Ready")["status"] == "True"
    assert has_device(deaf, "disk-d1")
    life = life_of(deaf)
    deaf.edit({"restart": {"token": "again", "mode": "Reset"}})
    deaf.wait_for(".status.restartToken", "again")
    wait_for_belongings(deaf, lambda found: "disk-d1" not in found.devices, "the end of the disk")
    settle(deaf)
    assert life_of(deaf) == life
    assert belongings(deaf).nodes == {"disk-d0", "disk-d0-file"}

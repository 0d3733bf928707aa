"""Changes of a running guest that cannot be had: each is refused by name and reason, the guest runs on untouched.

One guest for the whole file, which boots nothing; after each story its spec is as it was.
"""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.hotplug.changes import addressed, change, disk, free_ports, settle, wait_for_belongings
from e2e.hotplug.monitor import belongings
from e2e.life.witness import TINY, life_of
from e2e.machine.published import places
from e2e.stage import Guest, Stage
from sandbox.kubectl import Object

NET: Object = {"name": "lan", "isolated": {}}


def first(scene: Stage) -> Mapping[str, object]:
    """The guest as it is between the stories."""
    return {
        "disks": [disk(scene, "root"), disk(scene, "data", bus="SCSI")],
        "networks": [NET],
        "cpu": {"count": 1, "maxCount": 2},
        "memory": {"size": "32Mi", "maxSize": "1Gi"},
        "pci": {"hotplugPorts": 2},
    }


@pytest.fixture(scope="module")
def guest(scene: Stage) -> Iterator[Guest]:
    made = scene.guest(spec={**TINY, **first(scene)}, boot=False)
    settle(made)
    addressed(made)
    life = life_of(made)
    yield made
    assert life_of(made) == life, "one of the stories restarted the guest"


@pytest.fixture
def untouched(scene: Stage, guest: Guest) -> Iterator[Guest]:
    """The guest; after the story its spec is taken back, and everything is as it was."""
    before, table, ports = belongings(guest), places(guest.status()), free_ports(guest)
    yield guest
    change(guest, first(scene))
    assert belongings(guest) == before
    assert (places(guest.status()), free_ports(guest)) == (table, ports)
    assert guest.condition("RestartRequired").get("status") != "True"


def assert_stalled(guest: Guest, reason: str, *words: str) -> None:
    message = guest.wait_for_reason("Stalled", reason)["message"]
    assert [word for word in words if word not in message] == [], message
    assert guest.condition("Ready")["status"] == "True"


def assert_waits(guest: Guest, field: str) -> None:
    message = guest.wait_for_reason("RestartRequired", "FieldsWaiting")["message"]
    assert field in message
    assert guest.condition("Ready")["status"] == "True"


def more(scene: Stage, *added: Object) -> Mapping[str, object]:
    return {"disks": [disk(scene, "root"), disk(scene, "data", bus="SCSI"), *added]}


BAD_PLACES = {
    "taken": ("PciAddressTaken", "port-1:00.0"),
    "no such bus": ("PciAddressRefused", "nowhere:00.0"),
    "a second slot of a port": ("PciAddressRefused", "port-1:01.0"),
    "the chipset's": ("PciAddressRefused", "pcie.0:1f.2"),
}


@pytest.mark.parametrize("place", BAD_PLACES)
def test_an_address_that_cannot_be_had_is_refused(scene: Stage, untouched: Guest, place: str) -> None:
    reason, address = BAD_PLACES[place]
    if place == "taken":
        address = places(untouched.status())["disk-root"]
    untouched.edit(more(scene, disk(scene, "extra", pciAddress=address)))
    assert_stalled(untouched, reason, "disks[extra]", address)


def test_an_address_on_the_root_bus_waits_for_the_next_start(scene: Stage, untouched: Guest) -> None:
    untouched.edit(more(scene, disk(scene, "extra", pciAddress="pcie.0:15.0")))
    assert_waits(untouched, "disks[extra]")


def test_a_sata_disk_waits_for_the_next_start(scene: Stage, untouched: Guest) -> None:
    untouched.edit(more(scene, disk(scene, "extra", bus="SATA")))
    assert_waits(untouched, "disks[extra]")


def test_an_image_that_another_guest_has_is_refused(scene: Stage, untouched: Guest) -> None:
    other = scene.guest("other", spec={**TINY, "disks": [disk(scene, "theirs")]}, boot=False)
    other.wait()
    untouched.edit(more(scene, disk(scene, "theirs", size=None)))
    assert_stalled(untouched, "ImageInUse", "disks[theirs]", f"{scene.namespace}-theirs.qcow2")
    other.delete()


def test_an_image_that_is_open_elsewhere_is_refused_until_it_is_not(scene: Stage, guest: Guest) -> None:
    name = f"{scene.namespace}-open.qcow2"
    scene.image(name)
    before = belongings(guest)
    with opened(scene.sandbox.node("node-a").pool() / name):
        guest.edit(more(scene, disk(scene, "open", size=None, bus="SCSI")))
        assert_stalled(guest, "ImageInUse", "disks[open]", "lock")
        assert belongings(guest) == before
    # An edit is reason enough to try again at once.
    change(guest, {"terminationGracePeriodSeconds": 1})
    assert "disk-open" in belongings(guest).devices
    change(guest, first(scene))
    assert belongings(guest) == before


@contextmanager
def opened(image: Path) -> Iterator[None]:
    """Somebody has the image open to write."""
    holder = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(image)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write("write 0 512\n")
        holder.stdin.flush()
        assert "wrote" in holder.stdout.readline()
        yield
        holder.kill()


def test_a_missing_image_is_refused_and_not_made_up(scene: Stage, untouched: Guest) -> None:
    untouched.edit(more(scene, disk(scene, "missing", size=None)))
    assert_stalled(untouched, "ImageMissing", "disks[missing]")


def test_a_script_that_the_node_does_not_have_is_refused(untouched: Guest) -> None:
    untouched.edit({"networks": [NET, {"name": "extra", "tap": {"upScript": "no-such-script"}}]})
    assert_stalled(untouched, "NoSuchScript", "networks[extra]", "no-such-script")


def test_memory_is_refused_that_is_no_whole_number_of_blocks(untouched: Guest) -> None:
    untouched.edit({"memory": {"size": "97Mi"}})
    assert_stalled(untouched, "MemoryNotAligned", "memory.size", "2Mi")


def test_less_memory_waits_for_the_next_start(untouched: Guest) -> None:
    untouched.edit({"memory": {"size": "16Mi"}})
    assert_waits(untouched, "memory.size")


REFUSED_AT_ONCE: Mapping[str, tuple[Mapping[str, object], str]] = {
    "more processors than there can be": ({"cpu": {"count": 3}}, "maxCount"),
    "more memory than there can be": ({"memory": {"size": "2Gi"}}, "maxSize"),
    "a burst without a rate": ({"disks": [{"name": "x", "throttle": {"iopsBurst": 5}}]}, "iops"),
}


@pytest.mark.parametrize("what", REFUSED_AT_ONCE)
def test_what_contradicts_itself_is_refused_by_the_api_server(untouched: Guest, what: str) -> None:
    spec, word = REFUSED_AT_ONCE[what]
    outcome = untouched.patch(spec)
    assert outcome.code != 0
    assert word in outcome.errors


def test_two_disks_with_one_serial_are_refused_by_the_api_server(scene: Stage, untouched: Guest) -> None:
    outcome = untouched.patch(more(scene, disk(scene, "extra", serial="ROOT")))
    assert outcome.code != 0
    assert "serial" in outcome.errors


def test_a_node_with_fewer_processors_refuses_more(scene: Stage) -> None:
    guest = scene.guest("wide", spec={**TINY, "cpu": {"count": 1, "maxCount": 64}}, boot=False)
    settle(guest)
    guest.edit({"cpu": {"count": 64}})
    assert_stalled(guest, "InsufficientCpus", "cpu.count", "64")
    guest.delete()


def test_the_boot_disk_may_go_but_it_is_said(scene: Stage) -> None:
    """A SCSI disk, because a guest that boots nothing lets go of nothing else."""
    boot = disk(scene, "boot", bus="SCSI", bootOrder=1)
    guest = scene.guest("booted", spec={**TINY, "disks": [boot, disk(scene, "other", bus="SCSI")]}, boot=False)
    settle(guest)
    change(guest, {"disks": [disk(scene, "other", bus="SCSI")]})
    assert "disk-boot" not in belongings(guest).devices
    said = [message for _, message in scene.events(guest) if "boot" in message and "disk" in message]
    assert said, scene.events(guest)
    assert (scene.sandbox.node("node-a").pool() / f"{scene.namespace}-boot.qcow2").exists()
    guest.delete()


def test_more_devices_than_ports_are_refused_by_number(scene: Stage, guest: Guest) -> None:
    """The last story: a guest that boots nothing keeps what it was given."""
    ports = free_ports(guest)
    assert ports == 2
    added = [disk(scene, f"more-{number}", bus="NVMe") for number in range(ports + 1)]
    guest.edit(more(scene, *added))
    assert_stalled(guest, "PciExhausted", f"disks[more-{ports}]")
    wait_for_belongings(guest, lambda found: {"disk-more-0", "disk-more-1"} <= found.devices, "those that have a place")
    assert "disk-more-2" not in belongings(guest).devices
    assert belongings(guest).nodes >= {"disk-more-0", "disk-more-1"}
    assert "disk-more-2" not in belongings(guest).nodes
    assert free_ports(guest) == 0

"""The live description in status: publishing and reading back are inverses, through the wire form too."""

from dataclasses import replace

import pytest
from hypothesis import given

from guestlet.api.guest_status import (
    BandwidthStatus,
    DimmStatus,
    DiskStatus,
    MemoryStatus,
    NetworkStatus,
    QemuStatus,
    SourceStatus,
    ThrottleStatus,
    VirtioMemStatus,
    VirtualGuestStatus,
)
from guestlet.errors import Broken
from guestlet.guest.describe import machine_of_status, publish_machine
from guestlet.pci.observed import Numbered, Seen
from guestlet.qemu.machine import Dimm, Machine, Memory, VirtioMem
from unit.guest.guest_samples import GIB, MIB, disk, machine
from unit.guest.machines import machines

SPEC = {"disks": [disk(size="1Gi")], "networks": [{"name": "lan", "user": {}}]}


def published(described: Machine) -> VirtualGuestStatus:
    status = publish_machine(described, numbered=None, created_at={})
    return status.model_copy(update={"qemu": QemuStatus(version="7.2.22", sandbox=described.sandbox)})


@given(machines())
def test_status_alone_gives_the_same_machine_again(described: Machine) -> None:
    assert machine_of_status(published(described), name=described.name) == described


@given(machines())
def test_so_does_status_as_the_api_server_keeps_it(described: Machine) -> None:
    kept = VirtualGuestStatus.model_validate(published(described).to_wire())

    assert machine_of_status(kept, name=described.name) == described


def test_a_status_of_a_guest_that_never_started_describes_none() -> None:
    assert machine_of_status(VirtualGuestStatus(), name="default/demo") is None


@pytest.mark.parametrize(
    "lost", ["uuid", "accelerator", "firmware", "cpu", "memory", "devices", "pci", "console", "qemu"]
)
def test_half_a_description_is_refused(lost: str) -> None:
    with pytest.raises(Broken, match="only in part"):
        machine_of_status(published(machine(SPEC)).model_copy(update={lost: None}), name="default/demo")


def test_a_layout_without_its_bus_is_refused() -> None:
    status = published(machine(SPEC))
    assert status.pci is not None
    lost = status.model_copy(update={"pci": status.pci.model_copy(update={"device_bus": None})})

    with pytest.raises(Broken, match=r"status.pci lacks deviceBus"):
        machine_of_status(lost, name="default/demo")


def test_a_disk_without_its_source_is_refused() -> None:
    status = published(machine(SPEC))
    lost: tuple[DiskStatus, ...] = (status.disks[0].model_copy(update={"source": SourceStatus()}),)

    with pytest.raises(Broken, match=r"status.disks\[root\] names no source"):
        machine_of_status(status.model_copy(update={"disks": lost}), name="default/demo")


def test_a_network_without_its_backend_is_refused() -> None:
    status = published(machine(SPEC))
    lost: tuple[NetworkStatus, ...] = (status.networks[0].model_copy(update={"user": None}),)

    with pytest.raises(Broken, match=r"status.networks\[lan\] names no backend"):
        machine_of_status(status.model_copy(update={"networks": lost}), name="default/demo")


def test_guest_addresses_are_published_where_they_are_known() -> None:
    seen = Seen(guest_address="0000:03:00.0", vendor="1af4", device="1042")
    numbered = Numbered(seen={"disk-root": seen}, missing=(), strangers=())

    status = publish_machine(machine(SPEC), numbered=numbered, created_at={"root": "2026-01-01T00:00:00Z"})

    assert status.pci is not None
    known = {each.id: each.guest_address for each in status.pci.devices}
    assert known["disk-root"] == "0000:03:00.0"
    assert known["nic-lan"] is None
    assert status.disks[0].created_at == "2026-01-01T00:00:00Z"


def test_memory_is_published_with_how_it_grew() -> None:
    grown = VirtioMem(max_bytes=3 * GIB, block_bytes=2 * MIB, requested_bytes=GIB)
    modules = (Dimm(slot=0, size_bytes=128 * MIB),)
    memory = Memory(boot_bytes=GIB, max_bytes=4 * GIB, virtio_mem=grown, dimms=modules)

    status = publish_machine(replace(machine(SPEC), memory=memory), numbered=None, created_at={})

    assert status.memory == MemoryStatus(
        at_boot="1Gi",
        current="2176Mi",
        max="4Gi",
        virtio_mem=VirtioMemStatus(max="3Gi", block_size="2Mi", requested="1Gi"),
        dimms=(DimmStatus(slot=0, size="128Mi"),),
    )


def test_what_the_guest_has_taken_is_qemus_word_and_describes_nothing() -> None:
    described = machine(SPEC)

    status = publish_machine(described, numbered=None, created_at={}, memory_now_bytes=300 * MIB)

    assert status.memory is not None
    assert (status.memory.at_boot, status.memory.current) == ("512Mi", "300Mi")
    status = status.model_copy(update={"qemu": QemuStatus(version="7.2.22", sandbox=True)})
    assert machine_of_status(status, name=described.name) == described


def test_devices_of_a_qemu_that_somebody_else_started_are_published_by_its_names_and_read_back_by_ours() -> None:
    described = machine(SPEC)
    aliases = {"disk-root": "virtio0", "nic-lan": "/machine/peripheral-anon/device[1]"}

    status = publish_machine(described, numbered=None, created_at={}, aliases=aliases)

    assert status.pci is not None
    assert {each.name: each.id for each in status.pci.devices if each.name in ("root", "lan")} == {
        "root": "virtio0",
        "lan": "/machine/peripheral-anon/device[1]",
    }
    status = status.model_copy(update={"qemu": QemuStatus(version="7.2.22", sandbox=True)})
    assert machine_of_status(status, name=described.name) == described


@pytest.mark.parametrize("kind", ["q35", "pc"])
def test_a_status_of_the_previous_version_describes_the_same_machine(kind: str) -> None:
    """It had neither ``cpu.maxCount`` nor ``pci.family``, and nothing that could be plugged."""
    described = machine({**SPEC, "machine": {"type": kind}})
    status = published(described)
    assert status.cpu is not None
    assert status.pci is not None
    before = {
        "cpu": status.cpu.model_copy(update={"max_count": None}),
        "pci": status.pci.model_copy(update={"family": None}),
    }

    assert machine_of_status(status.model_copy(update=before), name=described.name) == described


def test_a_drive_without_a_medium_is_published_without_a_source() -> None:
    drive = {"name": "cd", "bus": "SATA", "cdrom": True, "readOnly": True}

    (status,) = published(machine({"disks": [drive]})).disks

    assert (status.source, status.size) == (None, "0")


def test_a_disk_without_source_that_is_no_cdrom_is_refused() -> None:
    status = published(machine(SPEC))
    lost: tuple[DiskStatus, ...] = (status.disks[0].model_copy(update={"source": None}),)

    with pytest.raises(Broken, match=r"status.disks\[root\] names no source"):
        machine_of_status(status.model_copy(update={"disks": lost}), name="default/demo")


def test_limits_are_published_as_they_were_given() -> None:
    limits = {"iops": 100, "iopsBurst": 200, "bandwidth": "1Mi", "bandwidthBurst": "1500k"}
    lan = {"name": "lan", "bridge": {"name": "br0"}, "bandwidth": {"inbound": "10M"}}

    status = published(machine({"disks": [disk(size="1Gi", throttle=limits)], "networks": [lan]}))

    throttle = ThrottleStatus(iops=100, iops_burst=200, bandwidth="1Mi", bandwidth_burst="1500000")
    assert status.disks[0].throttle == throttle
    assert status.networks[0].bandwidth == BandwidthStatus(inbound="10000000")

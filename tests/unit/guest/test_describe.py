"""The live description in status: publishing and reading back are inverses, through the wire form too."""

import pytest
from hypothesis import given

from guestlet.api.guest_status import DiskStatus, NetworkStatus, QemuStatus, SourceStatus, VirtualGuestStatus
from guestlet.errors import Broken
from guestlet.guest.describe import machine_of_status, publish_machine
from guestlet.pci.observed import Numbered, Seen
from guestlet.qemu.machine import Machine
from unit.guest.guest_samples import disk, machine
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

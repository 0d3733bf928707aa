"""Ids and node names."""

import pytest

from guestlet.pci.layout import DeviceKind
from guestlet.qemu.names import backing_node, disk_node, hub, pci_device, protocol_node, sata_controller


def test_node_names_tell_the_disk() -> None:
    assert disk_node("root") == "disk-root"
    assert protocol_node(backing_node("root")) == "back-root-file"


def test_node_names_of_the_longest_disk_names_fit_into_qemus_limit_and_differ() -> None:
    long = ["a" * 31 + last for last in "xyz"]
    nodes = {protocol_node(disk_node(name)) for name in long} | {protocol_node(backing_node(name)) for name in long}

    assert len(nodes) == 6
    assert all(len(node) <= 31 for node in nodes)


def test_each_ahci_controller_has_six_ports() -> None:
    assert [sata_controller(unit) for unit in (0, 5, 6, 12)] == ["sata", "sata", "sata-1", "sata-2"]


def test_the_hub_of_an_isolated_network_follows_from_its_name_alone() -> None:
    names = [f"net-{number}" for number in range(1000)]

    assert hub("lan") == 155858555
    assert len({hub(name) for name in names}) == len(names)
    assert all(0 <= hub(name) < 2**31 for name in names)


@pytest.mark.parametrize(
    ("kind", "name", "device"),
    [
        (DeviceKind.DISK, "root", "disk-root"),
        (DeviceKind.NIC, "lan", "nic-lan"),
        (DeviceKind.SCSI, "scsi", "scsi"),
        (DeviceKind.SATA, "sata-1", "sata-1"),
        (DeviceKind.MEMORY, "memory", "memory"),
    ],
)
def test_a_device_with_an_address_is_named_by_what_it_is_and_its_name(kind: DeviceKind, name: str, device: str) -> None:
    assert pci_device(kind, name) == device

"""Which parts of a machine have a PCI address."""

from dataclasses import replace

from guestlet.pci.address import parse_address
from guestlet.pci.layout import DeviceKind
from guestlet.qemu.machine import DiskBus, NicModel
from guestlet.qemu.pci_requests import pci_requests
from unit.qemu.sample_machines import disk, nic


def test_disks_networks_controllers_then_the_small_devices_in_spec_order() -> None:
    requests = pci_requests(
        disks=(
            disk("b"),
            disk("s0", DiskBus.SCSI, unit=0),
            disk("s1", DiskBus.SCSI, unit=1),
            disk("a", DiskBus.NVME),
            disk("d", DiskBus.SATA, unit=6),
            disk("c", DiskBus.SATA, unit=0),
        ),
        networks=(nic("old", NicModel.E1000), nic("lan")),
        small=frozenset({DeviceKind.RNG, DeviceKind.BALLOON, DeviceKind.WATCHDOG, DeviceKind.MEMORY}),
        explicit={"nic-lan": parse_address("pcie.0:05.0")},
    )

    assert [each.id for each in requests] == [
        "disk-b",
        "disk-a",
        "nic-old",
        "nic-lan",
        "scsi",
        "sata",
        "sata-1",
        "rng",
        "balloon",
        "watchdog",
        "memory",
    ]
    assert {each.id for each in requests if each.conventional} == {"nic-old", "sata", "sata-1", "watchdog"}
    assert {each.id: str(each.explicit) for each in requests if each.explicit} == {"nic-lan": "pcie.0:05.0"}
    assert requests[0] == replace(requests[0], name="b", kind=DeviceKind.DISK)


def test_a_machine_with_nothing_asks_for_nothing() -> None:
    assert pci_requests(disks=(), networks=(), small=frozenset(), explicit={}) == ()

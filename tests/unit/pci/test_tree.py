"""The buses as a person reads them."""

from dataclasses import replace

from guestlet.pci.layout import DeviceKind
from guestlet.pci.observed import Numbered, Seen
from guestlet.pci.tree import pci_tree
from unit.pci.foreign import BRIDGE, found, maker, placed, stranger
from unit.pci.requests import disk, nic, pc, q35, request


def test_a_guest_of_ours_reads_as_a_tree_of_ports_devices_and_free_places() -> None:
    layout = q35(disk("root"), nic("lan"), nic("old", conventional=True), request("rng", DeviceKind.RNG), spares=1)
    layout = replace(layout, anonymous=(stranger("pcie.0:09.0", "video0"),))
    numbered = Numbered(
        seen={
            "disk-root": Seen(guest_address="0000:03:00.0", vendor="1af4", device="1042"),
            "port-0": Seen(guest_address="0000:00:02.0", vendor="1b36", device="000c"),
        },
        missing=("nic-lan",),
        strangers=("mystery",),
    )

    assert pci_tree(layout, numbered, notes={"disk-root": "being unplugged"}) == (
        "pcie.0 (q35; disks and networks: on RootPort; 1 of 4 hotplug places free)\n"
        "├─ 01.0 pcie-bridge (pcie-pci-bridge)\n"
        "│  └─ 01.0 bridge-0 (pci-bridge)\n"
        "│     ├─ 01.0 nic old (nic-old)\n"
        "│     └─ 30 slots free (02..1f)\n"
        "├─ 02.0 port-0 (pcie-root-port)        0000:00:02.0  1b36:000c\n"
        "│  └─ 00.0 disk root (disk-root)       0000:03:00.0  1af4:1042  being unplugged\n"
        "├─ 02.1 port-1 (pcie-root-port)\n"
        "│  └─ 00.0 nic lan (nic-lan)                                    not in QEMU\n"
        "├─ 02.2 port-2 (pcie-root-port)\n"
        "│  └─ 00.0 rng\n"
        "├─ 02.3 port-3 (pcie-root-port)\n"
        "│  └─ 00.0 free\n"
        "└─ 09.0 class 0300 (video0)                          1234:1111  not known to guestlet; its address is kept\n"
        "in QEMU and not recorded: mystery\n"
    )


def test_a_guest_that_does_not_answer_shows_what_is_recorded() -> None:
    assert pci_tree(pc(disk("root")), None, notes={}) == (
        "pci.0 (pc; disks and networks: on PCI slots; 25 of 26 hotplug places free)\n"
        "├─ 02.0 disk root (disk-root)\n"
        "└─ 25 slots free (03..1b)\n"
    )


def test_nested_bridges_stand_below_one_another() -> None:
    layout = found(
        maker("outer", BRIDGE, "pcie.0:04.0", 1),
        maker("inner", BRIDGE, "outer:1f.0", 2),
        devices=(placed("a", "inner:05.0"),),
    )

    assert pci_tree(layout, None, notes={}) == (
        "pcie.0 (q35; disks and networks: on RootPort; 0 of 0 hotplug places free)\n"
        "└─ 04.0 outer (pci-bridge)\n"
        "   ├─ 1f.0 inner (pci-bridge)\n"
        "   │  ├─ 05.0 disk a (disk-a)\n"
        "   │  └─ 30 slots free (01..1f)\n"
        "   └─ 30 slots free (01..1e)\n"
    )


def test_a_guest_without_anything_is_one_line() -> None:
    assert pci_tree(found(), None, notes={}) == (
        "pcie.0 (q35; disks and networks: on RootPort; 0 of 0 hotplug places free)\n"
    )

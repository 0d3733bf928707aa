"""The bus-making devices of a guest: their kinds, what each kind's bus can take, and those of a first start.

It knows which slots a machine keeps for itself. It must never renumber or move a controller that exists, and knows no
device. Ids are free text as found: a guest that somebody else started names its controllers as it likes.
"""

from dataclasses import dataclass
from enum import StrEnum

from guestlet.pci.address import PciAddress

CHIPSET_SATA = PciAddress(bus="pcie.0", slot=0x1F, function=2)  # ICH9's AHCI: QEMU's pc_q35_init makes it there
LAST_SLOT = 0x1F


class Family(StrEnum):
    """The two chipsets, by QEMU's names; equal to ``qemu.machine.MachineType``."""

    Q35 = "q35"
    PC = "pc"


class ControllerKind(StrEnum):
    """QEMU's bus-making devices; guestlet itself makes the first three, the others are found in adopted guests."""

    ROOT_PORT = "pcie-root-port"
    PCIE_PCI_BRIDGE = "pcie-pci-bridge"
    PCI_BRIDGE = "pci-bridge"
    INTEL_ROOT_PORT = "ioh3420"
    DMI_BRIDGE = "i82801b11-bridge"
    UPSTREAM_PORT = "x3130-upstream"
    DOWNSTREAM_PORT = "xio3130-downstream"
    EXPANDER = "pxb-pcie"  # a root bus of its own; ``Controller.index`` is its number (bus_nr)


# Root ports and what behaves as they do: a bus with slot 0 alone, into which devices are plugged.
PORTS = frozenset({ControllerKind.ROOT_PORT, ControllerKind.INTEL_ROOT_PORT, ControllerKind.DOWNSTREAM_PORT})
# Without it SeaBIOS keeps 2 MiB behind a bridge, which is used up by the sixth hotplugged e1000 (measured with QEMU
# 7.2: 31 virtio devices had room, 6 of 31 e1000; all with this).
_BRIDGE_MEMORY_BYTES = 16 << 20
# Bridges to conventional PCI: the only places of conventional devices on q35.
BRIDGES = frozenset({ControllerKind.PCIE_PCI_BRIDGE, ControllerKind.PCI_BRIDGE, ControllerKind.DMI_BRIDGE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A bus-making device: ``id`` is its qdev id and the name of the bus it makes; ``index`` is chassis/chassis_nr.

    ``index`` is 0..255 and unique among the ports of a guest, and among its controllers of any other one kind.
    ``memory_bytes`` is what the firmware keeps behind a bridge for what is plugged later. The guest sees it, and a
    migration into a bridge with another fails (measured), so it is a fact like the address; ``None``: nothing.
    """

    id: str
    kind: ControllerKind
    address: PciAddress
    index: int
    memory_bytes: int | None = None


def pci_bridge(name: str, address: PciAddress, *, index: int) -> Controller:
    """A new bridge to conventional PCI, with room for devices that are plugged later."""
    return Controller(
        id=name, kind=ControllerKind.PCI_BRIDGE, address=address, index=index, memory_bytes=_BRIDGE_MEMORY_BYTES
    )


def root_bus(family: Family) -> str:
    """The id of the bus that the chipset itself makes."""
    match family:
        case Family.Q35:
            return "pcie.0"
        case Family.PC:
            return "pci.0"


def initial_controllers(family: Family) -> tuple[Controller, ...]:
    """The controllers that every guest of the family has from its first start."""
    match family:
        case Family.Q35:
            address = PciAddress(bus="pcie.0", slot=1, function=0)
            bridge = Controller(id="pcie-bridge", kind=ControllerKind.PCIE_PCI_BRIDGE, address=address, index=1)
            behind = PciAddress(bus=bridge.id, slot=1, function=0)
            return bridge, pci_bridge("bridge-0", behind, index=1)
        case Family.PC:
            return ()


def parents_first(controllers: tuple[Controller, ...]) -> tuple[Controller, ...]:
    """The controllers in their order, but each after the one that makes the bus it is on."""
    unmade = {each.id for each in controllers}
    ordered: list[Controller] = []
    for _ in controllers:
        for each in controllers:
            if each.id in unmade and each.address.bus not in unmade:
                ordered.append(each)
                unmade.remove(each.id)
        if not unmade:
            break
    # What is behind itself (QEMU cannot make it) is handed back as it is.
    return (*ordered, *(each for each in controllers if each.id in unmade))


def reserved_for(family: Family, address: PciAddress) -> str | None:
    """What the chipset itself keeps at this slot of its root bus, or ``None``.

    Measured with QEMU 7.2 and 10.0: pcie.0 00 and 1f.0/2/3, pci.0 00 and 01.0/1/3 are in use; the whole slot is kept.
    """
    if address.bus != root_bus(family):
        return None
    if address.slot == 0:
        return "the host bridge"
    match family:
        case Family.Q35:
            return "the ICH9 chipset" if address.slot == CHIPSET_SATA.slot else None
        case Family.PC:
            return "the PIIX3 chipset" if address.slot == 1 else None

"""The bus-making devices of a guest and the slots they offer: pcie.0 with root ports and bridges, or pci.0.

It knows which slots a machine keeps for itself, where automatic devices may go, and how one more controller is added.
It must never renumber or move a controller that exists, and knows no device.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from guestlet.pci.address import PciAddress

PCIE_BRIDGE_ID = "pcie-bridge"
CHIPSET_SATA = PciAddress(bus="pcie.0", slot=0x1F, function=2)  # ICH9's AHCI: QEMU's pc_q35_init makes it there

_FIRST_BRIDGE_SLOT = 1  # slot 0 is not valid for the bridge's standard hotplug controller (QEMU hw/pci/shpc.c)
_LAST_SLOT = 0x1F
_PORT_SLOTS = range(0x02, 0x1F)  # of pcie.0; 00 is the host bridge, 01 the pcie-pci-bridge, 1f the ICH9
_PC_DEVICE_SLOTS = range(0x02, 0x1C)  # of pci.0; 00 is the host bridge, 01 the PIIX3
_PC_BRIDGE_SLOTS = range(0x1C, 0x20)  # kept for bridges, so that a full pci.0 can still be extended
_Q35_BRIDGES = range(1, 9)  # slots of the pcie-pci-bridge


class Family(StrEnum):
    """The two chipsets, by QEMU's names; equal to ``qemu.machine.MachineType``."""

    Q35 = "q35"
    PC = "pc"


class ControllerKind(StrEnum):
    """QEMU's bus-making devices."""

    ROOT_PORT = "pcie-root-port"
    PCIE_PCI_BRIDGE = "pcie-pci-bridge"
    PCI_BRIDGE = "pci-bridge"


class Venue(StrEnum):
    """A set of slots among which a device may be placed automatically."""

    ROOT_PORTS = "root ports"  # q35: slot 0 of each
    BRIDGES = "bridge slots"  # q35: what lies behind the pcie-pci-bridge
    PCI = "PCI slots"  # pc: pci.0, then its bridges


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A bus-making device: ``id`` is its qdev id and the name of the bus it makes; ``index`` is chassis/chassis_nr."""

    id: str
    kind: ControllerKind
    address: PciAddress
    index: int


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
            bridge = Controller(id=PCIE_BRIDGE_ID, kind=ControllerKind.PCIE_PCI_BRIDGE, address=address, index=1)
            behind = PciAddress(bus=PCIE_BRIDGE_ID, slot=1, function=0)
            return bridge, Controller(id="bridge-0", kind=ControllerKind.PCI_BRIDGE, address=behind, index=1)
        case Family.PC:
            return ()


def family_of(controllers: tuple[Controller, ...]) -> Family:
    """The family that recorded controllers belong to: only q35 has a pcie-pci-bridge, and always."""
    return Family.Q35 if any(each.id == PCIE_BRIDGE_ID for each in controllers) else Family.PC


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


def slots_of(venue: Venue, controllers: tuple[Controller, ...]) -> Iterator[PciAddress]:
    """Every address of the venue in the order in which automatic devices take them, taken ones included."""
    if venue is Venue.PCI:
        yield from (PciAddress(bus="pci.0", slot=slot, function=0) for slot in _PC_DEVICE_SLOTS)
    for each in controllers:
        if venue is Venue.ROOT_PORTS:
            if each.kind is ControllerKind.ROOT_PORT:
                yield PciAddress(bus=each.id, slot=0, function=0)
        elif each.kind is ControllerKind.PCI_BRIDGE:
            for slot in range(_FIRST_BRIDGE_SLOT, _LAST_SLOT + 1):
                yield PciAddress(bus=each.id, slot=slot, function=0)


def next_controller(
    venue: Venue, controllers: tuple[Controller, ...], taken: frozenset[tuple[str, int]]
) -> Controller | None:
    """The controller that gives the venue more slots, or ``None`` when the machine has no room for another.

    ``taken`` are the (bus, slot) pairs that devices hold.
    """
    match venue:
        case Venue.ROOT_PORTS:
            return _next_root_port(controllers, taken)
        case Venue.BRIDGES:
            return _next_bridge(controllers, taken, PCIE_BRIDGE_ID, _Q35_BRIDGES)
        case Venue.PCI:
            return _next_bridge(controllers, taken, "pci.0", _PC_BRIDGE_SLOTS)


def _next_root_port(controllers: tuple[Controller, ...], taken: frozenset[tuple[str, int]]) -> Controller | None:
    ports = sum(each.kind is ControllerKind.ROOT_PORT for each in controllers)
    used = {each.address for each in controllers}
    for slot in _PORT_SLOTS:
        if ("pcie.0", slot) in taken:
            continue
        for function in range(8):
            address = PciAddress(bus="pcie.0", slot=slot, function=function)
            if address not in used:
                return Controller(id=f"port-{ports}", kind=ControllerKind.ROOT_PORT, address=address, index=ports + 1)
    return None


def _next_bridge(
    controllers: tuple[Controller, ...], taken: frozenset[tuple[str, int]], bus: str, slots: range
) -> Controller | None:
    bridges = sum(each.kind is ControllerKind.PCI_BRIDGE for each in controllers)
    used = {(each.address.bus, each.address.slot) for each in controllers} | taken
    for slot in slots:
        if (bus, slot) not in used:
            address = PciAddress(bus=bus, slot=slot, function=0)
            return Controller(
                id=f"bridge-{bridges}", kind=ControllerKind.PCI_BRIDGE, address=address, index=bridges + 1
            )
    return None

"""Where devices may go: the slots that each kind of device takes by itself, and what an address can hold.

Pure. It must never choose a slot among free ones nor look at a request's history.

Measured with QEMU 7.2.22 and 10.0.2, Linux 6.1 in the guest, SeaBIOS; ``device_add`` of virtio-net, virtio-blk and
e1000 until the guest's driver had the device, and ``device_del`` until DEVICE_DELETED:

* q35, root port, pcie-pci-bridge and the pci-bridge behind it: seen within 0.3 s, let go within 0.3 s. All of them are
  hotplugged by ACPI (the machine types' default), slot 0 of a bridge included; no property is needed.
* pc, pci.0 and a pci-bridge on it, nested three deep: the same, let go within 0.4 s.
* ioh3420, xio3130-downstream, i82801b11-bridge, and a pci-bridge behind it or behind another one: the same.
* pcie.0 and pxb-pcie: "Bus does not support hotplugging".
* a function other than 0 is not seen until function 0 comes, and refused beside a function 0 that is there.
* ``device_del`` of one function of a slot takes all functions of the slot from the guest, and from QEMU.
* 31 devices plugged into one pci-bridge, virtio or e1000: all have room with the bridge's ``mem-reserve`` of 16 MiB;
  with firmware's own 2 MiB 6 of 31 e1000, and on pc beside a full pci.0 16 of 31 virtio. 64 on 64 root ports have too.
* a device plugged under a paused or booting guest, or right before a reset, is there once the guest has booted. One
  whose ``device_del`` such a guest has not answered is gone from QEMU at the next reset (DEVICE_DELETED), before the
  firmware runs; asking twice does no harm.
* x3130-upstream: accepted, never seen by the guest and never let go again: no device may be put there.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import (
    LAST_SLOT,
    PORTS,
    Controller,
    ControllerKind,
    Family,
    reserved_for,
    root_bus,
)
from guestlet.pci.facts import DeviceBus, DeviceKind, Layout, Request

_FIRST_BRIDGE_SLOT = 1  # slot 0 is not valid for the bridge's standard hotplug controller (QEMU hw/pci/shpc.c)
_PC_DEVICE_SLOTS = range(0x02, 0x1C)  # of pci.0; 00 is the host bridge, 01 the PIIX3, 1c.. are kept for bridges
_LONE_BRIDGE_SLOTS = range(0x09, LAST_SLOT + 1)  # of a pcie-pci-bridge; 01..08 are kept for bridges behind it
_NO_HOTPLUG = frozenset({ControllerKind.UPSTREAM_PORT, ControllerKind.EXPANDER})

Slot = tuple[str, int]  # bus id, slot


class Venue(StrEnum):
    """A set of slots among which a device may be placed automatically; each of them can be hotplugged."""

    ROOT_PORTS = "root ports"  # q35: slot 0 of each
    BRIDGES = "bridge slots"  # q35: what lies behind its pci-bridges, or its pcie-pci-bridge when it has no other
    PCI = "PCI slots"  # pc: pci.0, then its bridges


def device_venue(family: Family, device_bus: DeviceBus) -> Venue:
    """Where disks and NICs go by default."""
    if family is Family.PC:
        return Venue.PCI
    return Venue.ROOT_PORTS if device_bus is DeviceBus.ROOT_PORT else Venue.BRIDGES


def venue_of(family: Family, device_bus: DeviceBus, request: Request) -> Venue:
    """Where the device goes when nobody chose its address."""
    if family is Family.PC:
        return Venue.PCI
    if request.conventional or request.kind is DeviceKind.SATA:
        return Venue.BRIDGES
    if request.kind in (DeviceKind.DISK, DeviceKind.NIC):
        return device_venue(family, device_bus)
    return Venue.ROOT_PORTS


def slots_of(venue: Venue, controllers: tuple[Controller, ...]) -> Iterator[PciAddress]:
    """Every address of the venue in the order in which automatic devices take them, taken ones included."""
    if venue is Venue.PCI:
        yield from (PciAddress(bus="pci.0", slot=slot, function=0) for slot in _PC_DEVICE_SLOTS)
    if venue is Venue.ROOT_PORTS:
        yield from (PciAddress(bus=each.id, slot=0, function=0) for each in controllers if each.kind in PORTS)
        return
    bridges = tuple(each for each in controllers if each.kind is ControllerKind.PCI_BRIDGE)
    for each in bridges:
        for slot in range(_FIRST_BRIDGE_SLOT, LAST_SLOT + 1):
            yield PciAddress(bus=each.id, slot=slot, function=0)
    if not bridges:
        for each in controllers:
            if each.kind is ControllerKind.PCIE_PCI_BRIDGE:
                yield from (PciAddress(bus=each.id, slot=slot, function=0) for slot in _LONE_BRIDGE_SLOTS)


def slots(addresses: Iterable[PciAddress]) -> frozenset[Slot]:
    """The slots that the addresses are in: a guest sees and lets go of a slot, never of one function in it."""
    return frozenset((each.bus, each.slot) for each in addresses)


def occupied(layout: Layout) -> tuple[PciAddress, ...]:
    """The addresses at which something is: devices, controllers, and what nobody knows."""
    return (
        *(each.address for each in layout.devices),
        *(each.address for each in layout.controllers),
        *(each.address for each in layout.anonymous),
    )


def hotplug_ports_free(layout: Layout) -> tuple[int, int]:
    """How many places a running guest has for hotplugged disks and NICs: (total, free).

    Root ports on q35; with ``PCIBridge`` the slots of its bridges; on pc the slots of pci.0 and of its bridges. A place
    that a controller holds is none.
    """
    held = slots(each.address for each in layout.controllers)
    taken = slots(occupied(layout))
    venue = device_venue(layout.family, layout.device_bus)
    places = [(each.bus, each.slot) for each in slots_of(venue, layout.controllers)]
    return sum(each not in held for each in places), sum(each not in taken for each in places)


def can_hotplug(layout: Layout, address: PciAddress) -> bool:
    """Whether a device can come to and go from the address while the guest runs.

    Not on a root bus of PCI Express, not at a function other than 0 (a guest looks at a slot when function 0 comes),
    and not in a slot with other functions: a guest lets go of a whole slot.
    """
    if address.function != 0 or reserved_for(layout.family, address) is not None:
        return False
    beside = slots(each for each in occupied(layout) if each != address)
    return (address.bus, address.slot) not in beside and bus_can_hotplug(layout, address.bus)


def bus_can_hotplug(layout: Layout, bus: str) -> bool:
    """Whether QEMU takes a device on the bus while the guest runs, and the guest sees it there."""
    if bus == root_bus(layout.family):
        return layout.family is Family.PC
    maker = controller_of(layout.controllers, bus)
    return maker is not None and maker.kind not in _NO_HOTPLUG


def controller_of(controllers: tuple[Controller, ...], bus: str) -> Controller | None:
    """The controller that makes the bus, or ``None`` for a root bus and for one that is not there."""
    return next((each for each in controllers if each.id == bus), None)


def first_free(
    places: Iterable[PciAddress], *, taken: frozenset[Slot], late: tuple[PciAddress, ...]
) -> PciAddress | None:
    """The first place that nothing is in and that was never used; else the one that was freed first; else ``None``."""
    order = tuple(dict.fromkeys((each.bus, each.slot) for each in late))
    free = [each for each in places if (each.bus, each.slot) not in taken]
    fresh = [each for each in free if (each.bus, each.slot) not in order]
    if fresh:
        return fresh[0]
    return min(free, key=lambda each: order.index((each.bus, each.slot)), default=None)

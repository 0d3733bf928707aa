"""One more controller for the next cold start, when a venue has too few slots. Pure.

It must never move, renumber or rename what is there, nor take a slot in which something is.
"""

from collections.abc import Iterable

from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import LAST_SLOT, PORTS, Controller, ControllerKind, pci_bridge
from guestlet.pci.venues import Slot, Venue, slots

_PORT_SLOTS = range(0x02, LAST_SLOT)  # of pcie.0; 00 is the host bridge, 01 the pcie-pci-bridge's, 1f the ICH9
_EXPRESS_BRIDGE_SLOTS = (*reversed(_PORT_SLOTS), 0x01)  # of pcie.0, far from the root ports that follow
_PC_BRIDGE_SLOTS = (*range(0x1C, LAST_SLOT + 1), *reversed(range(0x02, 0x1C)))  # of pci.0; the first are kept for them
_Q35_BRIDGE_SLOTS = range(0x01, 0x09)  # of a pcie-pci-bridge
# SeaBIOS gives each bridge 4 KiB of the 64 KiB of I/O ports: with more of them it would find none left.
_MOST_BRIDGES = {Venue.BRIDGES: 8, Venue.PCI: 4}


def next_controller(
    venue: Venue, controllers: tuple[Controller, ...], *, taken: frozenset[Slot], names: frozenset[str]
) -> tuple[Controller, ...]:
    """The controllers that give the venue more slots: none when the machine has no room for another.

    Two when a guest without a pcie-pci-bridge needs one for the pci-bridge. ``taken``: slots of pcie.0, pci.0 and
    bridges that devices hold; ``names``: ids that something else in QEMU has.
    """
    used = taken | slots(each.address for each in controllers)
    match venue:
        case Venue.ROOT_PORTS:
            return _root_port(controllers, taken=taken, names=names)
        case Venue.BRIDGES:
            return _express_bridge(controllers, used=used, names=names)
        case Venue.PCI:
            free = _first(("pci.0", slot) for slot in _PC_BRIDGE_SLOTS if ("pci.0", slot) not in used)
            return _bridge(venue, controllers, free=free, names=names)


def _root_port(
    controllers: tuple[Controller, ...], *, taken: frozenset[Slot], names: frozenset[str]
) -> tuple[Controller, ...]:
    """Packed eight to a slot, beside root ports only: no other device has the multifunction bit.

    Behind those that are there, while that can be: firmware numbers buses in the order of addresses, and Linux names
    interfaces by those numbers.
    """
    here = [each for each in controllers if each.address.bus == "pcie.0"]
    used = {each.address for each in here}
    closed = taken | slots(each.address for each in here if each.kind is not ControllerKind.ROOT_PORT)
    last = max((each for each in used if each.slot in _PORT_SLOTS), default=None)
    places = [PciAddress(bus="pcie.0", slot=slot, function=function) for slot in _PORT_SLOTS for function in range(8)]
    free = [each for each in places if each not in used and (each.bus, each.slot) not in closed]
    address = next((each for each in free if last is None or each > last), next(iter(free), None))
    index = _index(each.index for each in controllers if each.kind in PORTS)
    if address is None or index is None:
        return ()
    return (
        Controller(id=_name("port", controllers, names), kind=ControllerKind.ROOT_PORT, address=address, index=index),
    )


def _express_bridge(
    controllers: tuple[Controller, ...], *, used: frozenset[Slot], names: frozenset[str]
) -> tuple[Controller, ...]:
    above = [each for each in controllers if each.kind is ControllerKind.PCIE_PCI_BRIDGE]
    free = _first((each.id, slot) for each in above for slot in _Q35_BRIDGE_SLOTS if (each.id, slot) not in used)
    behind = _bridge(Venue.BRIDGES, controllers, free=free, names=names)
    if behind or above:
        return behind
    place = _first(("pcie.0", slot) for slot in _EXPRESS_BRIDGE_SLOTS if ("pcie.0", slot) not in used)
    if place is None:
        return ()
    name = "pcie-bridge" if "pcie-bridge" not in names else _name("pcie-bridge", controllers, names)
    address = PciAddress(bus=place[0], slot=place[1], function=0)
    maker = Controller(id=name, kind=ControllerKind.PCIE_PCI_BRIDGE, address=address, index=1)
    inner = _bridge(Venue.BRIDGES, controllers, free=(name, _Q35_BRIDGE_SLOTS[0]), names=names)
    return (maker, *inner) if inner else ()


def _bridge(
    venue: Venue, controllers: tuple[Controller, ...], *, free: Slot | None, names: frozenset[str]
) -> tuple[Controller, ...]:
    there = [each for each in controllers if each.kind is ControllerKind.PCI_BRIDGE]
    index = _index(each.index for each in there)
    if free is None or index is None or len(there) >= _MOST_BRIDGES[venue]:
        return ()
    address = PciAddress(bus=free[0], slot=free[1], function=0)
    name = _name("bridge", controllers, names)
    return (pci_bridge(name, address, index=index),)


def _first(found: Iterable[Slot]) -> Slot | None:
    return next(iter(found), None)


def _name(prefix: str, controllers: tuple[Controller, ...], names: frozenset[str]) -> str:
    used = names | {each.id for each in controllers}
    return next(name for name in (f"{prefix}-{number}" for number in range(len(used) + 1)) if name not in used)


def _index(used: Iterable[int]) -> int | None:
    """The first chassis number from 1 that no other has, or ``None``."""
    held = frozenset(used)
    return next((number for number in range(1, 256) if number not in held), None)

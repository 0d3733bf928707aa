"""Where the guest's firmware and system see our devices: ``query-pci`` read against the recorded layout.

It must never take silence for absence: before the firmware has numbered a bridge, nothing behind it is known.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import ControllerKind, parents_first, root_bus
from guestlet.pci.layout import Layout

GuestPlace = tuple[int, int, int]  # bus, slot and function as the guest numbers them


@dataclass(frozen=True, slots=True, kw_only=True)
class PciFunction:
    """One entry of ``query-pci``; ``bus`` is the guest's bus number, ``qdev_id`` is empty for the chipset's own.

    ``secondary_bus`` and ``subordinate_bus`` (first and last bus behind it) are ``None`` on what is no bridge and 0 on
    a bridge that no firmware has numbered yet.
    """

    bus: int
    slot: int
    function: int
    vendor: int
    device: int
    device_class: int
    qdev_id: str
    secondary_bus: int | None
    subordinate_bus: int | None
    behind: tuple["PciFunction", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A device as the guest sees it: ``0000:01:00.0``, and vendor and device as four hexadecimal digits."""

    guest_address: str
    vendor: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """The guest's numbering: ``seen`` by qdev id of the layout, controllers included; ``missing`` are not there.

    ``strangers`` are functions with an id that the layout does not know.
    """

    seen: Mapping[str, Seen]
    missing: tuple[str, ...]
    strangers: tuple[str, ...]


def guest_addresses(
    layout: Layout, functions: tuple[PciFunction, ...], *, aliases: Mapping[str, str] = MappingProxyType({})
) -> Numbered | None:
    """How the guest numbered the layout's devices, or ``None`` while the bridges are not all numbered.

    ``aliases``: what a QEMU that guestlet did not start calls our parts, ours to its. A device is found by its qdev
    id, or, where QEMU gives none (the chipset's AHCI, a hand-written ``-device`` without one), by its place. Under
    ``-S``, and again after each reset, bridges have secondary bus 0 and what lies behind them is not listed; while
    SeaBIOS numbers them, those still to come have secondary 255 and subordinate 0 (both measured with QEMU 7.2 and
    10.0).
    """
    listing = _listing(functions, aliases)
    buses = _bus_numbers(layout, listing)
    if buses is None:
        return None
    ours = (
        *((each.id, each.address) for each in layout.controllers),
        *((each.id, each.address) for each in layout.devices),
    )
    found = {name: listing.find(name, address, buses) for name, address in ours}
    known = {aliases.get(name, name) for name in found} | {each.id for each in layout.anonymous}
    places = {_guest_place(each.address, buses) for each in layout.anonymous}
    return Numbered(
        seen={name: _seen(each) for name, each in found.items() if each is not None},
        missing=tuple(name for name, each in found.items() if each is None),
        strangers=tuple(
            sorted(
                name
                for name, each in listing.by_id.items()
                if name not in known and (each.bus, each.slot, each.function) not in places
            )
        ),
    )


def gone_anonymous(
    layout: Layout, functions: tuple[PciFunction, ...], *, aliases: Mapping[str, str] = MappingProxyType({})
) -> tuple[PciAddress, ...]:
    """The addresses of anonymous devices that are there no more; none while the bridges are not all numbered."""
    listing = _listing(functions, aliases)
    buses = _bus_numbers(layout, listing)
    if buses is None:
        return ()
    there = {(each.bus, each.slot, each.function) for each in listing.functions}
    return tuple(each.address for each in layout.anonymous if _guest_place(each.address, buses) not in there)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    """What ``query-pci`` listed, by qdev id, and by guest's place what has none."""

    functions: tuple[PciFunction, ...]
    by_id: Mapping[str, PciFunction]
    nameless: Mapping[GuestPlace, PciFunction]
    aliases: Mapping[str, str]

    def find(self, name: str, address: PciAddress, buses: Mapping[str, int]) -> PciFunction | None:
        """The function of the part with that id of ours."""
        named = self.by_id.get(self.aliases.get(name, name))
        if named is not None:
            return named
        place = _guest_place(address, buses)
        return None if place is None else self.nameless.get(place)


def _listing(functions: tuple[PciFunction, ...], aliases: Mapping[str, str]) -> _Listing:
    listed = tuple(_flat(functions))
    return _Listing(
        functions=listed,
        by_id={each.qdev_id: each for each in listed if each.qdev_id},
        nameless={(each.bus, each.slot, each.function): each for each in listed if not each.qdev_id},
        aliases=aliases,
    )


def _bus_numbers(layout: Layout, listing: _Listing) -> Mapping[str, int] | None:
    """The number of each recorded bus, or ``None`` while they are no tree of ranges as a finished numbering is.

    A bridge forwards what is within secondary..subordinate (PCI-to-PCI Bridge Architecture 1.2, 3.2.5.4): ranges lie
    inside that of the bridge above and apart from those beside. An expander is no bridge: QEMU gives its number.
    """
    spans = {root_bus(layout.family): (0, 255)}
    beside: dict[str, list[tuple[int, int]]] = {}
    for each in parents_first(layout.controllers):
        if each.kind is ControllerKind.EXPANDER:
            spans[each.id] = (each.index, 255)
            continue
        above, around = spans.get(each.address.bus), beside.setdefault(each.address.bus, [])
        bridge = listing.find(each.id, each.address, {bus: first for bus, (first, _) in spans.items()})
        if above is None or bridge is None or not bridge.secondary_bus or not bridge.subordinate_bus:
            return None
        first, last = bridge.secondary_bus, bridge.subordinate_bus
        if not above[0] < first <= last <= above[1]:
            return None
        if any(first <= other[1] and other[0] <= last for other in around):
            return None
        around.append((first, last))
        spans[each.id] = (first, last)
    return {bus: first for bus, (first, _) in spans.items()}


def _flat(functions: tuple[PciFunction, ...]) -> Iterator[PciFunction]:
    for each in functions:
        yield each
        yield from _flat(each.behind)


def _guest_place(address: PciAddress, buses: Mapping[str, int]) -> GuestPlace | None:
    number = buses.get(address.bus)
    return None if number is None else (number, address.slot, address.function)


def _seen(function: PciFunction) -> Seen:
    return Seen(
        guest_address=f"0000:{function.bus:02x}:{function.slot:02x}.{function.function}",
        vendor=f"{function.vendor:04x}",
        device=f"{function.device:04x}",
    )

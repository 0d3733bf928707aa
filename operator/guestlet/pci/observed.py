"""Where the guest's firmware and system see our devices: ``query-pci`` read against the recorded layout.

It must never take silence for absence: before the firmware has numbered a bridge, nothing behind it is known.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import Controller
from guestlet.pci.layout import Layout

_ROOT_BUSES = ("pcie.0", "pci.0")


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


def guest_addresses(layout: Layout, functions: tuple[PciFunction, ...]) -> Numbered | None:
    """How the guest numbered the layout's devices, or ``None`` while the bridges are not all numbered.

    A device is found by its qdev id, or, where QEMU gives none (the chipset's AHCI), by its place. Under ``-S``, and
    again after each reset, bridges have secondary bus 0 and what lies behind them is not listed; while SeaBIOS numbers
    them, those still to come have secondary 255 and subordinate 0 (both measured with QEMU 7.2 and 10.0).
    """
    listed = tuple(_flat(functions))
    by_id = {each.qdev_id: each for each in listed if each.qdev_id}
    buses = _bus_numbers(layout.controllers, by_id)
    if buses is None:
        return None
    by_place = {(each.bus, each.slot, each.function): each for each in listed if not each.qdev_id}
    ours = (
        *((each.id, each.address) for each in layout.controllers),
        *((each.id, each.address) for each in layout.devices),
    )
    found = {name: by_id.get(name) or by_place.get(_guest_place(address, buses)) for name, address in ours}
    return Numbered(
        seen={name: _seen(each) for name, each in found.items() if each is not None},
        missing=tuple(name for name, each in found.items() if each is None),
        strangers=tuple(sorted(name for name in by_id if name not in found)),
    )


def _bus_numbers(controllers: tuple[Controller, ...], by_id: Mapping[str, PciFunction]) -> Mapping[str, int] | None:
    """The number of each recorded bus, or ``None`` while they are no tree of ranges as a finished numbering is.

    A bridge forwards what is within secondary..subordinate (PCI-to-PCI Bridge Architecture 1.2, 3.2.5.4): ranges lie
    inside that of the bridge above and apart from those beside. Controllers come after those that they are behind.
    """
    spans = dict.fromkeys(_ROOT_BUSES, (0, 255))
    beside: dict[str, list[tuple[int, int]]] = {}
    for each in controllers:
        bridge = by_id.get(each.id)
        if bridge is None or not bridge.secondary_bus or not bridge.subordinate_bus:
            return None
        first, last = bridge.secondary_bus, bridge.subordinate_bus
        above, around = spans[each.address.bus], beside.setdefault(each.address.bus, [])
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


def _guest_place(address: PciAddress, buses: Mapping[str, int]) -> tuple[int, int, int]:
    return buses[address.bus], address.slot, address.function


def _seen(function: PciFunction) -> Seen:
    return Seen(
        guest_address=f"0000:{function.bus:02x}:{function.slot:02x}.{function.function}",
        vendor=f"{function.vendor:04x}",
        device=f"{function.device:04x}",
    )

"""The recorded PCI layout of a guest: controllers and devices, placed once, extended, never recomputed.

``place`` takes the previous layout (none at first) and what must have an address, and returns a layout in which
everything that had an address keeps it. It must never move, and never reuse a freed address while another is free.
"""

from collections.abc import Iterable

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import CHIPSET_SATA, Controller, ControllerKind, Family, initial_controllers
from guestlet.pci.facts import Anonymous, DeviceBus, DeviceKind, Layout, Placed, Request
from guestlet.pci.fit import is_chipset_sata, refusal, refuse_reserved, why_unsuitable
from guestlet.pci.growth import next_controller
from guestlet.pci.plug import plug, unplug
from guestlet.pci.venues import (
    Slot,
    Venue,
    can_hotplug,
    device_venue,
    first_free,
    hotplug_ports_free,
    slots,
    slots_of,
    venue_of,
)

__all__ = [
    "Anonymous",
    "Controller",
    "ControllerKind",
    "DeviceBus",
    "DeviceKind",
    "Family",
    "Layout",
    "PciAddress",
    "Placed",
    "Request",
    "can_hotplug",
    "hotplug_ports_free",
    "place",
    "plug",
    "unplug",
]


def place(
    *,
    family: Family,
    device_bus: DeviceBus,
    hotplug_ports: int,
    requests: tuple[Request, ...],
    previous: Layout | None,
) -> Layout:
    """The layout of the next cold start: ``previous`` with what is gone removed and what is new placed.

    Devices keep their recorded order, new ones follow in the order of ``requests``. At least ``hotplug_ports``
    places where disks and NICs go by default (on q35 at least as many root ports) stay free. A device keeps its place
    even where none like it would be put today; whose model became another one is ``unplug``-ged from ``previous``.

    Raises:
        Refused: ``PciAddressTaken`` or ``PciAddressRefused`` for an explicit address that cannot be honoured exactly,
            ``PciExhausted`` when the machine has no room.
    """
    before = _settled(family, device_bus, previous)
    kept = _kept(before, requests)
    held = {each.id for each in kept}
    new = tuple(each for each in requests if each.id not in held)
    for each in new:
        if each.explicit is not None:
            refuse_reserved(family, before.controllers, each, each.explicit)
    fixed = (*kept, *_explicit(new))
    controllers = _extended(
        before, fixed=fixed, automatic=tuple(each for each in new if each.explicit is None), spares=hotplug_ports
    )
    _refuse_impossible(before, controllers, kept=kept, requests=requests)
    vacated = tuple(each.address for each in before.devices if each.id not in held)
    freed = (*before.freed, *vacated)
    devices = (*kept, *_filled(before, controllers, requests=new, fixed=fixed, freed=freed))
    used = {*_addresses(devices, before.anonymous), *(each.address for each in controllers)}
    return Layout(
        family=family,
        device_bus=device_bus,
        controllers=controllers,
        devices=devices,
        anonymous=before.anonymous,
        freed=tuple(each for each in dict.fromkeys(freed) if each not in used),
    )


def _settled(family: Family, device_bus: DeviceBus, previous: Layout | None) -> Layout:
    if previous is None:
        return Layout(
            family=family,
            device_bus=device_bus,
            controllers=initial_controllers(family),
            devices=(),
            anonymous=(),
            freed=(),
        )
    if previous.device_bus != device_bus:
        raise Refused(
            Reason.INVALID_SPEC,
            f"spec.pci.deviceBus {device_bus} cannot follow the recorded {previous.device_bus}: it is fixed at the "
            f"first start; set it back to {previous.device_bus}",
        )
    if previous.family is not family:
        raise Refused(
            Reason.INVALID_SPEC,
            f"spec.machine.type {family} cannot follow the recorded {previous.family}: it is fixed at the first "
            "start; set it back",
        )
    return previous


def _kept(before: Layout, requests: tuple[Request, ...]) -> tuple[Placed, ...]:
    wanted = {each.id: each for each in requests}
    return tuple(
        _placed(wanted[each.id], each.address)
        for each in before.devices
        if each.id in wanted and wanted[each.id].explicit in (None, each.address)
    )


def _explicit(requests: Iterable[Request]) -> tuple[Placed, ...]:
    return tuple(_placed(each, each.explicit) for each in requests if each.explicit is not None)


def _placed(request: Request, address: PciAddress) -> Placed:
    return Placed(id=request.id, name=request.name, kind=request.kind, address=address)


def _addresses(devices: Iterable[Placed], anonymous: Iterable[Anonymous]) -> tuple[PciAddress, ...]:
    return (*(each.address for each in devices), *(each.address for each in anonymous))


def _extended(
    before: Layout, *, fixed: tuple[Placed, ...], automatic: tuple[Request, ...], spares: int
) -> tuple[Controller, ...]:
    """The controllers with as many more as the automatic devices and the spares need."""
    family = before.family
    taken = slots(_addresses(fixed, before.anonymous))
    names = frozenset((*(each.id for each in automatic), *(each.id for each in (*before.devices, *fixed))))
    names |= {each.id for each in before.anonymous}
    controllers = before.controllers
    for venue in (Venue.ROOT_PORTS, Venue.BRIDGES) if family is Family.Q35 else (Venue.PCI,):
        count = sum(
            venue_of(family, before.device_bus, each) is venue
            for each in automatic
            if not is_chipset_sata(family, each)
        )
        if venue in (Venue.ROOT_PORTS, device_venue(family, before.device_bus)):
            count += spares
        while _free(venue, controllers, taken) < count:
            more = next_controller(venue, controllers, taken=taken, names=names)
            if not more:
                raise _exhausted(venue, controllers, count=count, spares=spares)
            controllers = (*controllers, *more)
    return controllers


def _free(venue: Venue, controllers: tuple[Controller, ...], taken: frozenset[Slot]) -> int:
    used = taken | slots(each.address for each in controllers)
    return sum((each.bus, each.slot) not in used for each in slots_of(venue, controllers))


def _exhausted(venue: Venue, controllers: tuple[Controller, ...], *, count: int, spares: int) -> Refused:
    return Refused(
        Reason.PCI_EXHAUSTED,
        f"{count} free {venue} are needed (devices and {spares} of spec.pci.hotplugPorts) beside those in use and the "
        f"machine has at most {_free(venue, controllers, frozenset())}: remove disks or networks or lower "
        "spec.pci.hotplugPorts",
    )


def _filled(
    before: Layout,
    controllers: tuple[Controller, ...],
    *,
    requests: tuple[Request, ...],
    fixed: tuple[Placed, ...],
    freed: tuple[PciAddress, ...],
) -> tuple[Placed, ...]:
    """Every new device at its address, in the order of ``requests``."""
    chosen = {each.id: each.address for each in fixed}
    taken = slots((*_addresses(fixed, before.anonymous), *(each.address for each in controllers)))
    new = []
    for request in requests:
        address = chosen.get(request.id)
        if address is None and is_chipset_sata(before.family, request):
            address = CHIPSET_SATA
        elif address is None:
            venue = venue_of(before.family, before.device_bus, request)
            address = first_free(slots_of(venue, controllers), taken=taken, late=freed)
            if address is None:
                raise _exhausted(venue, controllers, count=1, spares=0)
        taken |= {(address.bus, address.slot)}
        new.append(_placed(request, address))
    return tuple(new)


def _refuse_impossible(
    before: Layout, controllers: tuple[Controller, ...], *, kept: tuple[Placed, ...], requests: tuple[Request, ...]
) -> None:
    """Refuse chosen addresses on unknown or unsuitable buses, those of another device, and functions never seen."""
    holders = {each.address: each.id or "a device that guestlet does not know" for each in before.anonymous}
    holders |= {each.address: each.id for each in kept}
    held = {each.id for each in kept}
    for request in requests:
        if request.explicit is None or request.id in held:
            continue
        why = why_unsuitable(before.family, controllers, request, request.explicit)
        if why is not None:
            raise refusal(Reason.PCI_ADDRESS_REFUSED, request, request.explicit, why)
        holder = holders.setdefault(request.explicit, request.id)
        if holder != request.id:
            raise refusal(Reason.PCI_ADDRESS_TAKEN, request, request.explicit, f"{holder} has it")
    heads = slots(each for each in (*holders, *(maker.address for maker in controllers)) if each.function == 0)
    for request in requests:
        address = next((each for each, device in holders.items() if device == request.id), None)
        if address is not None and (address.bus, address.slot) not in heads and address != CHIPSET_SATA:
            why = f"a guest looks for function {address.function} only in a slot with a device at function 0"
            raise refusal(Reason.PCI_ADDRESS_REFUSED, request, address, why)

"""One device more, or less, in the layout of a running machine: no controller can be added, nothing else changes.

Pure. Whatever ``plug`` gives, the next cold ``place`` leaves where it is.
"""

from dataclasses import replace

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.pci.address import PciAddress
from guestlet.pci.facts import Layout, Placed, Request
from guestlet.pci.fit import is_chipset_sata, refusal, refuse_reserved, why_unsuitable
from guestlet.pci.venues import (
    Venue,
    bus_can_hotplug,
    can_hotplug,
    device_venue,
    first_free,
    occupied,
    slots,
    slots_of,
    venue_of,
)


def plug(layout: Layout, request: Request, *, closed: frozenset[str] = frozenset()) -> Layout:
    """The layout with the device in it: at the address it asks for, else at the first free one of its venue.

    ``closed``: buses for which this QEMU has another name than ours, so that nothing can be plugged into them.

    Addresses used before are given last, the one freed first before the others. A device that is there already keeps
    its place.

    Raises:
        Refused: ``PciExhausted``; ``PciAddressTaken`` or ``PciAddressRefused`` for a chosen address, the latter also
            for one that takes devices only at a cold start (ask ``can_hotplug`` first).
    """
    if any(each.id == request.id for each in layout.devices):
        return layout
    if request.explicit is None:
        address = _automatic(layout, request, closed)
    elif request.explicit.bus in closed:
        why = f"nothing can be plugged into {request.explicit.bus} before the next start"
        raise refusal(Reason.PCI_ADDRESS_REFUSED, request, request.explicit, why)
    else:
        address = _chosen(layout, request, request.explicit)
    placed = Placed(id=request.id, name=request.name, kind=request.kind, address=address)
    return replace(
        layout,
        devices=(*layout.devices, placed),
        freed=tuple(each for each in layout.freed if each != address),
    )


def unplug(layout: Layout, device_id: str) -> Layout:
    """The layout without the device; its address is the last of the freed. One that is not there changes nothing."""
    gone = tuple(each.address for each in layout.devices if each.id == device_id)
    return replace(
        layout,
        devices=tuple(each for each in layout.devices if each.id != device_id),
        freed=tuple(dict.fromkeys((*layout.freed, *gone))),
    )


def _automatic(layout: Layout, request: Request, closed: frozenset[str]) -> PciAddress:
    if is_chipset_sata(layout.family, request):
        raise Refused(Reason.PCI_ADDRESS_REFUSED, "the chipset's AHCI controller is made only at a cold start")
    venue = venue_of(layout.family, layout.device_bus, request)
    open_places = (each for each in slots_of(venue, layout.controllers) if each.bus not in closed)
    places = tuple(each for each in open_places if bus_can_hotplug(layout, each.bus))
    address = first_free(places, taken=slots(occupied(layout)), late=layout.freed)
    if address is not None:
        return address
    if not places:
        said = f"the running machine has no {venue} for it"
    else:
        said = f"all {len(places)} hotplug places are in use ({venue})"
    remedy = "raise spec.pci.hotplugPorts and restart" if _grows(layout, venue) else "restart the guest"
    raise Refused(Reason.PCI_EXHAUSTED, f"{request.id}: {said}: {remedy}, or remove a device")


def _grows(layout: Layout, venue: Venue) -> bool:
    """Whether ``spec.pci.hotplugPorts`` speaks of the venue."""
    return venue is device_venue(layout.family, layout.device_bus) or venue is Venue.ROOT_PORTS


def _chosen(layout: Layout, request: Request, address: PciAddress) -> PciAddress:
    refuse_reserved(layout.family, layout.controllers, request, address)
    why = why_unsuitable(layout.family, layout.controllers, request, address)
    if why is not None:
        raise refusal(Reason.PCI_ADDRESS_REFUSED, request, address, why)
    holders = {each.address: each.id or "a device that guestlet does not know" for each in layout.anonymous}
    holders |= {each.address: each.id for each in layout.devices}
    if address in holders:
        raise refusal(Reason.PCI_ADDRESS_TAKEN, request, address, f"{holders[address]} has it")
    if not can_hotplug(layout, address):
        raise refusal(Reason.PCI_ADDRESS_REFUSED, request, address, _why_cold(layout, address))
    return address


def _why_cold(layout: Layout, address: PciAddress) -> str:
    if address.function != 0:
        return "a running guest looks for a new device at function 0 of a free slot only; stop the guest first"
    if (address.bus, address.slot) in slots(occupied(layout)):
        return "other functions of the slot are in use, and it can change only at a cold start"
    return f"{address.bus} takes devices only at a cold start"

"""The recorded PCI layout of a guest: controllers and devices, placed once, extended, never recomputed.

``place`` takes the previous layout (none at first) and what must have an address, and returns a layout in which
everything that had an address keeps it. It must never move, and never reuse a freed address while another is free.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import (
    CHIPSET_SATA,
    Controller,
    ControllerKind,
    Family,
    Venue,
    family_of,
    initial_controllers,
    next_controller,
    reserved_for,
    root_bus,
    slots_of,
)

__all__ = [
    "Controller",
    "ControllerKind",
    "DeviceBus",
    "DeviceKind",
    "Family",
    "Layout",
    "PciAddress",
    "Placed",
    "Request",
    "hotplug_ports_free",
    "place",
]


class DeviceBus(StrEnum):
    """Where disks and NICs go on q35."""

    ROOT_PORT = "RootPort"
    PCI_BRIDGE = "PCIBridge"


class DeviceKind(StrEnum):
    """What a placed device is to the guest's owner; the qdev driver is the command line's business."""

    DISK = "disk"  # virtio-blk or NVMe: a function of its own
    NIC = "nic"
    SCSI = "scsi"  # virtio-scsi controller
    SATA = "sata"  # AHCI controller (chipset's own on q35: fixed at pcie.0:1f.2)
    RNG = "rng"
    BALLOON = "balloon"
    WATCHDOG = "watchdog"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A device at its place: ``id`` is its qdev id (``disk-root``), ``name`` the user's name for it (``root``)."""

    id: str
    name: str
    kind: DeviceKind
    address: PciAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Everything of ours on the guest's PCI buses; ``freed`` are addresses once used, oldest first, reused last."""

    device_bus: DeviceBus
    controllers: tuple[Controller, ...]
    devices: tuple[Placed, ...]
    freed: tuple[PciAddress, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One device that needs an address; ``conventional``: a plain PCI model (e1000, i6300esb)."""

    id: str
    name: str
    kind: DeviceKind
    conventional: bool
    explicit: PciAddress | None


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
    places where disks and NICs go by default (on q35 at least as many root ports) stay free.

    Raises:
        Refused: ``PciAddressTaken`` or ``PciAddressRefused`` for an explicit address that cannot be honoured exactly,
            ``PciExhausted`` when the machine has no room.
    """
    before = _settled(family, device_bus, previous)
    kept = _kept(family, before, requests)
    held = {each.id for each in kept}
    new = tuple(each for each in requests if each.id not in held)
    fixed = (*kept, *_explicit(new))
    _refuse_reserved(family, before.controllers, requests)
    controllers = _extended(
        family,
        before,
        fixed=fixed,
        automatic=tuple(each for each in new if each.explicit is None),
        spares=hotplug_ports,
    )
    _refuse_impossible(family, controllers, fixed, requests)
    vacated = tuple(each.address for each in before.devices if each.id not in held)
    freed = (*before.freed, *vacated)
    devices = (*kept, *_filled(family, device_bus, controllers, requests=new, fixed=fixed, freed=freed))
    used = {each.address for each in devices}
    return Layout(
        device_bus=device_bus,
        controllers=controllers,
        devices=devices,
        freed=tuple(each for each in dict.fromkeys(freed) if each not in used),
    )


def hotplug_ports_free(layout: Layout) -> tuple[int, int]:
    """How many places a running guest has for hotplugged disks and NICs: (total, free).

    Root ports on q35; with ``PCIBridge`` the slots of its bridges; on pc the slots of pci.0 and of its bridges.
    """
    venue = _device_venue(family_of(layout.controllers), layout.device_bus)
    taken = _slots(each.address for each in layout.devices)
    places = tuple(slots_of(venue, layout.controllers))
    return len(places), sum((each.bus, each.slot) not in taken for each in places)


def _settled(family: Family, device_bus: DeviceBus, previous: Layout | None) -> Layout:
    if previous is None:
        return Layout(device_bus=device_bus, controllers=initial_controllers(family), devices=(), freed=())
    if previous.device_bus != device_bus:
        raise Refused(
            Reason.INVALID_SPEC,
            f"spec.pci.deviceBus {device_bus} cannot follow the recorded {previous.device_bus}: it is fixed at the "
            f"first start; set it back to {previous.device_bus}",
        )
    if family_of(previous.controllers) is not family:
        raise Refused(
            Reason.INVALID_SPEC,
            f"spec.machine.type {family} cannot follow the recorded {family_of(previous.controllers)}: it is fixed "
            "at the first start; set it back",
        )
    return previous


def _kept(family: Family, before: Layout, requests: tuple[Request, ...]) -> tuple[Placed, ...]:
    wanted = {each.id: each for each in requests}
    kept = []
    for each in before.devices:
        request = wanted.get(each.id)
        if request is None or request.explicit not in (None, each.address):
            continue
        if request.explicit is None and _unsuitable(family, before.controllers, request, each.address):
            continue  # its model changed: a conventional device cannot stay below a root port
        kept.append(_placed(request, each.address))
    return tuple(kept)


def _explicit(requests: Iterable[Request]) -> tuple[Placed, ...]:
    return tuple(_placed(each, each.explicit) for each in requests if each.explicit is not None)


def _placed(request: Request, address: PciAddress) -> Placed:
    return Placed(id=request.id, name=request.name, kind=request.kind, address=address)


def _slots(addresses: Iterable[PciAddress]) -> frozenset[tuple[str, int]]:
    return frozenset((each.bus, each.slot) for each in addresses)


def _device_venue(family: Family, device_bus: DeviceBus) -> Venue:
    if family is Family.PC:
        return Venue.PCI
    return Venue.ROOT_PORTS if device_bus is DeviceBus.ROOT_PORT else Venue.BRIDGES


def _is_chipset_sata(family: Family, request: Request) -> bool:
    return family is Family.Q35 and request.kind is DeviceKind.SATA and request.id == "sata"


def _venue(family: Family, device_bus: DeviceBus, request: Request) -> Venue:
    if family is Family.PC:
        return Venue.PCI
    if request.conventional or request.kind is DeviceKind.SATA:
        return Venue.BRIDGES
    if request.kind in (DeviceKind.DISK, DeviceKind.NIC):
        return _device_venue(family, device_bus)
    return Venue.ROOT_PORTS


def _extended(
    family: Family, before: Layout, *, fixed: tuple[Placed, ...], automatic: tuple[Request, ...], spares: int
) -> tuple[Controller, ...]:
    """The controllers with as many more as the automatic devices and the spares need."""
    taken = _slots(each.address for each in fixed)
    controllers = before.controllers
    for venue in (Venue.ROOT_PORTS, Venue.BRIDGES) if family is Family.Q35 else (Venue.PCI,):
        count = sum(
            _venue(family, before.device_bus, each) is venue for each in automatic if not _is_chipset_sata(family, each)
        )
        if venue is not Venue.BRIDGES or before.device_bus is DeviceBus.PCI_BRIDGE:
            count += spares
        while sum((each.bus, each.slot) not in taken for each in slots_of(venue, controllers)) < count:
            more = next_controller(venue, controllers, taken)
            if more is None:
                total = sum(1 for _ in slots_of(venue, controllers))
                raise Refused(
                    Reason.PCI_EXHAUSTED,
                    f"{count} free {venue} are needed (devices and {spares} of spec.pci.hotplugPorts) beside those "
                    f"in use and the machine has at most {total}: remove disks or networks or lower "
                    "spec.pci.hotplugPorts",
                )
            controllers = (*controllers, more)
    return controllers


def _filled(
    family: Family,
    device_bus: DeviceBus,
    controllers: tuple[Controller, ...],
    *,
    requests: tuple[Request, ...],
    fixed: tuple[Placed, ...],
    freed: tuple[PciAddress, ...],
) -> tuple[Placed, ...]:
    """Every new device at its address, in the order of ``requests``."""
    explicit = {each.id: each for each in fixed}
    taken = set(_slots(each.address for each in fixed))
    late = tuple(dict.fromkeys((each.bus, each.slot) for each in freed))
    new = []
    for request in requests:
        if request.id in explicit:
            new.append(explicit[request.id])
            continue
        if _is_chipset_sata(family, request):
            address = CHIPSET_SATA
        else:
            address = _first_free(tuple(slots_of(_venue(family, device_bus, request), controllers)), taken, late)
        taken.add((address.bus, address.slot))
        new.append(_placed(request, address))
    return tuple(new)


def _first_free(
    places: tuple[PciAddress, ...], taken: set[tuple[str, int]], late: tuple[tuple[str, int], ...]
) -> PciAddress:
    free = [each for each in places if (each.bus, each.slot) not in taken]
    fresh = [each for each in free if (each.bus, each.slot) not in late]
    return fresh[0] if fresh else min(free, key=lambda each: late.index((each.bus, each.slot)))


def _refusal(reason: Reason, request: Request, address: PciAddress, why: str) -> Refused:
    match request.kind:
        case DeviceKind.DISK:
            field = f"disks[{request.name}].pciAddress"
        case DeviceKind.NIC:
            field = f"networks[{request.name}].pciAddress"
        case _:
            field = f"{request.name}.pciAddress"
    return Refused(reason, f"{field} {address}: {why}; choose another or leave it out")


def _refuse_reserved(family: Family, controllers: tuple[Controller, ...], requests: tuple[Request, ...]) -> None:
    """Refuse explicit addresses of the chipset and of controllers that exist already."""
    makers = {(each.address.bus, each.address.slot): each.id for each in controllers}
    for request in requests:
        if request.explicit is None:
            continue
        keeper = reserved_for(family, request.explicit)
        if keeper is not None:
            raise _refusal(Reason.PCI_ADDRESS_REFUSED, request, request.explicit, f"the slot belongs to {keeper}")
        maker = makers.get((request.explicit.bus, request.explicit.slot))
        if maker is not None:
            raise _refusal(Reason.PCI_ADDRESS_TAKEN, request, request.explicit, f"the controller {maker} has the slot")


def _refuse_impossible(
    family: Family, controllers: tuple[Controller, ...], fixed: tuple[Placed, ...], requests: tuple[Request, ...]
) -> None:
    """Refuse explicit addresses on unknown or unsuitable buses, those of another device, and functions never seen."""
    wanted = {each.id: each for each in requests}
    explicit = {each.id for each in requests if each.explicit is not None}
    holders = {each.address: each.id for each in fixed if each.id not in explicit}
    for each in fixed:
        if each.id not in explicit:
            continue
        request = wanted[each.id]
        why = _unsuitable(family, controllers, request, each.address)
        if why is not None:
            raise _refusal(Reason.PCI_ADDRESS_REFUSED, request, each.address, why)
        holder = holders.setdefault(each.address, each.id)
        if holder != each.id:
            raise _refusal(Reason.PCI_ADDRESS_TAKEN, request, each.address, f"{holder} has it")
    heads = _slots(each for each in holders if each.function == 0)
    for address, device in holders.items():
        if (address.bus, address.slot) not in heads and address != CHIPSET_SATA:
            why = f"a guest looks for function {address.function} only in a slot with a device at function 0"
            raise _refusal(Reason.PCI_ADDRESS_REFUSED, wanted[device], address, why)


def _unsuitable(
    family: Family, controllers: tuple[Controller, ...], request: Request, address: PciAddress
) -> str | None:
    """Why the device cannot be at the address, or ``None``."""
    if _is_chipset_sata(family, request):
        return None if address == CHIPSET_SATA else "the chipset's AHCI controller cannot be moved"
    if address.bus == root_bus(family):
        return None
    maker = next((each for each in controllers if each.id == address.bus), None)
    if maker is None:
        known = ", ".join((root_bus(family), *(each.id for each in controllers)))
        return f"there is no bus {address.bus} (there are {known}; spec.pci.hotplugPorts adds root ports)"
    match maker.kind:
        case ControllerKind.ROOT_PORT:
            if request.conventional:
                return f"a conventional PCI device cannot be below the root port {maker.id}, only on a bridge"
            return None if address.slot == 0 else f"the root port {maker.id} has slot 00 only"
        case ControllerKind.PCIE_PCI_BRIDGE | ControllerKind.PCI_BRIDGE:
            # Slot 0 is not valid for the bridge's standard hotplug controller (QEMU hw/pci/shpc.c).
            return None if address.slot > 0 else f"slot 00 of the bridge {maker.id} cannot be used"

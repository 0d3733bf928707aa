"""The PCI buses of a running QEMU: which controllers make them, and where every device is. Pure.

Places are taken from the device tree, which is never blind; ``query-pci`` only adds what the tree does not show. It
must never give a device a place that QEMU did not name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.recovery.naming import bus_name
from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import PORTS, Controller, ControllerKind, Family, reserved_for, root_bus
from guestlet.pci.facts import Anonymous
from guestlet.pci.observed import PciFunction
from guestlet.qemu.device_tree import TreeDevice
from guestlet.qemu.found import FoundQemu

UNKNOWN_CLASS = "ffff"  # PCI's own code for "fits in no class"; QEMU tells the class only once the firmware has run
_HOSTS = ("q35-pcihost", "i440FX-pcihost")
_INDEX_MAX = 255
_NO_NUMBER = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class Buses:
    """Controllers, places by index in the tree, and what QEMU calls the controllers that it knows by another name."""

    family: Family
    controllers: tuple[Controller, ...]
    makers: frozenset[int]
    places: Mapping[int, PciAddress]
    functions: Mapping[int, PciFunction]
    strangers: tuple[Anonymous, ...]
    aliases: Mapping[str, str]
    doubts: tuple[str, ...]


def read_buses(found: FoundQemu) -> Buses:
    """The buses.

    Raises:
        Refused: RecordLost, the machine is neither q35 nor pc, or its device tree cannot be read.
    """
    family = family_of_type(str(found.settings.get("/machine type", "")))
    if all(each.driver not in _HOSTS for each in found.tree):
        raise Refused(
            Reason.RECORD_LOST, "its device tree (info qtree) cannot be read: nothing can be said of its parts"
        )
    walk = _Walk(family, found)
    for device in found.tree:
        walk.visit(device)
    functions, strangers, doubts = _functions(found, walk)
    return Buses(
        family=family,
        controllers=walk.in_order(),
        makers=frozenset(walk.makers),
        places=walk.places,
        functions=functions,
        strangers=strangers,
        aliases=walk.aliases,
        doubts=(*walk.doubts, *doubts),
    )


def _kept_memory(device: TreeDevice) -> int | None:
    """``mem-reserve`` of a bridge; one that was given none says the largest number there is."""
    said = device.number("mem-reserve")
    return said if said is not None and 0 < said < _NO_NUMBER else None


def family_of_type(machine_type: str) -> Family:
    """The chipset of a machine type as QOM has it (``pc-q35-7.2-machine``).

    Raises:
        Refused: RecordLost, it is neither q35 nor pc.
    """
    if machine_type.startswith("pc-q35-"):
        return Family.Q35
    if machine_type.startswith("pc-i440fx-"):
        return Family.PC
    raise Refused(
        Reason.RECORD_LOST, f"its machine is {machine_type or 'not known'}, and only q35 and pc are supported"
    )


class _Walk:
    """One walk through the tree, parents first: which device makes which bus, under which name."""

    def __init__(self, family: Family, found: FoundQemu) -> None:
        self._found = found
        self._buses: dict[int, str] = {}  # by index of the maker: the name of the bus as recorded
        self.root = root_bus(family)
        self.controllers: list[Controller] = []
        self.makers: dict[int, Controller] = {}
        self.places: dict[int, PciAddress] = {}
        self.aliases: dict[str, str] = {}
        self.doubts: list[str] = []

    def visit(self, device: TreeDevice) -> None:
        """One device; what it is behind was visited before."""
        if device.driver in _HOSTS:
            self._buses[device.index] = self.root
        elif device.makes is not None and not device.place:
            self._buses[device.index] = device.makes  # the host bridge of an expander, whose bus has the expander's id
        if not device.place or device.above is None or device.above not in self._buses:
            return
        slot, function = device.place.split(".")
        address = PciAddress(bus=self._buses[device.above], slot=int(slot, 16), function=int(function))
        self.places[device.index] = address
        if device.makes is not None or device.driver == ControllerKind.EXPANDER:
            self._make(device, address)

    def in_order(self) -> tuple[Controller, ...]:
        """The controllers, each right before what is behind it, else the oldest first: QEMU prints the newest first."""
        parents = {each.index: each.above for each in self._found.tree}

        def lineage(index: int | None) -> tuple[int, ...]:
            return () if index is None else (*lineage(parents[index]), -index)

        return tuple(self.makers[index] for index in sorted(self.makers, key=lineage))

    def _make(self, device: TreeDevice, address: PciAddress) -> None:
        if device.driver not in set(ControllerKind):
            self.doubts.append(f"{_named(device)} at {address} makes a PCI bus in a way guestlet does not know")
            return
        kind = ControllerKind(device.driver)
        made = device.id or device.makes or ""
        taken = {self.root, *(each.id for each in self.controllers)}
        name = bus_name(made, kind=kind.value, taken=taken)
        if name != device.id:
            self.aliases[name] = device.id or self._found.paths.get(device.index, "")
            self.doubts.append(
                f"the {kind} at {address} has {'the id ' + device.id if device.id else 'no id'}: it is recorded as "
                f"{name}, and nothing can be plugged behind it before the next start"
            )
        self._buses[device.index] = name
        index = self._index(device, kind, name)
        kept = _kept_memory(device) if kind is ControllerKind.PCI_BRIDGE else None
        controller = Controller(id=name, kind=kind, address=address, index=index, memory_bytes=kept)
        self.controllers.append(controller)
        self.makers[device.index] = controller

    def _index(self, device: TreeDevice, kind: ControllerKind, name: str) -> int:
        """The chassis, which must be unique among ports, and among the controllers of any other one kind."""
        alike = PORTS if kind in PORTS else {kind}
        taken = {each.index for each in self.controllers if each.kind in alike}
        said = next((n for n in (device.number(p) for p in ("chassis", "chassis_nr", "bus_nr")) if n is not None), None)
        if said is not None and said not in taken:
            return said
        free = next(number for number in range(1, _INDEX_MAX + 1) if number not in taken)
        if said is not None:
            self.doubts.append(f"{name} has chassis {said}, as another controller has: from the next start on {free}")
        return free


def _functions(
    found: FoundQemu, walk: _Walk
) -> tuple[Mapping[int, PciFunction], tuple[Anonymous, ...], tuple[str, ...]]:
    """``query-pci`` against the tree: by qdev id, then by bus, slot and function, then by vendor and device alone."""
    by_id = {each.id: each.index for each in found.tree if each.id}
    by_place = {str(address): index for index, address in walk.places.items()}
    matched: dict[int, PciFunction] = {}
    strangers: list[Anonymous] = []
    doubts: list[str] = []
    for bus, each in _listed(found.functions, walk, by_id):
        address = PciAddress(bus=bus, slot=each.slot, function=each.function) if bus else None
        index = by_id.get(each.qdev_id) if each.qdev_id else by_place.get(str(address))
        if index is not None:
            matched[index] = each
        elif address is not None:
            strangers.append(
                anonymous(address, each.qdev_id, each, vendor=f"{each.vendor:04x}", device=f"{each.device:04x}")
            )
            doubts.append(f"query-pci has a device at {address} that the device tree does not have")
    return matched, tuple(strangers), tuple(doubts)


def _listed(
    functions: tuple[PciFunction, ...], walk: _Walk, by_id: Mapping[str, int]
) -> Iterator[tuple[str, PciFunction]]:
    """Each function with the recorded name of the bus that it is on; empty when that is not known."""

    def below(bus: str, some: tuple[PciFunction, ...]) -> Iterator[tuple[str, PciFunction]]:
        for each in some:
            yield bus, each
            index = by_id.get(each.qdev_id)
            if index is None:
                here = PciAddress(bus=bus, slot=each.slot, function=each.function) if bus else None
                index = next((number for number, address in walk.places.items() if address == here), None)
            maker = walk.makers.get(index) if index is not None else None
            yield from below(maker.id if maker is not None else "", each.behind)

    root = functions[0].bus if functions else 0
    for each in functions:
        # Root buses of expanders come with the chipset's, and only the number tells them apart: their ids do the rest.
        yield from below(walk.root if each.bus == root else "", (each,))


def anonymous(address: PciAddress, id: str, function: PciFunction | None, *, vendor: str, device: str) -> Anonymous:
    """A device that cannot be named, at its place."""
    code = f"{function.device_class:04x}" if function is not None else UNKNOWN_CLASS
    return Anonymous(address=address, id=id, vendor=vendor, device=device, device_class=code)


def nameless_devices(found: FoundQemu, buses: Buses, named: frozenset[int]) -> tuple[Anonymous, ...]:
    """Everything on the buses that is neither controller nor named, and not the chipset's own."""
    left = []
    for device in found.tree:
        address = buses.places.get(device.index)
        if address is None or device.index in named or device.index in buses.makers:
            continue
        if reserved_for(buses.family, address) is not None and not device.id:
            continue
        function = buses.functions.get(device.index)
        left.append(anonymous(address, device.id, function, vendor=device.vendor, device=device.device))
    return tuple(sorted((*left, *buses.strangers), key=lambda each: each.address))


def _named(device: TreeDevice) -> str:
    return f"{device.driver} {device.id}".strip()

"""What an edited spec asks of the running machine: the spec against the source description, as values. Pure.

Only what can be changed while the guest runs becomes a ``Change``; every other field waits for the next start
(``guest.source``). It must never compare with the live description: after a mirror's pivot a disk lives elsewhere
than its spec says, and that is no wish to change it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from guestlet.api.disk_spec import DiskSpec
from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.api.network_spec import NetworkSpec
from guestlet.api.quantity import parse_quantity


class ChangeKind(StrEnum):
    """What can be done to a running machine, in the order in which it is done.

    What is asked of the guest comes first, because the guest takes its time; then what needs nothing of it; then what
    makes the machine larger, memory and CPUs before the devices that use them.
    """

    REMOVE_DISK = "RemoveDisk"
    REMOVE_NETWORK = "RemoveNetwork"
    SET_LINK = "SetLink"
    MOVE_NETWORK = "MoveNetwork"  # to another bridge
    SHAPE_NETWORK = "ShapeNetwork"
    THROTTLE_DISK = "ThrottleDisk"
    GROW_DISK = "GrowDisk"
    CHANGE_MEDIUM = "ChangeMedium"
    SET_MEMORY = "SetMemory"
    SET_CPUS = "SetCpus"
    ADD_NETWORK = "AddNetwork"
    ADD_DISK = "AddDisk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place in the spec: ``disks[data].size`` is group ``disks``, item ``data``, leaf ``("size",)``."""

    group: str
    item: str | None
    leaf: tuple[str, ...]

    def __str__(self) -> str:
        head = self.group if self.item is None else f"{self.group}[{self.item}]"
        return ".".join((head, *self.leaf))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of the running machine: what, and the place of the spec that asks for it."""

    kind: ChangeKind
    place: Place

    @property
    def name(self) -> str:
        """The user's name of the disk or network."""
        return self.place.item or ""

    @property
    def field(self) -> str:
        """The field as status names it."""
        return str(self.place)


_ORDER = tuple(ChangeKind)


def live_changes(spec: VirtualGuestSpec, source: str) -> tuple[Change, ...]:
    """The changes of the running machine that the spec asks for, in the order in which they are made."""
    if not source:
        return ()
    before = parse_source(source)
    if before == spec:
        return ()
    found = (*_disks(before, spec), *_networks(before, spec), *_board(before, spec))
    return tuple(sorted(found, key=lambda each: _ORDER.index(each.kind)))


@lru_cache(maxsize=256)
def parse_source(source: str) -> VirtualGuestSpec:
    """The source description as a spec; remembered, because it is asked for at every turn and seldom changes."""
    return VirtualGuestSpec.model_validate(json.loads(source))


def disk_place(name: str, *leaf: str) -> Place:
    """A disk of the spec, or a field of it."""
    return Place(group="disks", item=name, leaf=leaf)


def network_place(name: str, *leaf: str) -> Place:
    """A network of the spec, or a field of it."""
    return Place(group="networks", item=name, leaf=leaf)


def _disks(before: VirtualGuestSpec, after: VirtualGuestSpec) -> Iterator[Change]:
    old = {each.name: each for each in before.disks}
    new = {each.name: each for each in after.disks}
    yield from (Change(kind=ChangeKind.REMOVE_DISK, place=disk_place(name)) for name in old if name not in new)
    for name, disk in new.items():
        if name not in old:
            yield Change(kind=ChangeKind.ADD_DISK, place=disk_place(name))
        else:
            yield from _disk(old[name], disk)


def _disk(old: DiskSpec, new: DiskSpec) -> Iterator[Change]:
    if old.source != new.source:
        if old.cdrom and new.cdrom:
            yield Change(kind=ChangeKind.CHANGE_MEDIUM, place=disk_place(new.name, "source"))
    elif new.size is not None and _bytes(old.size) != _bytes(new.size):
        yield Change(kind=ChangeKind.GROW_DISK, place=disk_place(new.name, "size"))
    if old.throttle != new.throttle:
        yield Change(kind=ChangeKind.THROTTLE_DISK, place=disk_place(new.name, "throttle"))


def _bytes(quantity: str | None) -> int | None:
    return parse_quantity(quantity) if quantity is not None else None


def _networks(before: VirtualGuestSpec, after: VirtualGuestSpec) -> Iterator[Change]:
    old = {each.name: each for each in before.networks}
    new = {each.name: each for each in after.networks}
    yield from (Change(kind=ChangeKind.REMOVE_NETWORK, place=network_place(name)) for name in old if name not in new)
    for name, network in new.items():
        if name not in old:
            yield Change(kind=ChangeKind.ADD_NETWORK, place=network_place(name))
        else:
            yield from _network(old[name], network)


def _network(old: NetworkSpec, new: NetworkSpec) -> Iterator[Change]:
    if old.link_up != new.link_up:
        yield Change(kind=ChangeKind.SET_LINK, place=network_place(new.name, "linkUp"))
    if old.bridge and new.bridge and old.bridge.name != new.bridge.name:
        yield Change(kind=ChangeKind.MOVE_NETWORK, place=network_place(new.name, "bridge"))
    if old.bandwidth != new.bandwidth:
        yield Change(kind=ChangeKind.SHAPE_NETWORK, place=network_place(new.name, "bandwidth"))


def _board(before: VirtualGuestSpec, after: VirtualGuestSpec) -> Iterator[Change]:
    others = after.cpu.model_copy(update={"count": before.cpu.count})
    if after.cpu.count != before.cpu.count and others == before.cpu and after.cpu.max_count is not None:
        yield Change(kind=ChangeKind.SET_CPUS, place=Place(group="cpu", item=None, leaf=("count",)))
    grown = parse_quantity(after.memory.size) > parse_quantity(before.memory.size)
    if grown and after.memory.max_size is not None and before.memory.max_size == after.memory.max_size:
        yield Change(kind=ChangeKind.SET_MEMORY, place=Place(group="memory", item=None, leaf=("size",)))


def accepted(source: str, spec: VirtualGuestSpec, place: Place) -> str:
    """The source text in which ``place`` is as in the spec: present, changed or gone."""
    return _with(source, place, _lookup(spec.to_wire(), place))


def withdrawn(source: str, place: Place) -> str:
    """The source text without ``place``: what was accepted, and could not be made."""
    return _with(source, place, None)


def _lookup(document: Mapping[str, object], place: Place) -> object:
    found: object = document.get(place.group)
    if place.item is not None:
        found = next((each for each in _entries(found) if each.get("name") == place.item), None)
    for name in place.leaf:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _entries(value: object) -> list[dict[str, object]]:
    return list(value) if isinstance(value, list) else []


def _with(source: str, place: Place, value: object) -> str:
    document: dict[str, object] = json.loads(source)
    if place.item is None:
        document[place.group] = _replaced(document.get(place.group), place.leaf, value)
    else:
        entries = _entries(document.get(place.group))
        at = next((number for number, each in enumerate(entries) if each.get("name") == place.item), len(entries))
        before = entries[at] if at < len(entries) else None
        after = _replaced(before, place.leaf, value) if place.leaf else value
        entries[at : at + 1] = [after] if isinstance(after, dict) else []
        document[place.group] = entries
    return json.dumps(document, sort_keys=True)


def _replaced(value: object, leaf: tuple[str, ...], by: object) -> object:
    fields = dict(value) if isinstance(value, Mapping) else {}
    if by is None:
        fields.pop(leaf[0], None)
    else:
        fields[leaf[0]] = by
    return fields

"""The PCI buses of a guest as a person reads them: each bus with its ports, devices and free places. Pure text.

It must never decide nor ask: it prints what is recorded, and beside it what the guest made of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import Controller, Family, root_bus
from guestlet.pci.facts import Anonymous, Layout, Placed
from guestlet.pci.observed import Numbered, Seen
from guestlet.pci.venues import Venue, can_hotplug, hotplug_ports_free, occupied, slots, slots_of

_Part = Controller | Placed | Anonymous


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    text: str
    guest_address: str = ""
    ids: str = ""
    note: str = ""


def pci_tree(layout: Layout, numbered: Numbered | None, *, notes: Mapping[str, str]) -> str:
    """The tree, a line each, with the guest's addresses and PCI ids where ``numbered`` has them.

    ``notes``: a few words to stand behind a device, by its qdev id.
    """
    total, free = hotplug_ports_free(layout)
    root = root_bus(layout.family)
    head = f"{root} ({layout.family}; disks and networks: {_by_default(layout)}; {free} of {total} hotplug places free)"
    lines = (_Line(text=head), *_below(root, "", layout=layout, numbered=numbered, notes=notes))
    width = max(len(each.text) for each in lines[1:]) if len(lines) > 1 else 0
    text = [head, *(_written(each, width) for each in lines[1:])]
    if numbered is not None:
        text += [f"in QEMU and not recorded: {name}" for name in numbered.strangers]
    return "".join(f"{each.rstrip()}\n" for each in text)


def _by_default(layout: Layout) -> str:
    return "on PCI slots" if layout.family is Family.PC else f"on {layout.device_bus}"


def _written(line: _Line, width: int) -> str:
    return f"{line.text:<{width}}  {line.guest_address:<12}  {line.ids:<9}  {line.note}"


def _below(
    bus: str, indent: str, *, layout: Layout, numbered: Numbered | None, notes: Mapping[str, str]
) -> Iterator[_Line]:
    parts: list[_Part] = [*layout.controllers, *layout.devices, *layout.anonymous]
    here = sorted((each for each in parts if each.address.bus == bus), key=lambda each: each.address)
    free = _free_text(bus, layout)
    for number, part in enumerate(here, 1):
        last = number == len(here) and free is None
        yield _line(part, f"{indent}{'└─' if last else '├─'} ", numbered=numbered, notes=notes)
        if isinstance(part, Controller):
            deeper = f"{indent}{'   ' if last else '│  '}"
            yield from _below(part.id, deeper, layout=layout, numbered=numbered, notes=notes)
    if free is not None:
        yield _Line(text=f"{indent}└─ {free}")


def _line(part: _Part, lead: str, *, numbered: Numbered | None, notes: Mapping[str, str]) -> _Line:
    text = f"{lead}{part.address.on_bus} {_label(part)}"
    if isinstance(part, Anonymous):
        return _Line(text=text, ids=f"{part.vendor}:{part.device}", note="not known to guestlet; its address is kept")
    seen = numbered.seen.get(part.id) if numbered else None
    gone = "not in QEMU" if numbered is not None and part.id in numbered.missing else ""
    return _Line(
        text=text,
        guest_address=seen.guest_address if seen else "",
        ids=_ids(seen),
        note=", ".join(each for each in (gone, notes.get(part.id, "")) if each),
    )


def _ids(seen: Seen | None) -> str:
    return f"{seen.vendor}:{seen.device}" if seen else ""


def _label(part: _Part) -> str:
    match part:
        case Controller():
            return f"{part.id} ({part.kind})"
        case Placed():
            words = dict.fromkeys((part.kind.value, part.name))
            return " ".join(words) + (f" ({part.id})" if part.id not in words else "")
        case Anonymous():
            return f"class {part.device_class}" + (f" ({part.id})" if part.id else "")


def _free_text(bus: str, layout: Layout) -> str | None:
    """What is free on the bus for devices that nobody chose an address for; ``None`` when nothing ever is."""
    taken = slots(occupied(layout))
    free = [each for each in _places(layout) if each.bus == bus and (bus, each.slot) not in taken]
    if not free:
        return None
    if len(free) == 1:
        return f"{free[0].on_bus} free"
    return f"{len(free)} slots free ({free[0].slot:02x}..{free[-1].slot:02x})"


def _places(layout: Layout) -> Iterator[PciAddress]:
    venues = (Venue.PCI,) if layout.family is Family.PC else (Venue.ROOT_PORTS, Venue.BRIDGES)
    for venue in venues:
        yield from (each for each in slots_of(venue, layout.controllers) if can_hotplug(layout, each))

"""What was asked of a guest now, what it was made from, and what runs, field by field. Pure.

It must never decide what is to be done about a difference; ``guest.plan`` does.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.guest.manifest import OF_LIFE, source_for
from guestlet.guest.record import Record

ABSENT = "-"
_SPARES = "pci.hotplugPorts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field (``disks[root].cache``) in which not all three are the same, as text; ``-`` where it is not said."""

    field: str
    asked: str
    source: str
    live: str


def compared_fields(spec: VirtualGuestSpec, record: Record) -> tuple[Row, ...]:
    """The fields in which spec, source description and live description differ, sorted.

    What the user left open is no difference, nor what is said in other words of the same meaning by the machine. How
    many spare ports were asked for cannot be told from a machine: there the source counts as live.
    """
    asked = dict(_flat("", spec.to_wire()))
    source = dict(_flat("", json.loads(record.source))) if record.source else {}
    live = dict(_flat("", json.loads(source_for(record.machine, spec)))) if record.machine is not None else {}
    if _SPARES in live and _SPARES in source:
        live[_SPARES] = source[_SPARES]
    rows = (
        Row(
            field=field,
            asked=asked.get(field, ABSENT),
            source=source.get(field, ABSENT),
            live=live.get(field, ABSENT),
        )
        for field in sorted({*asked, *source, *live})
    )
    return tuple(each for each in rows if not each.asked == each.source == each.live)


def table(rows: Sequence[Row]) -> str:
    """The rows in columns, as a person reads them."""
    lines = [("FIELD", "ASKED", "SOURCE", "LIVE"), *((each.field, each.asked, each.source, each.live) for each in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        "  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[3]]) for line in lines
    )


def _flat(path: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key in sorted({*value} - OF_LIFE):
            yield from _flat(f"{path}.{key}" if path else str(key), value[key])
        if path and not value:
            yield path, "{}"
    elif isinstance(value, list) and all(isinstance(each, Mapping) and "name" in each for each in value):
        for each in value:
            yield from _flat(f"{path}[{each['name']}]", {key: item for key, item in each.items() if key != "name"})
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)

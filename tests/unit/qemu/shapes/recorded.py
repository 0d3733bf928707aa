"""The replies that ``record.py`` recorded, for tests."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_TEXTS = ("tree", "network", "user network")
MAJORS = ("7", "10")
NAMES = tuple(sorted({path.stem.rpartition("-")[0] for path in _HERE.glob("*.json")}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One QEMU: its command line, the taps behind its descriptors, and what it answered."""

    argv: tuple[str, ...]
    taps: Mapping[int, str]
    replies: Mapping[str, object]


def recorded(name: str, major: str) -> Recorded:
    """What QEMU of that major version answered when started in that shape."""
    document = json.loads((_HERE / f"{name}-{major}.json").read_text())
    replies = {
        key: "".join(f"{line}\n" for line in value) if key in _TEXTS and isinstance(value, list) else value
        for key, value in document["replies"].items()
    }
    taps = {int(number): tap for number, tap in document["taps"].items()}
    return Recorded(argv=tuple(document["argv"]), taps=taps, replies=replies)

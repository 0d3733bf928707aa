"""The source description: the user's spec as it was when QEMU got it, and which fields differ now. Pure."""

import json
from collections.abc import Mapping, Sequence

from guestlet.api.guest_spec import VirtualGuestSpec

# These take effect while the guest runs, or speak of its life rather than of its machine.
_LIVE = frozenset({"nodeName", "runStrategy", "paused", "restart", "terminationGracePeriodSeconds", "onDelete"})


def source_text(spec: VirtualGuestSpec) -> str:
    """The spec as canonical JSON."""
    return json.dumps(spec.to_wire(), sort_keys=True)


def waiting_fields(spec: VirtualGuestSpec, source: str) -> tuple[str, ...]:
    """Fields of the spec that differ from the source description and take effect at the next start, sorted."""
    if not source:
        return ()
    found: list[str] = []
    _compare("", json.loads(source), spec.to_wire(), found)
    return tuple(sorted(found))


def _compare(path: str, old: object, new: object, found: list[str]) -> None:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new} - _LIVE):
            _compare(f"{path}.{key}" if path else key, old.get(key), new.get(key), found)
    elif _named(old) is not None and _named(new) is not None:
        before, after = _named(old) or {}, _named(new) or {}
        for name in sorted({*before, *after}):
            _compare(f"{path}[{name}]", before.get(name), after.get(name), found)
    elif old != new:
        found.append(path)


def _named(value: object) -> dict[str, object] | None:
    """A list of named things as a mapping by name; ``None`` for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    if not all(isinstance(item, Mapping) and "name" in item for item in value):
        return None
    return {str(item["name"]): item for item in value}

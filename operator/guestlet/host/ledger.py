"""What the guests of this node hold together: memory of the running ones, images open for writing. In memory only.

The loop fills it from the records (all of them, before the first guest is planned) and at each change; it must never
be the only place where a fact is kept.
"""

from dataclasses import dataclass

ImageKey = tuple[str, str]  # pool, image


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One guest's part. ``label``: ``namespace/name``; ``memory_bytes`` and ``writes`` (images it may write) while it
    runs; ``names``: images its record names, whether it runs or not.
    """

    label: str
    memory_bytes: int
    writes: frozenset[ImageKey]
    names: frozenset[ImageKey]


class Ledger:
    """Holdings of all guests of the node."""

    def __init__(self) -> None:
        self._holdings: dict[str, Holding] = {}

    def set(self, guest: str, holding: Holding | None) -> None:
        """Replaces what a guest holds; ``None``: nothing any more."""
        if holding is None:
            self._holdings.pop(guest, None)
        else:
            self._holdings[guest] = holding

    def committed_memory_bytes(self, *, excluding: str) -> int:
        """Memory of all guests but one."""
        return sum(each.memory_bytes for guest, each in self._holdings.items() if guest != excluding)

    def writer(self, image: ImageKey, *, excluding: str) -> str | None:
        """Label of another guest that may write the image."""
        labels = sorted(
            each.label for guest, each in self._holdings.items() if guest != excluding and image in each.writes
        )
        return labels[0] if labels else None

    def namer(self, image: ImageKey, *, excluding: str) -> str | None:
        """Label of another guest whose record names the image."""
        labels = sorted(
            each.label for guest, each in self._holdings.items() if guest != excluding and image in each.names
        )
        return labels[0] if labels else None

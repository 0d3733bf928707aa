"""How much memory of which node is spoken for: guests seen there, and bindings just made but not seen yet.

It must never be the reason to bind: it only weighs nodes against each other, and every resync replaces it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from guestlet.kube.facts import GuestSighting

Name = tuple[str, str]


class Ledger:
    """Committed memory by node, in bytes."""

    def __init__(self) -> None:
        self._seen: dict[Name, tuple[str, int]] = {}
        self._assumed: dict[Name, tuple[str, int]] = {}

    def saw(self, sighting: GuestSighting) -> None:
        """Takes note of a guest where it is now."""
        name = (sighting.namespace, sighting.name)
        if sighting.node is None:
            self._seen.pop(name, None)
            return
        self._assumed.pop(name, None)
        self._seen[name] = (sighting.node, 0 if sighting.halted else sighting.memory_bytes)

    def assume(self, name: Name, *, node: str, memory_bytes: int) -> None:
        """Counts a binding that is being made."""
        self._assumed[name] = (node, memory_bytes)

    def drop(self, name: Name) -> None:
        """Forgets a guest that is gone, or a binding that failed."""
        self._seen.pop(name, None)
        self._assumed.pop(name, None)

    def replace(self, sightings: Iterable[GuestSighting]) -> None:
        """Starts anew from a list of all guests; bindings being made stay counted."""
        self._seen.clear()
        for sighting in sightings:
            self.saw(sighting)

    def committed_bytes(self) -> Mapping[str, int]:
        """Bytes by node."""
        total: Counter[str] = Counter()
        for node, memory_bytes in {**self._seen, **self._assumed}.values():
            total[node] += memory_bytes
        return total

    def on(self, node: str) -> tuple[Name, ...]:
        """The guests seen on ``node``, sorted."""
        return tuple(sorted(name for name, (where, _) in self._seen.items() if where == node))

    @property
    def nodes(self) -> frozenset[str]:
        """Every node that has a guest."""
        return frozenset(node for node, _ in self._seen.values())

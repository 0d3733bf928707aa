"""The controller's turns and its sweep: facts about nodes are kept fresh here, decisions are made in ``plan``.

It must never act on facts older than one sweep, nor bind on the word of an event.
"""

from collections.abc import Callable
from dataclasses import dataclass

from guestlet.api.guest import VirtualGuest
from guestlet.errors import GuestletError, NotNow
from guestlet.kube.facts import ClusterNode, GuestSighting
from guestlet.placement.act import perform
from guestlet.placement.ledger import Ledger, Name
from guestlet.placement.liveness import NEVER_LOOKED, Liveness, liveness, look
from guestlet.placement.plan import (
    LOOK_AGAIN_S,
    Bind,
    Decision,
    MarkLost,
    NodeView,
    Patience,
    Unplaceable,
    Wait,
    needed_memory_bytes,
    plan_placement,
)
from guestlet.placement.ports import Cluster

SWEEP_EVERY_S = 5.0
_NODES_AGE_S = 15.0
_FRESH_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The controller's settings, in seconds."""

    resync_s: float = 300.0
    stale_after_s: float = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Monotonic seconds for deciding, seconds since the epoch for Leases' first sight, RFC 3339 for writing."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]
    text: Callable[[], str]


class Controller:
    """Places guests and watches over their nodes. ``wake`` is called with each guest that wants a turn."""

    def __init__(self, cluster: Cluster, *, clocks: Clocks, rules: Rules, wake: Callable[[Name], None]) -> None:
        self._cluster = cluster
        self._clocks = clocks
        self._rules = rules
        self._wake = wake
        self._ledger = Ledger()
        self._leases = NEVER_LOOKED
        self._nodes: dict[str, ClusterNode] = {}
        self._nodes_at = float("-inf")
        self._unplaced_since: dict[Name, float] = {}
        self._waiting: set[Name] = set()
        self._states: dict[str, tuple[Liveness, bool]] = {}

    def saw(self, sighting: GuestSighting, *, gone: bool) -> None:
        """Takes note of an event; a guest that has no node, is deleted or sits on a silent node gets a turn."""
        name = (sighting.namespace, sighting.name)
        if gone:
            self._forget(name)
            return
        self._ledger.saw(sighting)
        if sighting.node is None or sighting.deleting or self._liveness(sighting.node) is not Liveness.LIVE:
            self._wake(name)

    async def turn(self, name: Name) -> float | None:
        """One guest: read it live, decide, act. The seconds until it wants to be looked at again.

        Raises:
            NotNow: the API server does not answer, or somebody wrote first.
        """
        guest = await self._cluster.read(*name)
        if guest is None:
            self._forget(name)
            return None
        decision = self._decide(name, guest)
        if isinstance(decision, Unplaceable | MarkLost) and await self._freshen():
            decision = self._decide(name, guest)
        await self._perform(name, guest, decision)
        return self._next_look(name, decision)

    async def sweep(self) -> None:
        """A look at Leases and Nodes; wakes the guests of nodes whose state changed, and those that wait for one.

        Raises:
            NotNow: the API server does not answer.
        """
        await self._look()
        states = {node: self._state(node) for node in sorted({*self._nodes, *self._ledger.nodes})}
        before, self._states = self._states, states
        changed = {node for node, state in states.items() if before.get(node) != state}
        for node in sorted(changed):
            if states[node] != (Liveness.LIVE, True):
                for name in self._ledger.on(node):
                    self._wake(name)
        if changed:
            for name in sorted(self._waiting):
                self._wake(name)

    async def resync(self) -> None:
        """A list of all guests: what events missed is seen now.

        Raises:
            NotNow: the API server does not answer.
        """
        sightings = await self._cluster.sightings()
        self._ledger.replace(sightings)
        present = {(sighting.namespace, sighting.name) for sighting in sightings}
        for name in (self._unplaced_since.keys() | self._waiting) - present:
            self._forget(name)
        for sighting in sightings:
            self.saw(sighting, gone=False)

    def _decide(self, name: Name, guest: VirtualGuest) -> Decision:
        now = self._clocks.monotonic()
        if guest.status.node_name is None:
            since = self._unplaced_since.setdefault(name, now)
        else:
            since = now
            self._unplaced_since.pop(name, None)
        patience = Patience(unplaced_since=since, claim_s=2 * self._rules.resync_s)
        return plan_placement(guest, self._views(guest.status.node_name), patience=patience, now=now)

    async def _perform(self, name: Name, guest: VirtualGuest, decision: Decision) -> None:
        if isinstance(decision, Bind):
            # Counted before the first await: the forty turns beside this one must see it.
            self._ledger.assume(name, node=decision.node, memory_bytes=needed_memory_bytes(guest))
        try:
            await perform(decision, guest, self._cluster, now=self._clocks.text)
        except GuestletError:
            if isinstance(decision, Bind):
                self._ledger.drop(name)
            raise

    def _next_look(self, name: Name, decision: Decision) -> float | None:
        if isinstance(decision, Unplaceable):
            self._waiting.add(name)
            return LOOK_AGAIN_S * 5
        self._waiting.discard(name)
        return decision.seconds if isinstance(decision, Wait) else None

    async def _freshen(self) -> bool:
        """Looks again when the facts are older than a second: no bad news is told on old facts."""
        now = self._clocks.monotonic()
        if now - self._leases.looked_at < _FRESH_S:
            return False
        self._nodes_at = float("-inf")
        await self._look()
        return True

    async def _look(self) -> None:
        now = self._clocks.monotonic()
        if now - self._nodes_at >= _NODES_AGE_S:
            self._nodes = {node.name: node for node in await self._cluster.nodes()}
            self._nodes_at = now
        leases = await self._cluster.agent_leases()
        self._leases = look(
            self._leases,
            leases,
            expected=self._nodes.keys() | self._ledger.nodes,
            now=self._clocks.monotonic(),
            wall=self._clocks.wall(),
            stale_after_s=self._rules.stale_after_s,
        )

    def _views(self, own: str | None) -> tuple[NodeView, ...]:
        if self._leases is NEVER_LOOKED:
            raise NotNow("WaitingForNode", "the controller has not seen the nodes yet")
        committed = self._ledger.committed_bytes()
        names = sorted(self._nodes.keys() | ({own} if own is not None else set()))
        return tuple(self._node_view(name, committed.get(name, 0)) for name in names)

    def _node_view(self, name: str, committed_bytes: int) -> NodeView:
        node = self._nodes.get(name)
        if node is None:
            return NodeView(name=name, exists=False, agent=self._liveness(name))
        memory_bytes = node.allocatable_memory_bytes
        return NodeView(
            name=name,
            exists=True,
            agent=self._liveness(name),
            free_memory_bytes=None if memory_bytes is None else memory_bytes - committed_bytes,
            unschedulable=node.unschedulable,
            out_of_service=node.out_of_service,
        )

    def _state(self, node: str) -> tuple[Liveness, bool]:
        known = self._nodes.get(node)
        return self._liveness(node), known is not None and not known.out_of_service

    def _liveness(self, node: str) -> Liveness:
        return liveness(self._leases, node, now=self._clocks.monotonic(), stale_after_s=self._rules.stale_after_s)

    def _forget(self, name: Name) -> None:
        self._ledger.drop(name)
        self._unplaced_since.pop(name, None)
        self._waiting.discard(name)

"""Where a guest goes, and what is said of one whose node is gone. Pure: guest, nodes, now → one decision.

It must never take a guest from a node: a silent agent's QEMU may run. It says so, and what a person can do.
"""

from dataclasses import dataclass
from typing import Final

from guestlet.api.guest import VirtualGuest
from guestlet.api.guest_spec import RunStrategy
from guestlet.api.quantity import format_bytes, parse_quantity
from guestlet.api.reasons import Reason
from guestlet.kube.facts import FINALIZER, OUT_OF_SERVICE
from guestlet.placement.liveness import Liveness

LOOK_AGAIN_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node as placement sees it. ``free_memory_bytes`` is ``None`` when the Node does not say what it has."""

    name: str
    exists: bool
    agent: Liveness
    free_memory_bytes: int | None = None
    unschedulable: bool = False
    out_of_service: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """Give the guest to ``node``; seen in status.nodeName."""

    node: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaceable:
    """No node can have it now; ``stalled``: not before a person acts. Seen in the conditions."""

    reason: Reason
    message: str
    stalled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkLost:
    """Say that nobody knows whether the guest runs; its node keeps it. Seen in Ready=Unknown."""

    node: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFinalizer:
    """Let a deleted guest go whose agent never can; ``node`` is read live once more first. Seen by its absence."""

    node: str | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing can be said yet; look again after ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """It is somebody else's turn."""


Decision = Bind | Unplaceable | MarkLost | ReleaseFinalizer | Wait | Leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a guest that had a status but lost its node is left to the agents that may have its record.

    ``unplaced_since`` and the ``now`` of the plan are of one clock; ``claim_s`` is two resync periods.
    """

    unplaced_since: float
    claim_s: float


def plan_placement(guest: VirtualGuest, nodes: tuple[NodeView, ...], *, patience: Patience, now: float) -> Decision:
    """What the controller does about ``guest`` now; ``nodes`` holds every Node, and the guest's own even if gone."""
    if guest.metadata.deletion_timestamp is not None:
        return _plan_deletion(guest, nodes, patience, now)
    if guest.status.node_name is None:
        return plan_binding(guest, nodes, patience=patience, now=now)
    return _plan_watch(guest.status.node_name, nodes)


def plan_binding(guest: VirtualGuest, nodes: tuple[NodeView, ...], *, patience: Patience, now: float) -> Decision:
    """The node for a guest that has none.

    One that an agent has written about before is left to that agent's claim: its QEMU may run.
    """
    if (wait := _wait_for_claim(guest, patience, now)) is not None:
        return wait
    chosen = (
        _named_node(guest.spec.node_name, nodes)
        if guest.spec.node_name is not None
        else choose_node(needed_memory_bytes(guest), nodes)
    )
    if isinstance(chosen, Unplaceable):
        return chosen
    return Bind(node=chosen.name, epoch=(guest.status.placement_epoch or 0) + 1)


def choose_node(memory_bytes: int, nodes: tuple[NodeView, ...]) -> NodeView | Unplaceable:
    """The live node with the most free memory: the stand-in for kube-scheduler, and the one function to replace."""
    live = [node for node in nodes if node.exists and node.agent is Liveness.LIVE and not _closed(node)]
    if not live:
        return Unplaceable(
            reason=Reason.WAITING_FOR_NODE,
            message="no node has a live agent that takes guests: start one (guestlet agent), or uncordon its node",
            stalled=False,
        )
    fitting = [node for node in live if node.free_memory_bytes is None or node.free_memory_bytes >= memory_bytes]
    if not fitting:
        most = max(node.free_memory_bytes or 0 for node in live)
        return Unplaceable(
            reason=Reason.INSUFFICIENT_MEMORY,
            message=f"memory.size is {format_bytes(memory_bytes)}, but the live node with the most free memory has "
            f"{format_bytes(max(most, 0) // 2**20 * 2**20)}: make it smaller, or free memory on a node",
            stalled=True,
        )
    return min(fitting, key=lambda node: (-(node.free_memory_bytes or 0), node.name))


def needed_memory_bytes(guest: VirtualGuest) -> int:
    """What the guest takes from its node: nothing while it is meant to be off."""
    return 0 if guest.spec.run_strategy is RunStrategy.HALTED else parse_quantity(guest.spec.memory.size)


def _named_node(name: str, nodes: tuple[NodeView, ...]) -> NodeView | Unplaceable:
    node = _view(name, nodes)
    if not node.exists:
        return Unplaceable(
            reason=Reason.NO_SUCH_NODE,
            message=f"spec.nodeName: there is no Node {name!r}; it cannot be changed, so create that Node, or delete "
            "the guest and create it with the name of another",
            stalled=True,
        )
    if node.agent is Liveness.LIVE:
        return node
    return Unplaceable(
        reason=Reason.NO_LIVE_AGENT,
        message=f"spec.nodeName: Node {name!r} has no live agent; start one there (guestlet agent)",
        stalled=False,
    )


def _plan_watch(name: str, nodes: tuple[NodeView, ...]) -> Decision:
    match _view(name, nodes).agent:
        case Liveness.LIVE:
            return Leave()
        case Liveness.DOUBTFUL:
            return Wait(seconds=LOOK_AGAIN_S)
        case Liveness.SILENT:
            return MarkLost(
                node=name,
                message=f"the agent of node {name} is silent, so whether the guest runs is not known; it stays placed "
                "there. Bring the agent or the node back",
            )


def _plan_deletion(guest: VirtualGuest, nodes: tuple[NodeView, ...], patience: Patience, now: float) -> Decision:
    if FINALIZER not in guest.metadata.finalizers:
        return Leave()
    name = guest.status.node_name
    if name is None:
        wait = _wait_for_claim(guest, patience, now)
        return wait or ReleaseFinalizer(node=None, why="it was deleted and no node has it")
    node = _view(name, nodes)
    match node.agent:
        case Liveness.LIVE:
            return Leave()
        case Liveness.DOUBTFUL:
            return Wait(seconds=LOOK_AGAIN_S)
        case Liveness.SILENT if not node.exists:
            return ReleaseFinalizer(node=name, why=f"it was deleted and the Node {name} is gone")
        case Liveness.SILENT if node.out_of_service:
            return ReleaseFinalizer(node=name, why=f"it was deleted and the Node {name} is tainted {OUT_OF_SERVICE}")
        case Liveness.SILENT:
            return MarkLost(
                node=name,
                message=f"the guest is deleted but the agent of node {name} is silent, so its QEMU may still run. "
                f"Bring the agent back; or, once that machine is certainly off, delete the Node {name} or taint it "
                f"{OUT_OF_SERVICE}",
            )


def _wait_for_claim(guest: VirtualGuest, patience: Patience, now: float) -> Wait | None:
    left_s = patience.unplaced_since + patience.claim_s - now
    return Wait(seconds=left_s) if guest.status.observed_generation >= 0 and left_s > 0 else None


def _view(name: str, nodes: tuple[NodeView, ...]) -> NodeView:
    absent = NodeView(name=name, exists=False, agent=Liveness.DOUBTFUL)
    return next((node for node in nodes if node.name == name), absent)


def _closed(node: NodeView) -> bool:
    return node.unschedulable or node.out_of_service

"""Carries out one placement decision at the API server. No decision is made here.

The one thing read again is the Node before a finalizer goes: a Node that came back must find its guest.
"""

from collections.abc import Callable
from typing import assert_never

from guestlet.api.guest import VirtualGuest
from guestlet.api.guest_status import Phase
from guestlet.api.reasons import Reason
from guestlet.errors import NotNow
from guestlet.placement.plan import Bind, Decision, Leave, MarkLost, ReleaseFinalizer, Unplaceable, Wait
from guestlet.placement.ports import Cluster
from guestlet.placement.status import lost_conditions, unplaceable_conditions


async def perform(decision: Decision, guest: VirtualGuest, cluster: Cluster, *, now: Callable[[], str]) -> None:
    """Does what ``decision`` says about ``guest``; ``now`` gives the time as RFC 3339.

    Raises:
        NotNow: somebody wrote first, the Node is back, or the API server does not answer.
    """
    match decision:
        case Bind():
            await cluster.bind(guest, node=decision.node, epoch=decision.epoch)
            cluster.event(guest, reason="Placed", message=f"placed on node {decision.node}", warning=False)
        case Unplaceable():
            await _say_unplaceable(decision, guest, cluster, now())
        case MarkLost():
            await _say_lost(decision, guest, cluster, now())
        case ReleaseFinalizer():
            await _release(decision, guest, cluster)
        case Wait() | Leave():
            pass
        case _:
            assert_never(decision)


async def _say_unplaceable(decision: Unplaceable, guest: VirtualGuest, cluster: Cluster, now: str) -> None:
    conditions = unplaceable_conditions(guest, decision, now)
    if conditions:
        await cluster.report(guest, conditions=conditions, phase=Phase.PENDING)
        cluster.event(guest, reason=decision.reason, message=decision.message, warning=True)


async def _say_lost(decision: MarkLost, guest: VirtualGuest, cluster: Cluster, now: str) -> None:
    conditions = lost_conditions(guest, decision, now)
    if conditions:
        await cluster.report(guest, conditions=conditions, phase=Phase.UNKNOWN)
        cluster.event(guest, reason=Reason.NODE_LOST, message=decision.message, warning=True)


async def _release(decision: ReleaseFinalizer, guest: VirtualGuest, cluster: Cluster) -> None:
    if decision.node is not None:
        node = await cluster.node(decision.node)
        if node is not None and not node.out_of_service:
            raise NotNow(Reason.NODE_LOST, f"the Node {decision.node} is back: its agent lets the guest go")
    await cluster.release(guest)
    cluster.event(
        guest, reason="Released", message=f"the agent's finalizer was taken off: {decision.why}", warning=True
    )

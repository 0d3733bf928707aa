"""Whether a node's agent is alive, judged by watching its Lease change. Pure; both clocks are arguments.

It must never trust another machine's clock: only at first sight is the holder's time looked at, and an old one is then
doubted for a while before it is believed. After a gap in watching (the API server was away) everything is first sight
again, because the agents could not renew either.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from guestlet.kube.facts import AGENT_LEASE_PREFIX, LeaseFacts

_DOUBT_S = 25.0  # two renewals and a half
_GAP_S = 15.0


class Liveness(StrEnum):
    """What is known of an agent."""

    LIVE = "Live"  # its Lease was renewed lately
    DOUBTFUL = "Doubtful"  # seen too briefly to tell; Live or Silent follows within 25 s
    SILENT = "Silent"  # its Lease was not renewed for too long, or is not there


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSighting:
    """What was seen of one agent's Lease; times are of our monotonic clock."""

    holder: str
    renewed_at: float
    changed: float
    first_seen: float
    doubtful: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseWatch:
    """Everything seen so far: sightings by node name, and when we last looked."""

    by_node: Mapping[str, LeaseSighting]
    looked_at: float


NEVER_LOOKED: Final = LeaseWatch(by_node=MappingProxyType({}), looked_at=float("-inf"))


def look(
    before: LeaseWatch,
    leases: Iterable[LeaseFacts],
    *,
    expected: Iterable[str],
    now: float,
    wall: float,
    stale_after_s: float,
) -> LeaseWatch:
    """The watch after a look at all ``leases``. ``expected``: nodes that should have one. ``now`` is monotonic."""
    known = before.by_node if now - before.looked_at <= _GAP_S else {}
    found = {
        lease.name.removeprefix(AGENT_LEASE_PREFIX): lease
        for lease in leases
        if lease.name.startswith(AGENT_LEASE_PREFIX)
    }
    absent = {node: LeaseFacts(name="", holder="", renewed_at=0.0) for node in expected if node not in found}
    by_node = {
        node: _seen(known.get(node), lease, now=now, wall_age_s=wall - lease.renewed_at, stale_after_s=stale_after_s)
        for node, lease in sorted({**absent, **found}.items())
    }
    return LeaseWatch(by_node=MappingProxyType(by_node), looked_at=now)


def liveness(watch: LeaseWatch, node: str, *, now: float, stale_after_s: float) -> Liveness:
    """What is known of the agent of ``node`` at monotonic ``now``."""
    seen = watch.by_node.get(node)
    if seen is None:
        return Liveness.DOUBTFUL
    if seen.doubtful:
        return Liveness.SILENT if now - seen.first_seen >= _DOUBT_S else Liveness.DOUBTFUL
    return Liveness.LIVE if now - seen.changed <= stale_after_s else Liveness.SILENT


def _seen(
    before: LeaseSighting | None, lease: LeaseFacts, *, now: float, wall_age_s: float, stale_after_s: float
) -> LeaseSighting:
    if before is None:
        fresh = bool(lease.holder) and wall_age_s <= stale_after_s
        return LeaseSighting(
            holder=lease.holder,
            renewed_at=lease.renewed_at,
            changed=now - max(wall_age_s, 0.0) if fresh else now,
            first_seen=now,
            doubtful=not fresh,
        )
    if (lease.holder, lease.renewed_at) == (before.holder, before.renewed_at):
        return before
    alive = bool(lease.holder)
    return replace(
        before,
        holder=lease.holder,
        renewed_at=lease.renewed_at,
        changed=now,
        first_seen=before.first_seen if alive or before.doubtful else now,
        doubtful=not alive,
    )

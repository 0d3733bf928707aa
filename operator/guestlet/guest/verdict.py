"""A plan and what it says about the guest, as values. Pure."""

from dataclasses import dataclass

from guestlet.api.guest_status import Phase
from guestlet.api.reasons import Reason
from guestlet.guest.actions import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What is to be said of one field of the spec."""

    field: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeReport:
    """How the changes of a running machine stand: ``working`` on, ``stuck`` until a person acts, and ``waiting`` for
    the next start. A guest with any of them is as ready as it was.
    """

    working: tuple[Statement, ...]
    stuck: tuple[Statement, ...]
    waiting: tuple[Statement, ...]


NO_CHANGES = ChangeReport(working=(), stuck=(), waiting=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the guest stands when the plan's actions are done. ``stalled``: a person must act (see ``message``)."""

    phase: Phase
    reason: Reason
    message: str
    stalled: bool
    changes: ChangeReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``actions`` in order, the turn stops at the first that fails; ``housekeeping`` comes after publishing.

    ``wait_s``: when to look again if nothing wakes us. ``change``: the field whose change the actions make; when one
    of them fails, the failure is noted for that field and the plan is made anew, so that no change blocks another.
    """

    actions: tuple[Action, ...]
    housekeeping: tuple[Action, ...]
    wait_s: float | None
    verdict: Verdict
    change: str | None


def plan_of(
    verdict: Verdict,
    *actions: Action,
    wait_s: float | None = None,
    housekeeping: tuple[Action, ...] = (),
    change: str | None = None,
) -> Plan:
    """A plan of these actions."""
    return Plan(actions=actions, housekeeping=housekeeping, wait_s=wait_s, verdict=verdict, change=change)


def verdict(phase: Phase, reason: Reason, message: str, *, stalled: bool = False) -> Verdict:
    """A verdict of these words."""
    return Verdict(phase=phase, reason=reason, message=message, stalled=stalled, changes=NO_CHANGES)

"""A plan and what it says about the guest, as values. Pure."""

from dataclasses import dataclass

from guestlet.api.guest_status import Phase
from guestlet.api.reasons import Reason
from guestlet.guest.actions import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the guest stands when the plan's actions are done. ``stalled``: a person must act (see ``message``)."""

    phase: Phase
    reason: Reason
    message: str
    stalled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``actions`` in order, the turn stops at the first that fails; ``housekeeping`` comes after publishing.

    ``wait_s``: when to look again if nothing wakes us.
    """

    actions: tuple[Action, ...]
    housekeeping: tuple[Action, ...]
    wait_s: float | None
    verdict: Verdict


def plan_of(
    verdict: Verdict,
    *actions: Action,
    wait_s: float | None = None,
    housekeeping: tuple[Action, ...] = (),
) -> Plan:
    """A plan of these actions."""
    return Plan(actions=actions, housekeeping=housekeeping, wait_s=wait_s, verdict=verdict)


def verdict(phase: Phase, reason: Reason, message: str, *, stalled: bool = False) -> Verdict:
    """A verdict of these words."""
    return Verdict(phase=phase, reason=reason, message=message, stalled=stalled)

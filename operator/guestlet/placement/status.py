"""What the controller writes into a guest's conditions. Pure: guest and decision → the conditions that are news.

It must never touch another condition than the ones it gives, and gives none when they say the same already.
"""

from typing import Literal

from guestlet.api.base import Condition
from guestlet.api.guest import VirtualGuest
from guestlet.api.reasons import ConditionType, Reason
from guestlet.placement.plan import MarkLost, Unplaceable

State = Literal["True", "False", "Unknown"]


def unplaceable_conditions(guest: VirtualGuest, decision: Unplaceable, now: str) -> tuple[Condition, ...]:
    """Ready=False, and Stalled or Reconciling as kstatus defines them; ``now`` is RFC 3339."""
    states: tuple[tuple[ConditionType, State], ...] = (
        (ConditionType.READY, "False"),
        (ConditionType.RECONCILING, "False" if decision.stalled else "True"),
        (ConditionType.STALLED, "True" if decision.stalled else "False"),
    )
    return _news(guest, states, reason=decision.reason, message=decision.message, now=now)


def lost_conditions(guest: VirtualGuest, decision: MarkLost, now: str) -> tuple[Condition, ...]:
    """Ready=Unknown with NodeLost; ``now`` is RFC 3339."""
    states: tuple[tuple[ConditionType, State], ...] = ((ConditionType.READY, "Unknown"),)
    return _news(guest, states, reason=Reason.NODE_LOST, message=decision.message, now=now)


def _news(
    guest: VirtualGuest, states: tuple[tuple[ConditionType, State], ...], *, reason: Reason, message: str, now: str
) -> tuple[Condition, ...]:
    """The conditions to write: all of them, or none when every one says the same already."""
    live = {condition.type: condition for condition in guest.status.conditions}
    wanted = []
    for kind, state in states:
        before = live.get(kind)
        wanted.append(
            Condition(
                type=kind,
                status=state,
                reason=reason,
                message=message,
                last_transition_time=before.last_transition_time if before and before.status == state else now,
                observed_generation=guest.metadata.generation,
            )
        )
    return tuple(wanted) if any(live.get(condition.type) != condition for condition in wanted) else ()

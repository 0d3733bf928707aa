"""What the errors of actions say about a guest, and which transitions are worth an Event. Pure."""

from dataclasses import dataclass

from guestlet.api.base import Condition
from guestlet.api.guest_status import Phase, VirtualGuestStatus
from guestlet.api.reasons import ConditionType, Reason
from guestlet.errors import Broken, GuestletError, NotNow, Refused, Unknown
from guestlet.guest.verdict import Verdict, verdict


def verdict_of(error: GuestletError, *, running: bool) -> Verdict:
    """How the guest stands after an action failed with ``error``; ``running``: its QEMU runs all the same."""
    phase = Phase.UNKNOWN if running else Phase.PENDING
    match error:
        case Refused():
            return verdict(phase, _reason(error), error.message, stalled=True)
        case Broken():
            return verdict(phase, _reason(error), f"{error.message}; it is tried again", stalled=True)
        case Unknown() | NotNow():
            return verdict(phase, _reason(error), f"{error.message}; the node is looked at again")
        case _:
            return verdict(phase, Reason.HOST_FAILURE, str(error), stalled=True)


def _reason(error: GuestletError) -> Reason:
    try:
        return Reason(error.reason)
    except ValueError:
        return Reason.HOST_FAILURE


def retry_s(error: GuestletError) -> float:
    """When to try again after ``error``, in seconds."""
    match error:
        case Unknown() | NotNow():
            return 0.5
        case Broken():
            return 10.0
        case _:
            return 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change that people want to read in the Events of the object."""

    reason: str
    message: str
    warning: bool


def transitions(before: VirtualGuestStatus, after: VirtualGuestStatus) -> tuple[Transition, ...]:
    """What changed between two published statuses: readiness, standing still, fields that wait."""
    old = {each.type: each for each in before.conditions}
    found: list[Transition] = []
    for new in after.conditions:
        was = old.get(new.type)
        changed = was is None or (was.status, was.reason) != (new.status, new.reason)
        if not changed:
            continue
        if new.type == ConditionType.READY and not _told_by_pause(new, after):
            stalled = any(each.type == ConditionType.STALLED and each.status == "True" for each in after.conditions)
            found.append(Transition(reason=new.reason, message=new.message, warning=stalled))
        elif new.type in (ConditionType.PAUSED, ConditionType.RESTART_REQUIRED) and new.status == "True":
            found.append(Transition(reason=f"{new.type}", message=new.message, warning=False))
    return tuple(found)


def _told_by_pause(ready: Condition, after: VirtualGuestStatus) -> bool:
    """Whether the Paused condition says the same, so that one Event is enough."""
    return any(
        each.type == ConditionType.PAUSED and each.status == "True" and each.reason == ready.reason
        for each in after.conditions
    )

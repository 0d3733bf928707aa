"""Whether a status must be written, and with which transition times. Pure comparison; nothing is sent from here.

``nodeName`` and ``placementEpoch`` are not compared and not written: binding and hand-over are JSON patches.
"""

from typing import Any

from guestlet.api.base import Condition
from guestlet.api.guest_status import VirtualGuestStatus

NEVER_APPLIED = frozenset({"node_name", "placement_epoch"})


def same_status(live: VirtualGuestStatus, wanted: VirtualGuestStatus) -> bool:
    """Whether writing ``wanted`` over ``live`` would tell nobody anything new (transition times tell nothing)."""
    return _telling(live) == _telling(wanted)


def carry_transition_times(live: VirtualGuestStatus, wanted: VirtualGuestStatus, now: str) -> VirtualGuestStatus:
    """``wanted`` with each condition's time: the live one while its status stays, else ``now`` (RFC 3339, UTC).

    Source of the rule: Kubernetes API conventions, "Typical status properties".
    """
    before = {condition.type: condition for condition in live.conditions}
    conditions = tuple(_timed(condition, before.get(condition.type), now) for condition in wanted.conditions)
    return wanted.model_copy(update={"conditions": conditions})


def applied(status: VirtualGuestStatus) -> dict[str, Any]:
    """The status as it is applied: on the wire, without what is never applied."""
    return status.model_dump(by_alias=True, exclude_none=True, mode="json", exclude=set(NEVER_APPLIED))


def _timed(condition: Condition, before: Condition | None, now: str) -> Condition:
    stays = before is not None and before.status == condition.status
    time = before.last_transition_time if before is not None and stays else now
    return condition.model_copy(update={"last_transition_time": time})


def _telling(status: VirtualGuestStatus) -> tuple[VirtualGuestStatus, tuple[Condition, ...]]:
    conditions = sorted(
        (condition.model_copy(update={"last_transition_time": ""}) for condition in status.conditions),
        key=lambda condition: condition.type,
    )
    rest = status.model_copy(update={"conditions": (), "node_name": None, "placement_epoch": None})
    return rest, tuple(conditions)

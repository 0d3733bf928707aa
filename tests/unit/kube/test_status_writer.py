from typing import Literal

from guestlet.api.base import Condition
from guestlet.api.guest_status import Phase, VirtualGuestStatus
from guestlet.kube.status_writer import applied, carry_transition_times, same_status

State = Literal["True", "False", "Unknown"]


def condition(kind: str, state: State = "True", *, at: str = "2026-01-01T00:00:00Z", message: str = "") -> Condition:
    return Condition(type=kind, status=state, reason="Running", message=message, last_transition_time=at)


def test_transition_times_and_the_order_of_conditions_tell_nothing() -> None:
    live = VirtualGuestStatus(conditions=(condition("Ready"), condition("Paused")))
    wanted = VirtualGuestStatus(conditions=(condition("Paused", at="2027-01-01T00:00:00Z"), condition("Ready")))
    assert same_status(live, wanted)


def test_node_and_epoch_are_others_to_write() -> None:
    live = VirtualGuestStatus(node_name="a", placement_epoch=3)
    assert same_status(live, VirtualGuestStatus())
    assert "nodeName" not in applied(live)
    assert "placementEpoch" not in applied(live)


def test_anything_else_is_news() -> None:
    live = VirtualGuestStatus(conditions=(condition("Ready"),), phase=Phase.RUNNING)
    assert not same_status(live, live.model_copy(update={"phase": Phase.PAUSED}))
    assert not same_status(live, live.model_copy(update={"observed_generation": 2}))
    assert not same_status(live, live.model_copy(update={"conditions": (condition("Ready", message="new"),)}))
    assert not same_status(live, live.model_copy(update={"conditions": ()}))


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    live = VirtualGuestStatus(conditions=(condition("Ready", "False", at="old"), condition("Paused", at="old")))
    wanted = VirtualGuestStatus(
        conditions=(condition("Ready", at="x"), condition("Paused", at="x", message="m"), condition("Stalled", at="x"))
    )
    carried = carry_transition_times(live, wanted, "now")
    assert {one.type: one.last_transition_time for one in carried.conditions} == {
        "Ready": "now",
        "Paused": "old",
        "Stalled": "now",
    }

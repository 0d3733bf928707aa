import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestlet.api.guest import VirtualGuest
from guestlet.api.reasons import Reason
from guestlet.placement.liveness import Liveness
from guestlet.placement.plan import (
    Bind,
    Decision,
    Leave,
    MarkLost,
    NodeView,
    Patience,
    ReleaseFinalizer,
    Unplaceable,
    Wait,
    choose_node,
    plan_placement,
)
from unit.placement.samples import GIB, guest, node

SILENT, LIVE, DOUBTFUL = Liveness.SILENT, Liveness.LIVE, Liveness.DOUBTFUL


def decide(about: VirtualGuest, *nodes: NodeView, waited_s: float = 0.0) -> Decision:
    return plan_placement(about, nodes, patience=Patience(unplaced_since=100.0, claim_s=600.0), now=100.0 + waited_s)


def reason(decision: Decision) -> Reason:
    assert isinstance(decision, Unplaceable)
    return decision.reason


def test_a_new_guest_goes_to_the_live_node_with_the_most_free_memory() -> None:
    assert decide(guest(), node("a", free_gib=2), node("b", free_gib=5)) == Bind(node="b", epoch=1)


def test_equal_nodes_are_taken_by_name() -> None:
    assert decide(guest(), node("b"), node("a")) == Bind(node="a", epoch=1)


def test_a_guest_goes_where_its_spec_says_even_when_it_is_cordoned_and_small() -> None:
    named = guest(spec={"nodeName": "a"})
    assert decide(named, node("a", free_gib=0.1, unschedulable=True), node("b")) == Bind(node="a", epoch=1)


def test_every_binding_raises_the_epoch() -> None:
    assert decide(guest(epoch=4), node("a")) == Bind(node="a", epoch=5)


@pytest.mark.parametrize(
    "closed", [node("a", unschedulable=True), node("a", out_of_service=True), node("a", agent=SILENT)]
)
def test_nodes_that_take_no_guests_are_passed_over(closed: NodeView) -> None:
    assert decide(guest(), closed, node("b", free_gib=2)) == Bind(node="b", epoch=1)
    waiting = decide(guest(), closed)
    assert reason(waiting) is Reason.WAITING_FOR_NODE
    assert isinstance(waiting, Unplaceable)
    assert not waiting.stalled


def test_an_agent_without_a_node_object_gets_no_guest() -> None:
    assert reason(decide(guest(), node("a", exists=False))) is Reason.WAITING_FOR_NODE


def test_a_name_that_is_no_node_is_said_and_needs_a_person() -> None:
    decision = decide(guest(spec={"nodeName": "nowhere"}), node("a"))
    assert isinstance(decision, Unplaceable)
    assert (decision.reason, decision.stalled) == (Reason.NO_SUCH_NODE, True)
    assert "nowhere" in decision.message


def test_a_named_node_without_a_live_agent_is_waited_for() -> None:
    decision = decide(guest(spec={"nodeName": "a"}), node("a", agent=SILENT), node("b"))
    assert isinstance(decision, Unplaceable)
    assert (decision.reason, decision.stalled) == (Reason.NO_LIVE_AGENT, False)


def test_a_guest_larger_than_every_node_is_said_with_both_numbers() -> None:
    decision = decide(guest(spec={"memory": {"size": "16Gi"}}), node("a", free_gib=2), node("b", free_gib=4))
    assert isinstance(decision, Unplaceable)
    assert (decision.reason, decision.stalled) == (Reason.INSUFFICIENT_MEMORY, True)
    assert "16Gi" in decision.message
    assert "4Gi" in decision.message


def test_a_guest_that_is_meant_to_be_off_fits_everywhere() -> None:
    halted = guest(spec={"memory": {"size": "16Gi"}, "runStrategy": "Halted"})
    assert decide(halted, node("a", free_gib=1)) == Bind(node="a", epoch=1)


def test_a_node_that_does_not_say_what_it_has_is_better_than_none() -> None:
    assert decide(guest(), node("a", free_gib=None)) == Bind(node="a", epoch=1)
    assert decide(guest(), node("a", free_gib=None), node("b", free_gib=2)) == Bind(node="b", epoch=1)


def test_a_guest_whose_status_was_lost_is_left_to_its_agents_claim_for_two_resyncs() -> None:
    assert decide(guest(observed=3), node("a"), waited_s=0) == Wait(seconds=600)
    assert decide(guest(observed=3), node("a"), waited_s=599) == Wait(seconds=1)
    assert decide(guest(observed=3), node("a"), waited_s=600) == Bind(node="a", epoch=1)


def test_a_placed_guest_is_its_agents() -> None:
    assert decide(guest(node="a"), node("a"), node("b")) == Leave()
    assert decide(guest(node="a", deleting=True), node("a")) == Leave()


def test_a_guest_of_a_silent_agent_is_lost_and_stays_there() -> None:
    decision = decide(guest(node="a"), node("a", agent=SILENT), node("b"))
    assert isinstance(decision, MarkLost)
    assert decision.node == "a"


def test_nothing_is_said_while_an_agent_is_only_doubted() -> None:
    for deleting in (False, True):
        assert isinstance(decide(guest(node="a", deleting=deleting), node("a", agent=DOUBTFUL)), Wait)


def test_a_silent_agent_alone_never_lets_a_deleted_guest_go_and_the_remedies_are_named() -> None:
    decision = decide(guest(node="a", deleting=True), node("a", agent=SILENT))
    assert isinstance(decision, MarkLost)
    assert "delete the Node a" in decision.message
    assert "node.kubernetes.io/out-of-service" in decision.message


@pytest.mark.parametrize("gone", [node("a", agent=SILENT, exists=False), node("a", agent=SILENT, out_of_service=True)])
def test_a_deleted_guest_goes_when_its_node_is_gone_or_out_of_service(gone: NodeView) -> None:
    decision = decide(guest(node="a", deleting=True), gone)
    assert isinstance(decision, ReleaseFinalizer)
    assert decision.node == "a"


def test_a_live_agent_lets_its_guest_go_itself_even_if_its_node_object_is_gone() -> None:
    assert decide(guest(node="a", deleting=True), node("a", exists=False)) == Leave()


def test_a_deleted_guest_that_no_node_has_goes_at_once() -> None:
    assert isinstance(decide(guest(deleting=True), node("a")), ReleaseFinalizer)


def test_a_deleted_guest_whose_status_was_lost_waits_for_its_agent_first() -> None:
    assert decide(guest(deleting=True, observed=2), node("a")) == Wait(seconds=600)
    assert isinstance(decide(guest(deleting=True, observed=2), node("a"), waited_s=601), ReleaseFinalizer)


def test_a_deleted_guest_without_our_finalizer_is_nobodys_business() -> None:
    assert decide(guest(deleting=True, finalizer=False), node("a")) == Leave()


nodes = st.lists(
    st.builds(
        node,
        st.sampled_from(["a", "b", "c", "d"]),
        free_gib=st.one_of(st.none(), st.floats(min_value=-4, max_value=64)),
        agent=st.sampled_from(Liveness),
        exists=st.booleans(),
        unschedulable=st.booleans(),
        out_of_service=st.booleans(),
    ),
    unique_by=lambda each: each.name,
    max_size=4,
)


@given(nodes, st.integers(min_value=0, max_value=64))
def test_only_live_open_nodes_with_room_are_chosen_whatever_the_order(found: list[NodeView], gib: int) -> None:
    chosen = choose_node(gib * GIB, tuple(found))
    assert chosen == choose_node(gib * GIB, tuple(reversed(found)))
    if isinstance(chosen, NodeView):
        assert chosen.agent is LIVE
        assert chosen.exists
        assert not chosen.unschedulable
        assert not chosen.out_of_service
        assert chosen.free_memory_bytes is None or chosen.free_memory_bytes >= gib * GIB

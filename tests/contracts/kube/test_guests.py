from typing import Any, Literal

import pytest

from guestlet.api.base import Condition
from guestlet.api.guest_status import Phase, VirtualGuestStatus
from guestlet.errors import NotNow, Refused
from guestlet.kube.client import JSON_PATCH, Request
from guestlet.kube.facts import FINALIZER
from guestlet.kube.guests import binding
from guestlet.kube.resources import GUESTS

State = Literal["True", "False", "Unknown"]


def condition(kind: str, state: State, reason: str = "Running", message: str = "") -> Condition:
    return Condition(
        type=kind, status=state, reason=reason, message=message, last_transition_time="2020-01-01T00:00:00Z"
    )


def status(*conditions: Condition, **fields: Any) -> VirtualGuestStatus:
    return VirtualGuestStatus(observed_generation=1, phase=Phase.RUNNING, conditions=conditions, **fields)


async def test_a_new_object_does_not_look_finished(world: Any) -> None:
    guest = await world.create()
    assert guest.status.observed_generation == -1
    assert guest.metadata.generation == 1


async def test_what_does_not_exist_is_none(world: Any) -> None:
    assert await world.guests.read("default", "nobody") is None


async def test_the_finalizer_is_added_once(world: Any) -> None:
    guest = await world.guests.add_finalizer(await world.create())
    assert guest.metadata.finalizers == (FINALIZER,)
    again = await world.guests.add_finalizer(guest)
    assert again.metadata.resource_version == guest.metadata.resource_version


async def test_the_finalizer_joins_those_of_others_and_leaves_them(world: Any) -> None:
    await world.create()
    await world.merge({"metadata": {"finalizers": ["example.org/other"]}})
    guest = await world.guests.add_finalizer(await world.read())
    assert guest.metadata.finalizers == ("example.org/other", FINALIZER)
    await world.guests.remove_finalizer(guest)
    assert (await world.read()).metadata.finalizers == ("example.org/other",)


async def test_adding_the_finalizer_to_what_somebody_changed_is_a_conflict(world: Any) -> None:
    guest = await world.create()
    await world.merge({"spec": {"paused": True}})
    with pytest.raises(NotNow, match="Conflict"):
        await world.guests.add_finalizer(guest)


async def test_a_deleted_object_stays_until_its_finalizer_is_off(world: Any) -> None:
    guest = await world.guests.add_finalizer(await world.create())
    await world.delete()
    dying = await world.read()
    assert dying.metadata.deletion_timestamp is not None
    assert dying.metadata.generation == guest.metadata.generation + 1
    await world.guests.remove_finalizer(dying)
    assert await world.is_gone()


async def test_taking_the_finalizer_off_does_not_mind_other_changes(world: Any) -> None:
    guest = await world.guests.add_finalizer(await world.create())
    await world.merge({"spec": {"paused": True}})
    await world.guests.remove_finalizer(guest)
    assert (await world.read()).metadata.finalizers == ()


async def test_taking_the_finalizer_off_what_is_gone_is_fine(world: Any) -> None:
    guest = await world.guests.add_finalizer(await world.create())
    await world.merge({"metadata": {"finalizers": None}})
    await world.delete()
    await world.guests.remove_finalizer(guest)


async def test_the_finalizer_of_a_namesake_is_not_taken_off(world: Any) -> None:
    old = await world.guests.add_finalizer(await world.create())
    await world.guests.remove_finalizer(old)
    await world.delete()
    await world.guests.add_finalizer(await world.create())
    with pytest.raises(NotNow, match="Conflict"):
        await world.guests.remove_finalizer(old)


async def test_a_claim_writes_node_and_epoch(world: Any) -> None:
    guest = await world.guests.claim(await world.create(), node="node-a", epoch=3)
    assert (guest.status.node_name, guest.status.placement_epoch) == ("node-a", 3)
    assert guest.status.observed_generation == -1


async def test_only_one_of_two_claims_wins(world: Any) -> None:
    guest = await world.create()
    await world.guests.claim(guest, node="node-a", epoch=1)
    with pytest.raises(NotNow, match="Conflict"):
        await world.guests.claim(guest, node="node-b", epoch=1)
    with pytest.raises(NotNow, match="Conflict"):
        await world.guests.claim(await world.read(), node="node-b", epoch=2)
    assert (await world.read()).status.node_name == "node-a"


async def test_a_binding_ends_the_conditions_of_the_unplaced_time(world: Any) -> None:
    await world.create()
    waiting = condition("Stalled", "True", "NoSuchNode", "no Node nowhere").to_wire()
    await world.merge({"status": {"conditions": [waiting]}}, subresource="status")
    guest = await world.read()
    assert len(guest.status.conditions) == 1
    patch = binding(guest, node="node-a", epoch=1)
    await world.api.send(
        Request(
            verb="patch",
            resource=GUESTS,
            namespace="default",
            name=world.name,
            subresource="status",
            body=patch,
            content_type=JSON_PATCH,
        )
    )
    assert (await world.read()).status.conditions == ()


async def test_applying_a_status_keeps_node_and_epoch(world: Any) -> None:
    guest = await world.guests.claim(await world.create(), node="node-a", epoch=7)
    after = await world.guests.apply_status(guest, status(condition("Ready", "True"), node_name="node-z"))
    assert (after.status.node_name, after.status.placement_epoch) == ("node-a", 7)
    assert after.status.phase == "Running"
    assert after == await world.read()


async def test_a_status_that_says_nothing_new_is_not_sent(world: Any) -> None:
    guest = await world.guests.apply_status(await world.create(), status(condition("Ready", "True")))
    again = await world.guests.apply_status(guest, status(condition("Ready", "True")))
    assert again is guest


async def test_transition_times_move_only_with_the_status(world: Any) -> None:
    guest = await world.guests.apply_status(
        await world.create(), status(condition("Ready", "False"), condition("Paused", "False"))
    )
    world.now += 60
    guest = await world.guests.apply_status(
        guest, status(condition("Ready", "True"), condition("Paused", "False", message="new words"))
    )
    times = {one.type: one.last_transition_time for one in guest.status.conditions}
    assert times == {"Ready": "2023-11-14T22:14:20Z", "Paused": "2023-11-14T22:13:20Z"}


async def test_applying_over_somebody_elses_write_is_a_conflict(world: Any) -> None:
    guest = await world.create()
    await world.merge({"spec": {"paused": True}})
    with pytest.raises(NotNow, match="Conflict"):
        await world.guests.apply_status(guest, status())


async def test_applying_to_what_is_gone_is_a_conflict(world: Any) -> None:
    guest = await world.create()
    await world.delete()
    with pytest.raises(NotNow, match="Conflict"):
        await world.guests.apply_status(guest, status())


async def test_what_is_published_no_more_is_gone(world: Any) -> None:
    full = status(condition("Ready", "True"), condition("Stalled", "False"), uuid="u-1", restarts=3)
    guest = await world.guests.apply_status(await world.create(), full)
    guest = await world.guests.apply_status(guest, status(condition("Ready", "True")))
    assert (guest.status.uuid, guest.status.restarts) == (None, None)
    assert [one.type for one in guest.status.conditions] == ["Ready"]


async def test_what_another_wrote_is_taken_over_when_published(world: Any) -> None:
    guest = await world.guests.apply_status(await world.create(), status(condition("Ready", "True")))
    lost = condition("Ready", "Unknown", "NodeLost").to_wire()
    other = condition("Example", "True").to_wire()
    await world.merge({"status": {"conditions": [lost, other]}}, subresource="status")
    guest = await world.guests.apply_status(await world.read(), status(condition("Ready", "True")))
    states = {one.type: one.status for one in guest.status.conditions}
    assert states == {"Ready": "True", "Example": "True"}


async def test_a_status_write_changes_neither_spec_nor_generation(world: Any) -> None:
    before = await world.create(paused=True)
    after = await world.guests.apply_status(before, status())
    assert after.spec == before.spec
    assert after.metadata.generation == before.metadata.generation


async def test_a_status_that_the_schema_does_not_allow_is_refused(world: Any) -> None:
    if type(world.api).__name__ == "FakeApiServer":
        return  # the schema is the real server's to check
    wrong = status(condition("Ready", "True").model_copy(update={"reason": "not a word"}))
    with pytest.raises(Refused, match="reason"):
        await world.guests.apply_status(await world.create(), wrong)


async def test_lists_follow_the_order_they_are_applied_in(world: Any) -> None:
    one, two = condition("Ready", "True"), condition("Paused", "False")
    guest = await world.guests.apply_status(await world.create(), status(one, two))
    assert [found.type for found in guest.status.conditions] == ["Ready", "Paused"]
    guest = await world.guests.apply_status(guest, status(two, one, uuid="changed"))
    assert [found.type for found in guest.status.conditions] == ["Paused", "Ready"]

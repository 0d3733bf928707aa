from dataclasses import replace
from typing import Any

import pytest

from guestlet.api.base import Condition
from guestlet.api.guest_status import Phase, VirtualGuestStatus
from guestlet.errors import NotNow
from guestlet.kube.client import MERGE_PATCH, Request
from guestlet.kube.cluster import KubeCluster
from guestlet.kube.facts import FINALIZER, OUT_OF_SERVICE, parse_lease
from guestlet.kube.lease import LeaseHolder, Times
from guestlet.kube.node import NodeOffer, NodeRegistration
from guestlet.kube.recorder import Note, Recorder, Regarding
from guestlet.kube.resources import EVENTS, LEASES, NODES

NAMESPACE = "default"  # every API server has it


@pytest.fixture
def cluster(world: Any) -> KubeCluster:
    return KubeCluster(world.api, recorder=world.events, namespace=NAMESPACE)


def lost(status: str = "Unknown") -> Condition:
    return Condition.model_validate(
        {
            "type": "Ready",
            "status": status,
            "reason": "NodeLost",
            "message": "silent",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    )


async def test_binding_is_seen_by_the_agent_and_bound_once(world: Any, cluster: KubeCluster) -> None:
    guest = await world.create()
    await cluster.bind(guest, node="node-a", epoch=2)
    bound = await world.read()
    assert (bound.status.node_name, bound.status.placement_epoch) == ("node-a", 2)
    with pytest.raises(NotNow, match="Conflict"):
        await cluster.bind(guest, node="node-b", epoch=2)


async def test_a_report_replaces_its_condition_and_leaves_the_rest(world: Any, cluster: KubeCluster) -> None:
    guest = await world.guests.claim(await world.create(), node="node-a", epoch=1)
    paused = lost("False").model_copy(update={"type": "Paused", "reason": "NotPaused"})
    ready = lost("True").model_copy(update={"reason": "Running"})
    status = VirtualGuestStatus(observed_generation=1, phase=Phase.RUNNING, conditions=(paused, ready), uuid="u")
    guest = await world.guests.apply_status(guest, status)
    await cluster.report(guest, conditions=(lost(),), phase=Phase.UNKNOWN)
    found = await world.read()
    assert {one.type: one.reason for one in found.status.conditions} == {"Paused": "NotPaused", "Ready": "NodeLost"}
    assert (found.status.node_name, found.status.uuid, found.status.phase) == ("node-a", "u", "Unknown")


async def test_the_agent_takes_its_conditions_back(world: Any, cluster: KubeCluster) -> None:
    guest = await world.guests.claim(await world.create(), node="node-a", epoch=1)
    status = VirtualGuestStatus(
        observed_generation=1, phase=Phase.RUNNING, conditions=(lost("True").model_copy(update={"reason": "Running"}),)
    )
    await world.guests.apply_status(guest, status)
    await cluster.report(await world.read(), conditions=(lost(),), phase=Phase.UNKNOWN)
    found = await world.guests.apply_status(await world.read(), status)
    assert (found.status.phase, found.status.conditions[0].reason) == ("Running", "Running")


async def test_a_report_on_what_moved_on_is_a_conflict(world: Any, cluster: KubeCluster) -> None:
    guest = await world.create()
    await world.merge({"spec": {"paused": True}})
    with pytest.raises(NotNow, match="Conflict"):
        await cluster.report(guest, conditions=(lost(),), phase=Phase.UNKNOWN)


async def test_the_finalizer_of_a_dead_node_is_taken_off(world: Any, cluster: KubeCluster) -> None:
    guest = await world.guests.claim(await world.create(), node="node-a", epoch=1)
    guest = await world.guests.add_finalizer(guest)
    assert FINALIZER in guest.metadata.finalizers
    await world.delete()
    await cluster.release(await world.read())
    assert await world.is_gone()


async def test_the_finalizer_stays_when_the_guest_was_placed_elsewhere_meanwhile(
    world: Any, cluster: KubeCluster
) -> None:
    guest = await world.guests.claim(await world.create(), node="node-a", epoch=1)
    guest = await world.guests.add_finalizer(guest)
    await world.merge({"status": {"nodeName": "node-b"}}, subresource="status")
    with pytest.raises(NotNow, match="Conflict"):
        await cluster.release(guest)
    await world.guests.remove_finalizer(guest)


async def test_guests_are_glanced_at(world: Any, cluster: KubeCluster) -> None:
    await world.guests.claim(await world.create(runStrategy="Halted"), node="node-a", epoch=1)
    (seen,) = [one for one in await cluster.sightings() if one.name == world.name]
    assert (seen.node, seen.memory_bytes, seen.halted, seen.deleting) == ("node-a", 64 * 2**20, True, False)


async def test_a_node_is_kept_ready_and_its_taint_is_seen(world: Any, cluster: KubeCluster) -> None:
    name = f"node-{world.name}"
    await world.api.send(Request(verb="create", resource=NODES, body={"kind": "Node", "metadata": {"name": name}}))
    offer = NodeOffer(name=name, cpus=2, memory_bytes=8 * 2**30, memory_reserved_bytes=2**30)
    registration = NodeRegistration(world.api, offer=offer, clock=lambda: world.now)
    await registration.beat()
    node = await cluster.node(name)
    assert node is not None
    assert (node.allocatable_memory_bytes, node.out_of_service) == (7 * 2**30, False)
    before = (await world.api.get(NODES, name=name) or {})["metadata"]["resourceVersion"]
    await registration.beat()
    assert (await world.api.get(NODES, name=name) or {})["metadata"]["resourceVersion"] == before
    taints = [{"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}]
    patch = Request(
        verb="patch", resource=NODES, name=name, body={"spec": {"taints": taints}}, content_type=MERGE_PATCH
    )
    await world.api.send(patch)
    assert await cluster.node(name) == replace(node, out_of_service=True)
    assert name in {one.name for one in await cluster.nodes()}
    await world.api.send(Request(verb="delete", resource=NODES, name=name))
    assert await cluster.node(name) is None


async def test_a_lease_is_taken_renewed_and_released(world: Any, cluster: KubeCluster) -> None:
    name = f"guestlet-agent-{world.name}"
    monotonic = 0.0

    def holder(identity: str) -> LeaseHolder:
        times = Times(wall=lambda: world.now, monotonic=lambda: monotonic)
        return LeaseHolder(world.api, namespace=NAMESPACE, name=name, identity=identity, times=times)

    first, second = holder("m/one"), holder("m/two")
    await first.renew()
    await first.renew()
    (seen,) = [one for one in await cluster.agent_leases() if one.name == name]
    assert (seen.holder, seen.renewed_at) == ("m/one", world.now)
    world.now += 41
    await second.renew()
    with pytest.raises(NotNow, match="Conflict"):
        await first.renew()
    await second.release()
    await first.renew()
    body = await world.api.get(LEASES, namespace=NAMESPACE, name=name)
    assert body is not None
    assert parse_lease(body).holder == "m/one"


async def test_events_are_accepted_and_counted(world: Any) -> None:
    recorder = Recorder(world.api, controller="guestlet.io/test", instance="i", clock=lambda: world.now)
    about = Regarding(
        api_version="guestlet.io/v1alpha1", kind="VirtualGuest", namespace="default", name=world.name, uid="u"
    )
    note = Note(about=about, reason="BackOff", message="again", warning=True)
    for request in (recorder.request_for(note), recorder.request_for(note)):
        assert request is not None
        await world.api.send(request)
    (event,) = [
        one
        for one in await world.api.list(EVENTS, namespace="default")
        if one.get("regarding", {}).get("name") == world.name
    ]
    assert (event["reason"], event["series"]["count"]) == ("BackOff", 2)

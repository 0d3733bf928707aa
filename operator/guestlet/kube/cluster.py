"""The cluster at the API server, for the controller (``guestlet.placement.ports.Cluster``).

It must never write what an agent owns but by a JSON patch that names the state it was decided on.
"""

from collections.abc import Sequence
from typing import Any, Final

from guestlet.api.base import Condition
from guestlet.api.guest import API_VERSION, KIND, VirtualGuest, parse_guest
from guestlet.api.guest_status import Phase
from guestlet.errors import NotNow
from guestlet.kube.client import JSON_PATCH, KubeApi, Request
from guestlet.kube.facts import (
    FINALIZER,
    ClusterNode,
    GuestSighting,
    LeaseFacts,
    parse_lease,
    parse_node,
    parse_sighting,
)
from guestlet.kube.guests import Operation, binding, guarded, without_finalizer
from guestlet.kube.recorder import Recorder, Regarding
from guestlet.kube.resources import GUESTS, LEASES, NODES

FIELD_MANAGER: Final = "guestlet-controller"


class KubeCluster:
    """The real ``Cluster``. ``namespace`` is where the agents' Leases are."""

    def __init__(self, api: KubeApi, *, recorder: Recorder, namespace: str) -> None:
        self._api = api
        self._recorder = recorder
        self._namespace = namespace

    async def read(self, namespace: str, name: str) -> VirtualGuest | None:
        """The guest, read live, or ``None``.

        Raises:
            NotNow: ApiUnavailable. Refused: InvalidSpec.
        """
        body = await self._api.get(GUESTS, namespace=namespace, name=name)
        return None if body is None else parse_guest(body)

    async def sightings(self) -> tuple[GuestSighting, ...]:
        """A glance at every guest."""
        return tuple(parse_sighting(body) for body in await self._api.list(GUESTS))

    async def nodes(self) -> tuple[ClusterNode, ...]:
        """Every Node."""
        return tuple(parse_node(body) for body in await self._api.list(NODES))

    async def node(self, name: str) -> ClusterNode | None:
        """One Node, read live, or ``None``."""
        body = await self._api.get(NODES, name=name)
        return None if body is None else parse_node(body)

    async def agent_leases(self) -> tuple[LeaseFacts, ...]:
        """Every Lease of the system namespace."""
        return tuple(parse_lease(body) for body in await self._api.list(LEASES, namespace=self._namespace))

    async def bind(self, guest: VirtualGuest, *, node: str, epoch: int) -> None:
        """Places a guest that has no node.

        Raises:
            NotNow: Conflict.
        """
        await self._patch(guest, binding(guest, node=node, epoch=epoch), subresource="status")

    async def report(self, guest: VirtualGuest, *, conditions: tuple[Condition, ...], phase: Phase) -> None:
        """Replaces these conditions and the phase.

        Raises:
            NotNow: Conflict.
        """
        operations = [*_same_node(guest), *_replaced(guest, conditions)]
        operations.append({"op": "add", "path": "/status/phase", "value": phase.value})
        await self._patch(guest, guarded(guest, *operations), subresource="status")

    async def release(self, guest: VirtualGuest) -> None:
        """Takes the agents' finalizer off; absent is fine.

        Raises:
            NotNow: Conflict.
        """
        if FINALIZER in guest.metadata.finalizers:
            await self._patch(guest, [*without_finalizer(guest), *_same_node(guest)], subresource=None)

    def event(self, guest: VirtualGuest, *, reason: str, message: str, warning: bool) -> None:
        """Hands an Event about the guest to the recorder."""
        meta = guest.metadata
        about = Regarding(api_version=API_VERSION, kind=KIND, namespace=meta.namespace, name=meta.name, uid=meta.uid)
        self._recorder.record(about, reason=reason, message=message, warning=warning)

    async def _patch(self, guest: VirtualGuest, operations: Sequence[Operation], *, subresource: str | None) -> None:
        meta = guest.metadata
        request = Request(
            verb="patch",
            resource=GUESTS,
            namespace=meta.namespace,
            name=meta.name,
            subresource=subresource,
            params={"fieldManager": FIELD_MANAGER},
            body=operations,
            content_type=JSON_PATCH,
        )
        if await self._api.send(request) is None:
            raise NotNow("Conflict", f"{meta.namespace}/{meta.name} is gone")


def _same_node(guest: VirtualGuest) -> tuple[Operation, ...]:
    if guest.status.node_name is None:
        return ()
    return ({"op": "test", "path": "/status/nodeName", "value": guest.status.node_name},)


def _replaced(guest: VirtualGuest, conditions: tuple[Condition, ...]) -> list[Operation]:
    """Each condition in its place by index, which the test on resourceVersion makes safe; new ones at the end."""
    places = {condition.type: index for index, condition in enumerate(guest.status.conditions)}
    wires: list[tuple[int | None, dict[str, Any]]] = [(places.get(one.type), one.to_wire()) for one in conditions]
    if not places:
        return [{"op": "add", "path": "/status/conditions", "value": [wire for _, wire in wires]}]
    return [
        {"op": "add", "path": "/status/conditions/-", "value": wire}
        if place is None
        else {"op": "replace", "path": f"/status/conditions/{place}", "value": wire}
        for place, wire in wires
    ]

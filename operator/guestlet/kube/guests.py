"""VirtualGuests at the API server, for the agent: reads that are live, writes that are guarded (``GuestApi``).

It must never write spec, labels or annotations, nor ``nodeName``/``placementEpoch`` by apply, nor decide anything.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from guestlet.api.guest import API_VERSION, KIND, VirtualGuest, parse_guest
from guestlet.api.guest_status import VirtualGuestStatus
from guestlet.errors import NotNow
from guestlet.kube.client import APPLY, JSON_PATCH, Body, KubeApi, Request
from guestlet.kube.facts import FINALIZER
from guestlet.kube.recorder import Recorder, Regarding
from guestlet.kube.resources import GUESTS
from guestlet.kube.status_writer import applied, carry_transition_times, same_status

FIELD_MANAGER: Final = "guestlet-agent"

Operation = dict[str, Any]


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, whole seconds, as Kubernetes writes times."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def guarded(guest: VirtualGuest, *operations: Operation, version: bool = True) -> Sequence[Operation]:
    """A JSON patch that applies only to this very object, and with ``version`` only to this very state of it."""
    tests: list[Operation] = [{"op": "test", "path": "/metadata/uid", "value": guest.metadata.uid}]
    if version:
        # The server tests against its newest state, so this is the compare of a compare-and-swap.
        tests.append({"op": "test", "path": "/metadata/resourceVersion", "value": guest.metadata.resource_version})
    return [*tests, *operations]


def binding(guest: VirtualGuest, *, node: str, epoch: int) -> Sequence[Operation]:
    """The JSON patch that places an unplaced guest; the conditions of the unplaced time end with it."""
    ends: tuple[Operation, ...] = ({"op": "remove", "path": "/status/conditions"},) if guest.status.conditions else ()
    return guarded(
        guest,
        {"op": "add", "path": "/status/nodeName", "value": node},
        {"op": "add", "path": "/status/placementEpoch", "value": epoch},
        *ends,
    )


def without_finalizer(guest: VirtualGuest) -> Sequence[Operation]:
    """The JSON patch that takes ours off; only the uid is compared, because spec and status may go on changing."""
    path = f"/metadata/finalizers/{guest.metadata.finalizers.index(FINALIZER)}"
    return guarded(
        guest, {"op": "test", "path": path, "value": FINALIZER}, {"op": "remove", "path": path}, version=False
    )


class KubeGuests:
    """The real ``guestlet.guest.ports.GuestApi``. ``clock`` gives seconds since the epoch."""

    def __init__(self, client: KubeApi, *, recorder: Recorder, clock: Callable[[], float]) -> None:
        self._client = client
        self._recorder = recorder
        self._clock = clock

    async def read(self, namespace: str, name: str) -> VirtualGuest | None:
        """The object, read live, or ``None`` when the server says NotFound.

        Raises:
            NotNow: ApiUnavailable. Refused: InvalidSpec, a value this program cannot read.
        """
        body = await self._client.get(GUESTS, namespace=namespace, name=name)
        return None if body is None else parse_guest(body)

    async def add_finalizer(self, guest: VirtualGuest) -> VirtualGuest:
        """Adds ours; the object as it is then.

        Raises:
            NotNow: Conflict.
        """
        held = guest.metadata.finalizers
        if FINALIZER in held:
            return guest
        added: Operation = (
            {"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER}
            if held
            else {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}
        )
        return await self._patch(guest, guarded(guest, added), subresource=None)

    async def remove_finalizer(self, guest: VirtualGuest) -> None:
        """Takes ours off; absent is fine, and so is an object that is gone.

        Raises:
            NotNow: Conflict.
        """
        if FINALIZER in guest.metadata.finalizers:
            await self._client.send(self._request(guest, without_finalizer(guest), subresource=None))

    async def apply_status(self, guest: VirtualGuest, status: VirtualGuestStatus) -> VirtualGuest:
        """Makes ``status`` the live one; sends nothing when the live one already says the same.

        Raises:
            NotNow: Conflict, or the object is gone. Refused: Invalid, the schema does not allow it.
        """
        if same_status(guest.status, status):
            return guest
        wanted = carry_transition_times(guest.status, status, rfc3339(self._clock()))
        meta = guest.metadata
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": meta.name, "namespace": meta.namespace, "resourceVersion": meta.resource_version},
            "status": applied(wanted),
        }
        request = Request(
            verb="patch",
            resource=GUESTS,
            namespace=meta.namespace,
            name=meta.name,
            subresource="status",
            params={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=body,
            content_type=APPLY,
        )
        return _present(guest, await self._client.send(request))

    async def claim(self, guest: VirtualGuest, *, node: str, epoch: int) -> VirtualGuest:
        """Places a guest that has no node on ``node``.

        Raises:
            NotNow: Conflict, also when it has a node.
        """
        if guest.status.node_name is not None:
            raise NotNow("Conflict", f"the guest is placed on {guest.status.node_name} already")
        return await self._patch(guest, binding(guest, node=node, epoch=epoch), subresource="status")

    async def event(self, guest: VirtualGuest, *, reason: str, message: str, warning: bool) -> None:
        """Hands an Event about the guest to the recorder, which posts it in the background."""
        meta = guest.metadata
        about = Regarding(api_version=API_VERSION, kind=KIND, namespace=meta.namespace, name=meta.name, uid=meta.uid)
        self._recorder.record(about, reason=reason, message=message, warning=warning)

    async def node_event(self, node: str, *, reason: str, message: str) -> None:
        """Hands a warning Event about the Node to the recorder."""
        # kubectl describe node looks for the name where other kinds have a uid, as the kubelet writes it.
        about = Regarding(api_version="v1", kind="Node", namespace="", name=node, uid=node)
        self._recorder.record(about, reason=reason, message=message, warning=True)

    async def _patch(
        self, guest: VirtualGuest, operations: Sequence[Operation], *, subresource: str | None
    ) -> VirtualGuest:
        return _present(guest, await self._client.send(self._request(guest, operations, subresource=subresource)))

    def _request(self, guest: VirtualGuest, operations: Sequence[Operation], *, subresource: str | None) -> Request:
        return Request(
            verb="patch",
            resource=GUESTS,
            namespace=guest.metadata.namespace,
            name=guest.metadata.name,
            subresource=subresource,
            params={"fieldManager": FIELD_MANAGER},
            body=operations,
            content_type=JSON_PATCH,
        )


def _present(guest: VirtualGuest, body: Body | None) -> VirtualGuest:
    if body is None:
        raise NotNow("Conflict", f"{guest.metadata.namespace}/{guest.metadata.name} is gone")
    return parse_guest(body)

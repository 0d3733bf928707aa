"""What a kubelet would do for the Node object where there is none: Ready, addresses, capacity, labels, the node Lease.

Used only with ``registerNode: true``. It must never create or delete a Node (that is the administrator's), nor touch
labels, taints or conditions that are not its own.
"""

import asyncio
import logging
import platform
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from guestlet.api.quantity import parse_quantity
from guestlet.errors import GuestletError, NotNow
from guestlet.kube.client import MERGE_PATCH, Body, KubeApi, Request
from guestlet.kube.guests import rfc3339
from guestlet.kube.lease import RENEW_EVERY_S
from guestlet.kube.resources import LEASES, NODES

log = logging.getLogger(__name__)

NODE_LEASE_NAMESPACE = "kube-node-lease"
_LEASE_SECONDS = 40
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOffer:
    """What the machine offers guests; bytes and CPUs."""

    name: str
    cpus: int
    memory_bytes: int
    memory_reserved_bytes: int


class NodeRegistration:
    """Keeps one Node object true. ``clock`` gives seconds since the epoch."""

    def __init__(self, api: KubeApi, *, offer: NodeOffer, clock: Callable[[], float]) -> None:
        self._api = api
        self._offer = offer
        self._clock = clock
        self._lease: Body | None = None

    async def run(self, *, stop: asyncio.Event) -> None:
        """Renews the node Lease every ten seconds and mends the Node when it says something else, until ``stop``."""
        while not stop.is_set():
            try:
                await self.beat()
            except GuestletError as error:
                self._lease = None
                log.debug("the Node %s was not kept: %s", self._offer.name, error)
            try:
                async with asyncio.timeout(RENEW_EVERY_S):
                    await stop.wait()
            except TimeoutError:
                continue

    async def beat(self) -> None:
        """One renewal, and a look at the Node itself: the node-lifecycle controller may have called it lost.

        Raises:
            NotNow: the API server does not answer, or somebody wrote first.
        """
        await self._renew()
        node = await self._api.get(NODES, name=self._offer.name, fresh=False)
        if node is None:
            raise NotNow("NoSuchNode", f"there is no Node {self._offer.name}: create it, as hack/up does")
        await self._mend(node)

    async def _mend(self, node: Body) -> None:
        labels = _missing(node["metadata"].get("labels") or {}, self._labels())
        if labels:
            await self._patch({"metadata": {"labels": labels}}, subresource=None)
        live = node.get("status") or {}
        status = _missing(live, {"addresses": self._addresses()})
        for field, offered in self._resources().items():
            if not _same_amounts(live.get(field) or {}, offered):
                status[field] = offered
        condition = self._ready(node)
        if condition is not None:
            status["conditions"] = [condition, *_others(node)]
        if status:
            await self._patch({"status": status}, subresource="status")

    def _labels(self) -> Mapping[str, str]:
        machine = platform.machine()
        return {
            "kubernetes.io/hostname": self._offer.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _ARCHITECTURES.get(machine, machine),
        }

    def _resources(self) -> Mapping[str, Mapping[str, str]]:
        offer = self._offer
        allocatable = max(offer.memory_bytes - offer.memory_reserved_bytes, 0)
        return {
            "capacity": {"cpu": str(offer.cpus), "memory": f"{offer.memory_bytes // 1024}Ki", "pods": "110"},
            "allocatable": {"cpu": str(offer.cpus), "memory": f"{allocatable // 1024}Ki", "pods": "110"},
        }

    def _addresses(self) -> list[Mapping[str, str]]:
        return [
            {"type": "InternalIP", "address": _own_address()},
            {"type": "Hostname", "address": socket.gethostname()},
        ]

    def _ready(self, node: Body) -> Body | None:
        """The Ready condition to write, or ``None`` while the live one is true."""
        conditions = (node.get("status") or {}).get("conditions") or ()
        live: Body = next((one for one in conditions if one["type"] == "Ready"), {})
        if live.get("status") == "True" and live.get("reason") == "GuestletAgentReady":
            return None
        now = rfc3339(self._clock())
        return {
            "type": "Ready",
            "status": "True",
            "reason": "GuestletAgentReady",
            "message": "the guestlet agent renews this node's Lease",
            "lastHeartbeatTime": now,
            "lastTransitionTime": live.get("lastTransitionTime") if live.get("status") == "True" else now,
        }

    async def _patch(self, body: Body, *, subresource: str | None) -> None:
        await self._api.send(
            Request(
                verb="patch",
                resource=NODES,
                name=self._offer.name,
                subresource=subresource,
                body=body,
                content_type=MERGE_PATCH,
            )
        )

    async def _renew(self) -> None:
        name = self._offer.name
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": _LEASE_SECONDS,
            "renewTime": rfc3339(self._clock()).replace("Z", ".000000Z"),
        }
        if self._lease is None:
            self._lease = await self._api.get(LEASES, namespace=NODE_LEASE_NAMESPACE, name=name)
        if self._lease is None:
            meta = {"name": name, "namespace": NODE_LEASE_NAMESPACE}
            body: Body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
            request = Request(verb="create", resource=LEASES, namespace=NODE_LEASE_NAMESPACE, body=body)
        else:
            body = {**self._lease, "spec": {**(self._lease.get("spec") or {}), **spec}}
            request = Request(verb="update", resource=LEASES, namespace=NODE_LEASE_NAMESPACE, name=name, body=body)
        self._lease = await self._api.send(request)


def _missing(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in wanted.items() if live.get(key) != value}


def _same_amounts(live: Mapping[str, str], offered: Mapping[str, str]) -> bool:
    """Whether the amounts are equal; the server writes them in its own canonical way."""
    return all(key in live and _amount(live[key]) == _amount(offered[key]) for key in offered)


def _amount(text: str) -> int | str:
    try:
        return parse_quantity(text)
    except ValueError:
        return text  # a fraction of a CPU: never what is offered here


def _others(node: Body) -> list[Body]:
    return [one for one in (node.get("status") or {}).get("conditions") or () if one["type"] != "Ready"]


def _own_address() -> str:
    """The address other hosts would reach this one by; nothing is sent for a UDP connect."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])

"""What the cluster says, as values: Leases, Nodes, and a glance at a guest. Parsing only, no effects."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from guestlet.api.quantity import parse_quantity
from guestlet.kube.client import Body

FINALIZER: Final = "guestlet.io/agent"
AGENT_LEASE_PREFIX: Final = "guestlet-agent-"
HOSTNAME_ANNOTATION: Final = "guestlet.io/hostname"
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseFacts:
    """What a Lease says. ``renewed_at`` is seconds since the epoch by the holder's clock; 0 when never."""

    name: str
    holder: str
    renewed_at: float
    hostname: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """What a Node says; ``allocatable_memory_bytes`` is ``None`` when it says nothing about memory."""

    name: str
    allocatable_memory_bytes: int | None
    unschedulable: bool
    out_of_service: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSighting:
    """A glance at a guest, from an event or a list: where it is, what it weighs, its resourceVersion."""

    namespace: str
    name: str
    version: str
    node: str | None
    memory_bytes: int
    halted: bool
    deleting: bool


def agent_lease_name(node: str) -> str:
    """Name of the Lease that says who runs the guests of ``node``."""
    return f"{AGENT_LEASE_PREFIX}{node}"


def parse_lease(body: Body) -> LeaseFacts:
    """The facts of a Lease as the API server sends it."""
    meta, spec = body["metadata"], body.get("spec") or {}
    return LeaseFacts(
        name=meta["name"],
        holder=spec.get("holderIdentity") or "",
        renewed_at=_seconds(spec.get("renewTime")),
        hostname=(meta.get("annotations") or {}).get(HOSTNAME_ANNOTATION, ""),
    )


def parse_node(body: Body) -> ClusterNode:
    """The facts of a Node as the API server sends it."""
    spec = body.get("spec") or {}
    taints = {taint.get("key") for taint in spec.get("taints") or ()}
    allocatable = (body.get("status") or {}).get("allocatable") or {}
    return ClusterNode(
        name=body["metadata"]["name"],
        allocatable_memory_bytes=_bytes(allocatable.get("memory")),
        unschedulable=bool(spec.get("unschedulable")),
        out_of_service=OUT_OF_SERVICE in taints,
    )


def parse_sighting(body: Body) -> GuestSighting:
    """A glance at a VirtualGuest as the API server sends it; never fails on a spec it cannot read."""
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    return GuestSighting(
        namespace=meta["namespace"],
        name=meta["name"],
        version=meta.get("resourceVersion", ""),
        node=status.get("nodeName"),
        memory_bytes=_bytes((spec.get("memory") or {}).get("size")) or 0,
        halted=spec.get("runStrategy") == "Halted",
        deleting="deletionTimestamp" in meta,
    )


def _bytes(text: object) -> int | None:
    try:
        return None if text is None else parse_quantity(str(text))
    except ValueError:
        return None


def _seconds(text: object) -> float:
    return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else 0.0

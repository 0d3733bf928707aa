"""Guests and nodes to place."""

from typing import Any

from guestlet.api.guest import VirtualGuest, parse_guest
from guestlet.placement.liveness import Liveness
from guestlet.placement.plan import NodeView

GIB = 2**30


def guest(
    *,
    node: str | None = None,
    spec: dict[str, Any] | None = None,
    observed: int = -1,
    epoch: int | None = None,
    deleting: bool = False,
    finalizer: bool = True,
) -> VirtualGuest:
    meta: dict[str, Any] = {"name": "a", "namespace": "default", "uid": "u", "generation": 1, "resourceVersion": "7"}
    meta["finalizers"] = ["example.org/other", "guestlet.io/agent"] if finalizer else []
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status: dict[str, Any] = {"observedGeneration": observed}
    if node is not None:
        status["nodeName"] = node
    if epoch is not None:
        status["placementEpoch"] = epoch
    body = {"metadata": meta, "spec": {"memory": {"size": "1Gi"}, **(spec or {})}, "status": status}
    return parse_guest(body)


def node(name: str, *, free_gib: float | None = 8, agent: Liveness = Liveness.LIVE, **facts: bool) -> NodeView:
    return NodeView(
        name=name,
        exists=facts.get("exists", True),
        agent=agent,
        free_memory_bytes=None if free_gib is None else int(free_gib * GIB),
        unschedulable=facts.get("unschedulable", False),
        out_of_service=facts.get("out_of_service", False),
    )

"""What placement needs of the API server; ``guestlet.kube.cluster.KubeCluster`` is the real one."""

from typing import Protocol

from guestlet.api.base import Condition
from guestlet.api.guest import VirtualGuest
from guestlet.api.guest_status import Phase
from guestlet.kube.facts import ClusterNode, GuestSighting, LeaseFacts


class Cluster(Protocol):
    """The API server, seen by the controller. Every call has a deadline; no answer raises ``NotNow``."""

    async def read(self, namespace: str, name: str) -> VirtualGuest | None:
        """The guest, read live, or ``None`` when it does not exist."""

    async def sightings(self) -> tuple[GuestSighting, ...]:
        """A glance at every guest."""

    async def nodes(self) -> tuple[ClusterNode, ...]:
        """Every Node."""

    async def node(self, name: str) -> ClusterNode | None:
        """One Node, read live, or ``None`` when it does not exist."""

    async def agent_leases(self) -> tuple[LeaseFacts, ...]:
        """The Leases of all agents."""

    async def bind(self, guest: VirtualGuest, *, node: str, epoch: int) -> None:
        """Writes nodeName and placementEpoch into the status of a guest that has no node.

        Raises:
            NotNow: Conflict.
        """

    async def report(self, guest: VirtualGuest, *, conditions: tuple[Condition, ...], phase: Phase) -> None:
        """Replaces these conditions and the phase, tested on uid, resourceVersion and nodeName.

        Raises:
            NotNow: Conflict.
        """

    async def release(self, guest: VirtualGuest) -> None:
        """Takes the agents' finalizer off, tested on uid."""

    def event(self, guest: VirtualGuest, *, reason: str, message: str, warning: bool) -> None:
        """Queues an Event about the guest; never raises."""

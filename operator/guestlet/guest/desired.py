"""What is wanted of one guest: the API object reduced to the values that plans decide on. Pure."""

from dataclasses import dataclass

from guestlet.api.guest import VirtualGuest
from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.api.guest_status import VirtualGuestStatus

FINALIZER = "guestlet.io/agent"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class GuestKey:
    """Namespace and name: the key of a guest's queue."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """One VirtualGuest as its agent must know it: identity, placement, spec, and what was last published.

    ``spec`` and ``published`` are the frozen API models, parsed at the edge.
    """

    key: GuestKey
    uid: str
    generation: int
    deleting: bool
    has_finalizer: bool
    node: str | None
    epoch: int
    spec: VirtualGuestSpec
    published: VirtualGuestStatus


def build_guest(wire: VirtualGuest) -> Guest:
    """The guest that the API object describes."""
    meta, status = wire.metadata, wire.status
    return Guest(
        key=GuestKey(namespace=meta.namespace, name=meta.name),
        uid=meta.uid,
        generation=meta.generation,
        deleting=meta.deletion_timestamp is not None,
        has_finalizer=FINALIZER in meta.finalizers,
        node=status.node_name,
        epoch=status.placement_epoch or 0,
        spec=wire.spec,
        published=status,
    )

"""What every question about a change of the running machine is asked of: one look, and what may come of it. Pure."""

from dataclasses import dataclass

from guestlet.api.reasons import Reason
from guestlet.guest.actions import Action
from guestlet.guest.change.difference import Change
from guestlet.guest.desired import Guest
from guestlet.guest.observed import ChangeFailure, MonitorFacts, NetworkFacts, ObservedGuest, StorageFacts
from guestlet.guest.record import Aliases, Record, Run
from guestlet.guest.verdict import Statement
from guestlet.qemu.inventory import Inventory
from guestlet.qemu.machine import Machine
from guestlet.qemu.replies import RunState

# A change that failed is tried again after this time, or when the spec is edited: what was missing may be there then.
RETRY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A running guest with everything that a change is decided on; ``changes`` are those that its spec asks for."""

    guest: Guest
    observed: ObservedGuest
    monitor: MonitorFacts
    inventory: Inventory
    record: Record
    run: Run
    machine: Machine
    changes: tuple[Change, ...]
    now: float

    @property
    def aliases(self) -> Aliases:
        """What this QEMU calls our parts."""
        return self.run.aliases

    @property
    def cpus_run(self) -> bool:
        """Whether the guest can answer at all."""
        return self.monitor.run_state is RunState.RUNNING

    @property
    def storage(self) -> StorageFacts:
        """Pools and images; looked at whenever a change is wanted."""
        if self.observed.storage is None:
            raise ValueError("a change is planned only after storage was looked at")
        return self.observed.storage

    @property
    def network(self) -> NetworkFacts:
        """Bridges and scripts; looked at whenever a change is wanted."""
        if self.observed.network is None:
            raise ValueError("a change is planned only after the network was looked at")
        return self.observed.network

    def device(self, name: str) -> str:
        """The id or path by which this QEMU knows the part."""
        return self.aliases.devices.get(name, name)

    @property
    def closed_buses(self) -> frozenset[str]:
        """Buses that this QEMU knows by another name than the layout: nothing can be plugged into them."""
        makers = {each.id for each in self.machine.pci.controllers}
        return frozenset(makers & self.aliases.devices.keys())

    def has_device(self, name: str) -> bool:
        """Whether QEMU has the device, under our id or what it calls it.

        One without an id is there until it is seen to be gone, from the drives or from buses that are all numbered.
        """
        known = self.device(name)
        if name in self.inventory.devices or known in self.inventory.devices:
            return True
        if not known.startswith("/"):
            return False
        numbered = self.monitor.numbered
        return self.inventory.drive_of(known) is not None or numbered is None or name in numbered.seen

    def failure(self, field: str) -> ChangeFailure | None:
        """Why the change of this field failed a short while ago."""
        found = self.observed.failures.get(field)
        if found is None or found.generation != self.guest.generation or self.now - found.at >= RETRY_S:
            return None
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Something to do now for one field; when it fails, the failure is noted for that field."""

    field: str
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Working:
    """Nothing to do now: something is being waited for, and looked at again in ``wait_s`` if nothing wakes us."""

    statement: Statement
    wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """A person, or the guest, must act."""

    statement: Statement
    wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cold:
    """The running machine cannot be changed so; the next start can."""

    statement: Statement


Answer = Work | Working | Stuck | Cold


def working(field: str, reason: Reason, message: str, *, wait_s: float | None = None) -> Working:
    """An answer of these words."""
    return Working(statement=Statement(field=field, reason=reason, message=message), wait_s=wait_s)


def stuck(field: str, reason: Reason, message: str, *, wait_s: float | None = None) -> Stuck:
    """An answer of these words."""
    return Stuck(statement=Statement(field=field, reason=reason, message=message), wait_s=wait_s)


def cold(field: str, message: str) -> Cold:
    """An answer of these words."""
    return Cold(statement=Statement(field=field, reason=Reason.FIELDS_WAITING, message=message))

"""What was found of one guest on its node, as values. No effects: ``guest.observe`` fills them in."""

from collections.abc import Mapping
from dataclasses import dataclass

from guestlet.errors import Refused
from guestlet.host.accelerator import AcceleratorProbe
from guestlet.host.facts import Heard, ImageFacts, NodeFacts, PoolFacts, ProcessFacts
from guestlet.pci.address import PciAddress
from guestlet.pci.observed import Numbered
from guestlet.qemu.capabilities import Capabilities
from guestlet.qemu.inventory import Inventory
from guestlet.qemu.replies import RunState

ImageKey = tuple[str, str]  # pool, image


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageFacts:
    """Pools, images and firmware that the spec names. ``images`` holds a refusal where the name itself is bad;
    ``users`` names the other guest that has an image open for writing, ``needed`` says why an image must outlive its
    guest (looked at only when the guest is being deleted).
    """

    pools: Mapping[str, PoolFacts | None]
    images: Mapping[ImageKey, ImageFacts | Refused | None]
    users: Mapping[ImageKey, str]
    needed: Mapping[ImageKey, str]
    firmware: str | None
    firmware_present: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts:
    """Which of the bridges and scripts that the spec names exist."""

    bridges: frozenset[str]
    scripts: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorFacts:
    """What the guest's own QEMU said. ``mismatches`` compares QOM with the record's layout (asked while frozen);
    ``numbered`` is ``None`` while not asked or while the firmware has not numbered the buses; ``inventory`` is asked
    only when a change of the running machine is begun or wanted, and when QEMU cannot give it, ``inventory_error``
    says why. ``gone``: places of anonymous devices that are there no more.
    """

    run_state: RunState
    mismatches: tuple[str, ...]
    numbered: Numbered | None
    inventory: Inventory | None
    heard: Heard
    inventory_error: str | None = None
    gone: tuple[PciAddress, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeFailure:
    """A change of the running machine that an action failed to make in this agent's life; ``field`` names it.

    ``generation`` of the spec that asked for it, ``at`` in seconds since the epoch: a new generation, or some time,
    is a reason to try again.
    """

    field: str
    generation: int
    at: float
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedGuest:
    """One look at a guest. ``monitor`` is ``None`` without a process or while its monitor does not answer, and then
    ``monitor_error`` says why. ``storage`` and ``network`` are looked at only when a start may come.
    """

    node: NodeFacts
    capabilities: Capabilities
    accelerator: AcceleratorProbe
    committed_memory_bytes: int
    process: ProcessFacts
    exit_note: str | None
    monitor: MonitorFacts | None
    monitor_error: str | None
    storage: StorageFacts | None
    network: NetworkFacts | None
    failures: Mapping[str, ChangeFailure]

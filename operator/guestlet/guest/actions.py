"""The closed set of things that may be done to a guest: frozen values, one effect each. Pure.

``GUARDED`` actions end, start or change something that cannot be taken back: before each the object is read live and
compared (design: "Who may run the guest").
"""

from dataclasses import dataclass
from enum import StrEnum

from guestlet.guest.record import Record
from guestlet.host.facts import ProcessIdentity, ScriptRun, TapRequest
from guestlet.qemu.commands import Command
from guestlet.qemu.machine import Bandwidth, Disk, FileSource, Machine, Nic


@dataclass(frozen=True, slots=True, kw_only=True)
class AddFinalizer:
    """Makes deletion of the object wait for us; seen in metadata.finalizers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveFinalizer:
    """Lets the object go; seen by its absence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRecord:
    """Makes ``record`` what this node remembers; ``why`` is for people."""

    record: Record
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteDescription:
    """Writes the source description and the next start's script beside the record, and notes the generation."""

    record: Record
    machine: Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateImage:
    """Makes an image that never was; an existing one of that name is left alone and the action fails."""

    disk: str
    source: FileSource
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowImage:
    """Makes an image's virtual size ``size_bytes``; never smaller."""

    disk: str
    source: FileSource
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteImage:
    """Deletes an image that guestlet made; absent is fine."""

    pool: str
    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepImage:
    """Says in an Event why an image stays that was to be deleted with its guest."""

    pool: str
    image: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTap:
    """Makes a tap for the next launch; its descriptors pass to QEMU, and it vanishes with QEMU."""

    request: TapRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseTap:
    """Removes a tap that is left; absent is fine."""

    name: str


class ScriptEvent(StrEnum):
    """What a tap script is told in GUESTLET_EVENT."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTapScript:
    """Runs a tap script; a failing ``up`` refuses the start, a failing ``down`` is only told."""

    event: ScriptEvent
    nic: str
    run: ScriptRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Starts QEMU frozen and records the process; ``record.run`` has no identity yet. Seen by the pidfile's lock."""

    record: Record
    machine: Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLink:
    """Pulls or plugs a NIC's cable before the guest runs."""

    nic: str
    up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LendDisk:
    """Gives QEMU's user its rights on a disk's images before the running QEMU opens them; idempotent."""

    disk: Disk


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNode:
    """``blockdev-add`` of one node of a disk; seen in ``query-named-block-nodes``. The node's file is this node's
    business, so that only the act knows it.
    """

    machine: Machine
    disk: Disk
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNetdev:
    """``netdev_add``, with the descriptors of an open tap handed over; seen among the netdevs."""

    nic: Nic


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """One QMP command to the running QEMU; ``what`` it does, for people. Seen in the inventory."""

    command: Command
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskUnplug:
    """``device_del``: asks the guest to let go of a device; that it was asked before, or has let go, is fine. Seen by
    the device's absence.
    """

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTap:
    """Puts a tap on another bridge; the guest's link stays."""

    tap: str
    bridge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeTap:
    """Sets or takes away a tap's bandwidth limits."""

    tap: str
    bandwidth: Bandwidth | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """``cont``: the guest's CPUs run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """``stop``: the guest's CPUs stand still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerDown:
    """Presses the ACPI power button."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Presses the reset button."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """SIGKILL to exactly this process."""

    identity: ProcessIdentity
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimLogs:
    """Keeps the serial log within its bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Removes the guest's directories on the node, never an image; the record is gone."""


Action = (
    AddFinalizer
    | RemoveFinalizer
    | SaveRecord
    | WriteDescription
    | CreateImage
    | GrowImage
    | DeleteImage
    | KeepImage
    | OpenTap
    | CloseTap
    | RunTapScript
    | Launch
    | SetLink
    | LendDisk
    | AddNode
    | AddNetdev
    | Tell
    | AskUnplug
    | MoveTap
    | ShapeTap
    | Resume
    | Pause
    | PowerDown
    | Reset
    | Kill
    | TrimLogs
    | Forget
)

GUARDED = (Launch, Resume, Kill, PowerDown, Reset, CreateImage, GrowImage, DeleteImage, Forget)

# Not worth a line in the log: they repeat, or only note what another action did.
QUIET = (SaveRecord, WriteDescription, TrimLogs, AddFinalizer)

"""What the guest's room needs from outside, as protocols: the node (``GuestHost``) and the API server (``GuestApi``).

The real ones are ``guestlet.host.node.NodeHost`` and ``guestlet.kube.guests.KubeGuests``; the fakes of tests/fakes pass
the same contract tests (tests/contracts).
"""

from typing import Protocol

from guestlet.api.guest import VirtualGuest
from guestlet.api.guest_status import VirtualGuestStatus
from guestlet.host.accelerator import AcceleratorProbe
from guestlet.host.facts import (
    Heard,
    ImageFacts,
    NodeFacts,
    PoolFacts,
    ProcessFacts,
    ProcessIdentity,
    ScriptOutcome,
    ScriptRun,
    Surroundings,
    TapRequest,
)
from guestlet.host.ledger import Holding
from guestlet.qemu.capabilities import Capabilities
from guestlet.qemu.commands import Command
from guestlet.qemu.machine import Bandwidth, Disk, FileSource, HostPaths, Machine


class GuestHost(Protocol):
    """The node, seen from one guest. ``guest`` is the guest's record key (its uuid). Every call has a deadline."""

    @property
    def facts(self) -> NodeFacts:
        """What the node offers; read once at start."""

    @property
    def capabilities(self) -> Capabilities:
        """What the node's QEMU can do; read once a binary."""

    async def accelerator(self) -> AcceleratorProbe:
        """The timed probe of this node and boot."""

    def hold(self, guest: str, holding: Holding | None) -> None:
        """Tells what a guest holds of the node: memory, and images open for writing; ``None``: nothing."""

    async def committed_memory_bytes(self, *, excluding: str) -> int:
        """Sum of the memory that other guests hold."""

    # files of the guest: record.json, source.json, next.sh, …
    async def read_file(self, guest: str, name: str) -> bytes | None:
        """The whole file of the guest's state directory, or ``None``."""

    async def write_file(self, guest: str, name: str, data: bytes) -> None:
        """Durably (fsync, rename, fsync of the directory) replaces a file of the guest's state directory."""

    async def guests(self) -> tuple[str, ...]:
        """Keys of all state directories of guests, sorted."""

    async def forget(self, guest: str) -> None:
        """Removes the guest's state and runtime directories; never an image.

        Raises:
            Broken: a QEMU of the guest still runs.
        """

    # storage
    async def pool(self, name: str) -> PoolFacts | None:
        """The pool, or ``None`` when the node has none of that name."""

    async def image(self, pool: str, image: str) -> ImageFacts | None:
        """The image, or ``None``.

        Raises:
            Refused: ImageNameRefused, the name leads out of the pool or is not a plain file.
        """

    async def create_image(self, source: FileSource, size_bytes: int | None) -> None:
        """Creates an image crash-safely, never over an existing one; ``None``: the size of the backing image.

        Raises:
            Refused: NoSpace, ImageExists, PoolNotReady, BackingImageMissing.
        """

    async def grow_image(self, source: FileSource, size_bytes: int) -> None:
        """Makes the image's virtual size at least ``size_bytes``; never smaller.

        Raises:
            Refused: NoSpace, PoolNotReady, ImageMissing.
        """

    async def delete_image(self, pool: str, image: str) -> None:
        """Deletes an image; absent is fine."""

    async def image_in_use_elsewhere(self, pool: str, image: str, *, guest: str) -> str | None:
        """Label of another guest of this node that holds the image, or ``None``."""

    async def image_needed_elsewhere(self, pool: str, image: str, *, guest: str) -> str | None:
        """Why the image must stay although ``guest`` goes (another record, a backing chain, an open file), in words.

        Raises:
            Refused: ImageNameRefused.
        """

    async def firmware_code(self, image: str) -> bool:
        """Whether the named UEFI code image is in the node's firmware directories."""

    async def default_firmware(self) -> str | None:
        """Name of the UEFI code image the node uses for new guests."""

    # network
    async def bridge_exists(self, name: str) -> bool:
        """Whether the bridge exists on the node now."""

    async def script_exists(self, name: str) -> bool:
        """Whether the script is an executable regular file right in the scripts directory."""

    async def open_tap(self, guest: str, request: TapRequest) -> None:
        """Makes the tap, sets it up on its bridge, and keeps its descriptors for the guest's next launch."""

    async def close_tap(self, name: str) -> None:
        """Removes the tap if it is there."""

    async def run_script(self, run: ScriptRun) -> ScriptOutcome:
        """Runs a tap script with a time limit."""

    async def hand_over_tap(self, guest: str, request: TapRequest) -> tuple[str, ...]:
        """Passes the open tap's descriptors to the guest's running QEMU (``getfd``) and lets go of them here.

        Returns the names QEMU knows them by, one a queue, for ``netdev_add``.

        Raises:
            Refused: TapFailed, the tap was not opened. Unknown, Broken: as ``execute``.
        """

    async def move_tap(self, name: str, bridge: str) -> None:
        """Puts an existing tap on another bridge; again is fine.

        Raises:
            Refused: NoSuchBridge, TapFailed.
        """

    async def shape_tap(self, name: str, bandwidth: Bandwidth | None) -> None:
        """Sets the limits of an existing tap, or takes them away (``None``); again is fine.

        Raises:
            Refused: BandwidthUnsupported (the kernel cannot), TapFailed.
        """

    async def lend_disk(self, guest: str, disk: Disk) -> None:
        """Gives QEMU's user its rights on the disk's image and on every backing image; idempotent.

        Raises:
            Refused: ImageMissing, ImageNameRefused, BackingImageMissing.
        """

    # process and monitor
    def paths(self, guest: str, machine: Machine) -> HostPaths:
        """The node's paths and descriptors for this guest's command line."""

    async def process(self, guest: str) -> ProcessFacts:
        """What is found of the guest's QEMU: pidfile lock, launch note, pidfd and start time."""

    async def prepare_launch(self, guest: str, machine: Machine) -> None:
        """Makes directories, UEFI variables and rights on images and sockets for QEMU's uid; idempotent."""

    async def launch(self, guest: str, argv: tuple[str, ...], *, timeout_s: float) -> ProcessIdentity:
        """Starts QEMU through the launcher and waits until its monitor greets.

        Raises:
            Refused: QemuExited (with the end of its log).
            Unknown: QemuSilent, the deadline passed; it may run.
        """

    async def execute(self, guest: str, command: Command) -> object:
        """One QMP command to the guest's QEMU after checking that the socket's peer is that QEMU.

        Raises:
            Unknown: deadline passed or connection broke. Broken: QEMU refused the command.
        """

    async def kill(self, guest: str, identity: ProcessIdentity) -> None:
        """SIGKILL by pidfd, only to that very process; returns when it is gone (deadline: Unknown)."""

    def exit_note(self, guest: str) -> str | None:
        """Why QEMU said it would go (last SHUTDOWN event's reason: guest-shutdown, host-qmp-quit…), if it said so."""

    def heard(self, guest: str) -> Heard:
        """What the guest's QEMU said since the agent began to listen to it."""

    async def surroundings(self, identity: ProcessIdentity) -> Surroundings:
        """What the node knows of that process, which is a QEMU, beside its own answers.

        Raises:
            Refused: QemuMissing, it ended, or may not be looked at.
        """

    async def cmdline(self, identity: ProcessIdentity) -> tuple[str, ...] | None:
        """``/proc/<pid>/cmdline`` of that process."""

    async def trim_logs(self, guest: str) -> None:
        """Keeps the serial log within its bound."""


class GuestApi(Protocol):
    """The API server, seen from one guest. Reads are live (quorum). An unreachable server raises ``NotNow``."""

    async def read(self, namespace: str, name: str) -> VirtualGuest | None:
        """The object, or ``None`` when the server says NotFound."""

    async def add_finalizer(self, guest: VirtualGuest) -> VirtualGuest:
        """Adds ours by JSON patch tested on uid and resourceVersion; returns the new object.

        Raises:
            NotNow: Conflict, somebody wrote first: read and decide again.
        """

    async def remove_finalizer(self, guest: VirtualGuest) -> None:
        """Takes ours off, tested on uid; absent is fine."""

    async def apply_status(self, guest: VirtualGuest, status: VirtualGuestStatus) -> VirtualGuest:
        """Server-side apply by the manager guestlet-agent, guarded by the resourceVersion of ``guest``; never with
        nodeName and placementEpoch.

        Raises:
            NotNow: Conflict.
        """

    async def claim(self, guest: VirtualGuest, *, node: str, epoch: int) -> VirtualGuest:
        """Writes nodeName and placementEpoch into a status that has no nodeName (JSON patch with tests).

        Raises:
            NotNow: Conflict.
        """

    async def event(self, guest: VirtualGuest, *, reason: str, message: str, warning: bool) -> None:
        """An Event about the guest; never raises, never waits long."""

    async def node_event(self, node: str, *, reason: str, message: str) -> None:
        """A warning Event about the Node (orphans)."""

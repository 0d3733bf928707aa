"""The node as a guest's room needs it: one facade over the drivers of this folder.

It must never decide what a guest should be; it knows devices, files and processes, and keeps each call's promise.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from guestlet.api.reasons import Reason
from guestlet.errors import Broken, GuestletError, Refused
from guestlet.host import access, network
from guestlet.host.accelerator import AcceleratorProbe, probe_accelerator
from guestlet.host.capabilities import read_capabilities
from guestlet.host.facts import (
    ImageFacts,
    LaunchUser,
    NodeFacts,
    PoolFacts,
    ProcessFacts,
    ProcessIdentity,
    ScriptOutcome,
    ScriptRun,
    TapRequest,
)
from guestlet.host.files import DirectoryLock, read_if_there, trim_by_copy, write_atomically
from guestlet.host.firmware import Firmware
from guestlet.host.images import Images, Pool
from guestlet.host.inventory import node_facts
from guestlet.host.ledger import Holding, Ledger
from guestlet.host.places import Places, make_directory
from guestlet.host.preparation import prepare, tap_places
from guestlet.host.process import command_line
from guestlet.host.running import QemuProcesses, RawEvent
from guestlet.host.scripts import Scripts
from guestlet.host.trial import QemuProgram
from guestlet.qemu.capabilities import Capabilities
from guestlet.qemu.commands import Command
from guestlet.qemu.events import Event, Other, Shutdown, parse_event
from guestlet.qemu.machine import FileSource, HostPaths, Machine
from guestlet.settings import AgentSettings

SERIAL_LOG_LIMIT_BYTES = 1024 * 1024
_Part = TypeVar("_Part")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class NodeHost:
    """One node's host. ``on_event`` and ``on_exit`` wake a guest's worker: called in the loop, they must not raise."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        on_event: Callable[[str, Event], None] = lambda _guest, _event: None,
        on_exit: Callable[[str], None] = lambda _guest: None,
    ) -> None:
        self._settings = settings
        self._on_event = on_event
        self._on_exit = on_exit
        privileged = os.geteuid() == 0
        self._user = access.QemuUser(uid=settings.qemu_uid, gid=settings.qemu_gid) if privileged else None
        self._places = Places(state_dir=settings.state_dir.absolute(), runtime_dir=settings.runtime_dir.absolute())
        pools = tuple(Pool(name=each.name, path=each.path.absolute()) for each in settings.pools)
        self._images = Images(pools, qemu_img=settings.qemu_img, user=self._user)
        self._firmware = Firmware(settings.firmware_dirs)
        self._scripts = Scripts(settings.scripts_dir, timeout_s=settings.script_timeout_seconds)
        self._taps = network.Taps()
        self._ledger = Ledger()
        self._tap_numbers: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {}
        self._shutdown_reasons: dict[str, str] = {}
        self._lock = DirectoryLock(
            self._places.state_dir / "agent.lock", holder=f"agent {settings.node_name} (pid {os.getpid()})"
        )
        self._program = QemuProgram(
            binary=settings.qemu_binary,
            module_dir=settings.qemu_module_dir,
            data_dirs=settings.qemu_data_dirs,
            user=self._user,
        )
        self._probe: AcceleratorProbe | None = None
        self._facts: NodeFacts | None = None
        self._capabilities: Capabilities | None = None
        self._qemus: QemuProcesses | None = None

    async def start(self, *, reading: bool = False) -> None:
        """Takes the node's directories (not when only ``reading``) and learns what the node and its QEMU can do.

        Raises:
            Refused: StateDirectoryInUse (names the first agent), RuntimeDirTooLong, HostFailure, QemuMissing.
        """
        if not reading:
            await asyncio.to_thread(self._take_directories)
        try:
            await self._learn(reading=reading)
        except GuestletError:
            self._lock.release()
            raise

    async def _learn(self, *, reading: bool) -> None:
        self._facts = node_facts(self._settings)
        self._capabilities = await read_capabilities(self._program, cache_dir=self._places.state_dir)
        self._probe = await probe_accelerator(self._program, state_dir=self._places.state_dir)
        self._qemus = QemuProcesses(
            places=self._places,
            user=self._user,
            environment=self._environment(),
            on_event=self._event,
            on_exit=self._on_exit,
            reading=reading,
        )

    def _take_directories(self) -> None:
        self._places.make()
        for directory in (self._places.state_dir, self._places.runtime_dir):
            access.require_passage(directory, self._user)
        self._lock.acquire()
        self._images.remove_leftovers()

    def _environment(self) -> Mapping[str, str]:
        module_dir = self._settings.qemu_module_dir
        return {"PATH": _PATH, "LANG": "C"} | ({"QEMU_MODULE_DIR": str(module_dir)} if module_dir else {})

    async def close(self) -> None:
        """Lets go of everything; guests run on."""
        if self._qemus is not None:
            await self._qemus.close()
            self._qemus = None
        self._taps.close_all()
        self._lock.release()

    # the node

    @property
    def facts(self) -> NodeFacts:
        """What the node offers; read once at start."""
        return _started(self._facts)

    @property
    def capabilities(self) -> Capabilities:
        """What the node's QEMU can do; read once a binary."""
        return _started(self._capabilities)

    @property
    def launch_user(self) -> LaunchUser:
        """Whose rights QEMU runs with."""
        return LaunchUser.UNPRIVILEGED if self._user is not None else LaunchUser.AGENT

    async def accelerator(self) -> AcceleratorProbe:
        """The timed probe of this node and boot."""
        return _started(self._probe)

    def hold(self, guest: str, holding: Holding | None) -> None:
        """Tells what a guest holds of the node (from its record, at start and at each change); ``None``: nothing."""
        self._ledger.set(guest, holding)

    async def committed_memory_bytes(self, *, excluding: str) -> int:
        """Sum of guest memory over the running QEMUs of this node's other guests."""
        return self._ledger.committed_memory_bytes(excluding=excluding)

    # files of the guest

    async def read_file(self, guest: str, name: str) -> bytes | None:
        """The whole file of the guest's state directory, or ``None``."""
        return await asyncio.to_thread(read_if_there, self._file(guest, name))

    async def write_file(self, guest: str, name: str, data: bytes) -> None:
        """Durably replaces a file of the guest's state directory, which is made when it is missing."""
        await asyncio.to_thread(self._write_file, self._file(guest, name), data)

    def _write_file(self, path: Path, data: bytes) -> None:
        make_directory(path.parent, mode=0o711)
        write_atomically(path, data)

    def _file(self, guest: str, name: str) -> Path:
        if "/" in name or name.startswith("."):
            raise ValueError(f"{name!r} is not a plain file name")
        return self._places.of(guest).state / name

    async def guests(self) -> tuple[str, ...]:
        """Keys of all state directories of guests, sorted."""
        return await asyncio.to_thread(self._places.guests)

    async def forget(self, guest: str) -> None:
        """Removes the guest's state and runtime directories; never an image.

        Raises:
            Broken: HostFailure, a QEMU of the guest still runs.
        """
        running = (await self.process(guest)).running
        if running is not None:
            raise Broken(Reason.HOST_FAILURE, f"guest {guest} cannot be forgotten: its QEMU {running.pid} runs")
        self._taps.release(guest)
        self._ledger.set(guest, None)
        self._shutdown_reasons.pop(guest, None)
        await asyncio.to_thread(self._places.remove, guest)

    # storage

    async def pool(self, name: str) -> PoolFacts | None:
        """The pool, or ``None`` when the node has none of that name."""
        return await asyncio.to_thread(self._images.pool, name)

    async def image(self, pool: str, image: str) -> ImageFacts | None:
        """The image, or ``None``.

        Raises:
            Refused: ImageNameRefused, ImageCorrupt.
        """
        return await asyncio.to_thread(self._images.image, pool, image)

    async def create_image(self, source: FileSource, size_bytes: int | None) -> None:
        """Creates an image crash-safely, never over an existing one; ``None``: the size of the backing image.

        Raises:
            Refused: NoSpace, ImageExists, NoSuchPool, PoolNotReady, BackingImageMissing, ImageNameRefused.
        """
        await asyncio.to_thread(self._images.create, source, size_bytes)

    async def grow_image(self, source: FileSource, size_bytes: int) -> None:
        """Makes an image's virtual size at least ``size_bytes``; never smaller.

        Raises:
            Refused: ImageMissing, NoSpace. NotNow: ImageInUse.
        """
        await asyncio.to_thread(self._images.grow, source, size_bytes)

    async def delete_image(self, pool: str, image: str) -> None:
        """Deletes an image; absent is fine.

        Raises:
            Refused: ImageNameRefused. NotNow: ImageInUse, a process has it open.
        """
        await asyncio.to_thread(self._images.delete, pool, image)

    async def image_in_use_elsewhere(self, pool: str, image: str, *, guest: str) -> str | None:
        """``namespace/name`` of another guest of this node that may write the image, or ``None``."""
        return self._ledger.writer((pool, image), excluding=guest)

    async def image_needed_elsewhere(self, pool: str, image: str, *, guest: str) -> str | None:
        """Why the image must stay although ``guest`` goes, in words; ``None``: nothing on this node needs it.

        Raises:
            Refused: ImageNameRefused.
        """
        other = self._ledger.namer((pool, image), excluding=guest)
        if other is not None:
            return f"guest {other} names it"
        return await asyncio.to_thread(self._images.user_of, pool, image)

    async def firmware_code(self, image: str) -> bool:
        """Whether the named UEFI code image is in the node's firmware directories."""
        return await asyncio.to_thread(self._firmware.code, image) is not None

    async def default_firmware(self) -> str | None:
        """Name of the UEFI code image the node uses for new guests."""
        return await asyncio.to_thread(self._firmware.default)

    # network

    async def bridge_exists(self, name: str) -> bool:
        """Whether the bridge exists on the node now."""
        return network.bridge_exists(name)

    async def script_exists(self, name: str) -> bool:
        """Whether the script is an executable regular file right in the scripts directory."""
        return self._scripts.exists(name)

    async def open_tap(self, guest: str, request: TapRequest) -> None:
        """Makes the tap, sets it up on its bridge, and keeps its descriptors for the guest's next launch.

        Raises:
            Refused: NoSuchBridge, TapFailed.
        """
        self._taps.open(guest, request)

    async def close_tap(self, name: str) -> None:
        """Removes the tap if it is there.

        Raises:
            Broken: HostFailure, the interface is not a tap.
        """
        self._taps.close(name)

    async def run_script(self, run: ScriptRun) -> ScriptOutcome:
        """Runs a tap script with a time limit.

        Raises:
            Refused: NoSuchScript, ScriptFailed.
        """
        return await self._scripts.run(run)

    # process and monitor

    def paths(self, guest: str, machine: Machine) -> HostPaths:
        """The node's paths and descriptors for this guest's command line."""
        place = self._places.of(guest)
        code = self._firmware.code(machine.firmware_image) if machine.firmware_image else None
        return HostPaths(
            binary=str(self._settings.qemu_binary),
            data_dirs=tuple(map(str, self._settings.qemu_data_dirs)),
            state_dir=str(place.state),
            runtime_dir=str(place.runtime),
            pools=self._images.paths,
            firmware_code=str(code) if code is not None else None,
            tap_fds={network: numbers for network, (_, numbers) in tap_places(machine).items()},
        )

    async def process(self, guest: str) -> ProcessFacts:
        """What is found of the guest's QEMU: launch note, pidfile lock, socket; and how the last one ended."""
        return await _started(self._qemus).find(guest)

    async def prepare_launch(self, guest: str, machine: Machine) -> None:
        """Makes directories, UEFI variables and rights on images for QEMU's uid; idempotent.

        Raises:
            Refused: ImageMissing, ImageNameRefused, BackingImageMissing, FirmwareMissing, HostFailure.
        """
        self._tap_numbers[guest] = tuple(tap_places(machine).values())
        place = self._places.of(guest)
        await asyncio.to_thread(prepare, machine, place, images=self._images, firmware=self._firmware, user=self._user)

    async def launch(self, guest: str, argv: tuple[str, ...], *, timeout_s: float) -> ProcessIdentity:
        """Starts QEMU through the launcher, with the descriptors of its taps, and waits until its monitor greets.

        Raises:
            Refused: QemuExited (with the end of its log), LaunchFailed, TapFailed.
            Unknown: QemuSilent, QemuUnknown: it may run.
        """
        self._shutdown_reasons.pop(guest, None)
        fds: list[tuple[int, int]] = []
        for tap, numbers in self._tap_numbers.get(guest, ()):
            held = self._taps.fds(tap)
            if len(held) != len(numbers):
                raise Refused(Reason.TAP_FAILED, f"tap {tap} was not opened for this launch")
            fds += zip(held, numbers, strict=True)
        try:
            return await _started(self._qemus).launch(guest, argv, fds=tuple(fds), timeout_s=timeout_s)
        finally:
            self._taps.release(guest)

    async def execute(self, guest: str, command: Command) -> object:
        """One QMP command to the guest's QEMU after checking that the socket's peer is that QEMU.

        Raises:
            Unknown: deadline passed or connection broke. Broken: QmpRefused, or a foreign process listens.
        """
        return await _started(self._qemus).execute(guest, command)

    async def kill(self, guest: str, identity: ProcessIdentity) -> None:
        """SIGKILL by pidfd, only to that very process; returns when it is gone.

        Raises:
            Unknown: QemuUnknown, the deadline passed.
        """
        await _started(self._qemus).kill(guest, identity)

    def exit_note(self, guest: str) -> str | None:
        """Why QEMU said it would go: the reason of its last SHUTDOWN event, if this agent heard one."""
        return self._shutdown_reasons.get(guest)

    async def cmdline(self, identity: ProcessIdentity) -> tuple[str, ...] | None:
        """``/proc/<pid>/cmdline`` of that process."""
        return command_line(identity)

    async def trim_logs(self, guest: str) -> None:
        """Keeps the serial log within its bound."""
        path = self._places.of(guest).serial_log
        await asyncio.to_thread(trim_by_copy, path, limit_bytes=SERIAL_LOG_LIMIT_BYTES)

    async def stop_launcher(self) -> bool:
        """Ends the launcher, for taking a node down; says whether there was one. QEMUs run on."""
        return await _started(self._qemus).stop_launcher()

    def _event(self, guest: str, raw: RawEvent) -> None:
        try:
            event = parse_event(raw)
        except Broken:
            # Not readable is still a reason to look again; the session must not break over it.
            event = Other(at_s=0.0, name=str(raw.get("event")))
        if isinstance(event, Shutdown):
            self._shutdown_reasons[guest] = event.reason
        self._on_event(guest, event)


def _started(part: _Part | None) -> _Part:
    if part is None:
        raise RuntimeError("NodeHost.start() comes first")
    return part

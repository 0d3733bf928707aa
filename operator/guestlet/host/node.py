"""The node as a guest's room needs it: one facade over the drivers of this folder.

It must never decide what a guest should be; it knows devices, files and processes, and keeps each call's promise.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from guestlet.api.reasons import Reason
from guestlet.errors import Broken, GuestletError, Refused, Unknown
from guestlet.host import access, process
from guestlet.host.accelerator import AcceleratorProbe, probe_accelerator
from guestlet.host.adoption import take_in
from guestlet.host.capabilities import read_capabilities
from guestlet.host.facts import (
    Heard,
    LaunchUser,
    NodeFacts,
    ProcessFacts,
    ProcessIdentity,
    Surroundings,
    TapRequest,
)
from guestlet.host.files import DirectoryLock, read_if_there, trim_by_copy, write_atomically
from guestlet.host.foreign import look_at
from guestlet.host.hearing import Hearing
from guestlet.host.inventory import node_facts
from guestlet.host.node_network import NodeNetwork
from guestlet.host.node_storage import NodeStorage
from guestlet.host.places import Places, make_directory
from guestlet.host.preparation import lend_disk, prepare, tap_places
from guestlet.host.running import QemuProcesses, RawEvent
from guestlet.host.trial import QemuProgram
from guestlet.qemu import commands
from guestlet.qemu.capabilities import Capabilities
from guestlet.qemu.commands import Command
from guestlet.qemu.events import Event, Other, parse_event
from guestlet.qemu.machine import Disk, HostPaths, Machine
from guestlet.settings import AgentSettings

SERIAL_LOG_LIMIT_BYTES = 1024 * 1024
_Part = TypeVar("_Part")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class NodeHost(NodeStorage, NodeNetwork):
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
        NodeStorage.__init__(self, settings, self._user)
        NodeNetwork.__init__(self, settings)
        self._places = Places(state_dir=settings.state_dir.absolute(), runtime_dir=settings.runtime_dir.absolute())
        self._tap_numbers: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {}
        self._handed_over: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._hearing = Hearing()
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
            on_exit=self._ended,
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
        self._hearing.forget(guest)
        await asyncio.to_thread(self._places.remove, guest)

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

    async def take_in(
        self, guest: str, identity: ProcessIdentity, *, monitor: Path, observer: Path | None = None
    ) -> None:
        """Makes a QEMU that somebody else started the guest's; ``monitor`` is its own QMP socket. Again is fine.

        Raises:
            Refused: QemuExited, the process is gone.
        """
        self._hearing.forget(guest)
        place = self._places.of(guest)
        await asyncio.to_thread(take_in, place, identity, monitor=monitor, observer=observer)

    async def launch(self, guest: str, argv: tuple[str, ...], *, timeout_s: float) -> ProcessIdentity:
        """Starts QEMU through the launcher, with the descriptors of its taps, and waits until its monitor greets.

        Raises:
            Refused: QemuExited (with the end of its log), LaunchFailed, TapFailed.
            Unknown: QemuSilent, QemuUnknown: it may run.
        """
        self._hearing.forget(guest)
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
        self._hearing.sent(guest, command)
        return await _started(self._qemus).execute(guest, command)

    async def hand_over_tap(self, guest: str, request: TapRequest) -> tuple[str, ...]:
        """Passes an open tap's descriptors to the guest's running QEMU and lets go of them: it vanishes with QEMU.

        Returns the names QEMU knows them by, one a queue; an older descriptor of such a name is closed by QEMU.

        Raises:
            Refused: TapFailed, the tap was not opened; else as ``execute``, and the tap is still ours.
        """
        fds = self._taps.fds(request.name)
        if len(fds) != request.queues:
            raise Refused(Reason.TAP_FAILED, f"tap {request.name} was not opened for QEMU")
        names = tuple(f"{request.name}-{queue}" for queue in range(request.queues))
        self._handed_over[request.name] = (guest, names)
        for name, fd in zip(names, fds, strict=True):
            await _started(self._qemus).execute(guest, commands.getfd(name), descriptor=fd)
        self._taps.let_go(request.name)
        return names

    async def close_tap(self, name: str) -> None:
        """Removes the tap if it is there, and what its QEMU was given of it and did not take.

        Raises:
            Broken: HostFailure, the interface is not a tap.
        """
        await super().close_tap(name)
        guest, names = self._handed_over.pop(name, ("", ()))
        for each in names:
            # Taken by netdev_add, or gone with that QEMU: both are well.
            with contextlib.suppress(Broken, Unknown):
                await _started(self._qemus).execute(guest, commands.closefd(each))

    async def lend_disk(self, guest: str, disk: Disk) -> None:
        """Gives the guest's QEMU its rights on a disk's image and on every backing image; idempotent.

        Raises:
            Refused: ImageMissing, ImageNameRefused, BackingImageMissing, ImageCorrupt, HostFailure.
        """
        running = (await self.process(guest)).running
        user = self._user_of(running) if running is not None else self._user
        await asyncio.to_thread(lend_disk, disk, images=self._images, user=user)

    def _user_of(self, running: ProcessIdentity) -> access.QemuUser | None:
        """One that somebody else started has rights of its own choice; root needs none from us."""
        ids = process.user_of(running) if self._user is not None else None
        if ids is None or ids[0] == 0:
            return None if ids is not None else self._user
        return access.QemuUser(uid=ids[0], gid=ids[1])

    async def kill(self, guest: str, identity: ProcessIdentity) -> None:
        """SIGKILL by pidfd, only to that very process; returns when it is gone.

        Raises:
            Unknown: QemuUnknown, the deadline passed.
        """
        await _started(self._qemus).kill(guest, identity)

    def exit_note(self, guest: str) -> str | None:
        """Why QEMU said it would go: the reason of its last SHUTDOWN event, if this agent heard one."""
        return self._hearing.farewell(guest)

    def heard(self, guest: str) -> Heard:
        """What the guest's QEMU said since this agent began to listen to it."""
        return self._hearing.heard(guest)

    async def surroundings(self, identity: ProcessIdentity) -> Surroundings:
        """What the node knows of that process, which is a QEMU, beside its own answers.

        Raises:
            Refused: QemuMissing, it ended, or may not be looked at.
        """
        found = await asyncio.to_thread(look_at, identity.pid)
        if found.identity != identity:
            raise Refused(Reason.QEMU_MISSING, f"process {identity.pid} is another by now")
        pools = self._settings.pools
        return Surroundings(
            argv=found.argv,
            folder=found.folder,
            taps=found.taps,
            bridges=found.bridges,
            pools={str(path): each.name for each in pools for path in (each.path.absolute(), each.path.resolve())},
        )

    async def cmdline(self, identity: ProcessIdentity) -> tuple[str, ...] | None:
        """``/proc/<pid>/cmdline`` of that process."""
        return process.command_line(identity)

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
        self._hearing.take(guest, event)
        self._on_event(guest, event)

    def _ended(self, guest: str) -> None:
        self._hearing.ended(guest)
        self._handed_over = {name: held for name, held in self._handed_over.items() if held[0] != guest}
        self._on_exit(guest)


def _started(part: _Part | None) -> _Part:
    if part is None:
        raise RuntimeError("NodeHost.start() comes first")
    return part

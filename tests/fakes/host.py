"""A node in memory that keeps the promises of ``GuestHost``, with a journal of effects and faults between them.

What a real node keeps when its agent dies (files, images, QEMUs) survives ``restart_agent``; the rest does not.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

from fakes.qemu import FakeQemu
from guestlet.errors import Broken, GuestletError, Refused, Unknown
from guestlet.host.accelerator import AcceleratorProbe
from guestlet.host.facts import (
    ExitFacts,
    ImageFacts,
    NodeFacts,
    PoolFacts,
    ProcessFacts,
    ProcessIdentity,
    ScriptOutcome,
    ScriptRun,
    TapRequest,
)
from guestlet.host.images import require_plain_name
from guestlet.host.ledger import Holding, Ledger
from guestlet.host.preparation import tap_places
from guestlet.qemu.capabilities import Capabilities
from guestlet.qemu.commands import Command
from guestlet.qemu.machine import FileSource, FirmwareType, HostPaths, Machine

_OVERHEAD_BYTES = 200 * 1024


class Moment(StrEnum):
    """When a fault strikes: the effect has not happened, or it has and nobody was told."""

    BEFORE = "before"
    AFTER = "after"


class AgentCrashed(BaseException):
    """The agent's process died here. No handler of errors may see it: catch it in the test, then restart the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """``error`` (or the agent's death) at effect number ``effect`` of the journal, counted from 0."""

    effect: int
    moment: Moment
    error: GuestletError | None = None  # None: the agent dies


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One thing that was done to the node: the method's name, the guest or thing, and what distinguishes it."""

    name: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.subject, self.detail)))


class LaunchFate(StrEnum):
    """What becomes of a launch."""

    GREETS = "greets"
    EXITS = "exits"
    SILENT = "silent"


class FakeHost:
    """One node. Turn it by its attributes: ``pools``, ``images``, ``bridges``, ``scripts``, ``firmware``, ``fates``."""

    def __init__(
        self, *, facts: NodeFacts, capabilities: Capabilities, probe: AcceleratorProbe, clock: Callable[[], float]
    ) -> None:
        self._facts = facts
        self._capabilities = capabilities
        self.probe = probe
        self._clock = clock
        self._pids = itertools.count(1000)
        self._ledger = Ledger()
        self.files: dict[tuple[str, str], bytes] = {}
        self.pools: dict[str, PoolFacts] = {}
        self.images: dict[tuple[str, str], ImageFacts] = {}
        self.bridges: set[str] = set(facts.bridges)
        self.scripts: dict[str, ScriptOutcome] = {}
        self.script_runs: list[ScriptRun] = []
        self.firmware: tuple[str, ...] = ("OVMF_CODE_4M.fd",)
        self.taps: dict[str, str] = {}  # name → guest, until QEMU has it
        self.fates: dict[str, LaunchFate] = {}
        self.qemus: dict[str, FakeQemu] = {}
        self.prepared: dict[str, Machine] = {}
        self.exits: dict[str, ExitFacts] = {}
        self._exit_words: dict[str, str] = {}
        self.journal: list[Effect] = []
        self.commands: list[tuple[str, str]] = []
        self.faults: tuple[Fault, ...] = ()
        self.on_exit: Callable[[str], None] = lambda _guest: None

    # what tests do to the node

    def restart_agent(self) -> None:
        """The agent's process is a new one: taps not handed over, words heard and the ledger are gone."""
        self.taps.clear()
        self._exit_words.clear()
        self._ledger = Ledger()
        self.faults = ()

    def add_pool(self, name: str, *, identity: str | None = "pool-1", free_bytes: int = 1 << 40) -> None:
        """A pool of the node; without identity it is not mounted."""
        self.pools[name] = PoolFacts(name=name, identity=identity, free_bytes=free_bytes)

    def end_qemu(self, guest: str, *, code: int | None = 0, signal: int | None = None, word: str | None = None) -> None:
        """The guest's QEMU ends: with a code or by a signal, or unseen (neither)."""
        qemu = self.qemus.pop(guest)
        if word is not None:
            self._exit_words[guest] = word
        self.exits[guest] = ExitFacts(
            identity=qemu.identity, code=code, signal=signal, at=self._clock(), log_tail="" if code == 0 else "aborted"
        )
        self.on_exit(guest)

    def reboot(self) -> None:
        """Every process is gone, unseen."""
        for guest in sorted(self.qemus):
            self.end_qemu(guest, code=None)
        self.restart_agent()

    @contextmanager
    def _effect(self, name: str, subject: str, detail: str = "") -> Iterator[None]:
        number = len(self.journal)
        self.journal.append(Effect(name=name, subject=subject, detail=detail))
        self._strike(number, Moment.BEFORE)
        yield
        self._strike(number, Moment.AFTER)

    def _strike(self, number: int, moment: Moment) -> None:
        for fault in self.faults:
            if (fault.effect, fault.moment) == (number, moment):
                raise fault.error if fault.error is not None else AgentCrashed(str(self.journal[number]))

    # the node

    @property
    def facts(self) -> NodeFacts:
        return self._facts

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def accelerator(self) -> AcceleratorProbe:
        return self.probe

    def hold(self, guest: str, holding: Holding | None) -> None:
        self._ledger.set(guest, holding)

    async def committed_memory_bytes(self, *, excluding: str) -> int:
        return self._ledger.committed_memory_bytes(excluding=excluding)

    # files of the guest

    async def read_file(self, guest: str, name: str) -> bytes | None:
        return self.files.get((guest, name))

    async def write_file(self, guest: str, name: str, data: bytes) -> None:
        with self._effect("write_file", guest, name):
            self.files[guest, name] = data

    async def guests(self) -> tuple[str, ...]:
        return tuple(sorted({guest for guest, _ in self.files} | set(self.prepared)))

    async def forget(self, guest: str) -> None:
        with self._effect("forget", guest):
            if guest in self.qemus:
                raise Broken("HostFailure", f"guest {guest} cannot be forgotten: its QEMU runs")
            for key in [key for key in self.files if key[0] == guest]:
                del self.files[key]
            self.prepared.pop(guest, None)
            self.exits.pop(guest, None)
            self._ledger.set(guest, None)

    # storage

    async def pool(self, name: str) -> PoolFacts | None:
        return self.pools.get(name)

    async def image(self, pool: str, image: str) -> ImageFacts | None:
        if pool not in self.pools:
            return None
        require_plain_name(image)
        found = self.images.get((pool, image))
        writers = {
            (disk.source.pool, disk.source.image)
            for qemu in self.qemus.values()
            for disk in qemu.machine.disks
            if not (disk.read_only or disk.cdrom)
        }
        return replace(found, locked=found.locked or (pool, image) in writers) if found is not None else None

    async def create_image(self, source: FileSource, size_bytes: int | None) -> None:
        with self._effect("create_image", f"{source.pool}/{source.image}", str(size_bytes)):
            pool = self.pools.get(source.pool)
            if pool is None:
                raise Refused("NoSuchPool", f"this node has no pool {source.pool}")
            if pool.identity is None:
                raise Refused("PoolNotReady", f"pool {source.pool} has no identity file")
            if await self.image(source.pool, source.image) is not None:
                raise Refused("ImageExists", f"pool {source.pool} has an image {source.image} already")
            size_bytes = self._size_to_create(source, size_bytes)
            if pool.free_bytes < _OVERHEAD_BYTES:
                raise Refused("NoSpace", f"pool {source.pool} has no space left")
            self.images[source.pool, source.image] = ImageFacts(
                pool=source.pool,
                image=source.image,
                format=source.format,
                virtual_size_bytes=size_bytes,
                backing_image=source.backing_image,
                locked=False,
            )

    def _size_to_create(self, source: FileSource, size_bytes: int | None) -> int:
        if source.backing_image is not None:
            backing = self.images.get((source.pool, source.backing_image))
            if backing is None:
                raise Refused("BackingImageMissing", f"pool {source.pool} has no image {source.backing_image}")
            return backing.virtual_size_bytes if size_bytes is None else size_bytes
        if size_bytes is None:
            raise Broken("HostFailure", f"image {source.image} is to be created without a size")
        return size_bytes

    async def grow_image(self, source: FileSource, size_bytes: int) -> None:
        with self._effect("grow_image", f"{source.pool}/{source.image}", str(size_bytes)):
            found = self.images.get((source.pool, source.image))
            if found is None:
                raise Refused("ImageMissing", f"pool {source.pool} has no image {source.image}")
            size_bytes = max(size_bytes, found.virtual_size_bytes)
            self.images[source.pool, source.image] = replace(found, virtual_size_bytes=size_bytes)

    async def delete_image(self, pool: str, image: str) -> None:
        with self._effect("delete_image", f"{pool}/{image}"):
            require_plain_name(image)
            self.images.pop((pool, image), None)

    async def image_in_use_elsewhere(self, pool: str, image: str, *, guest: str) -> str | None:
        return self._ledger.writer((pool, image), excluding=guest)

    async def image_needed_elsewhere(self, pool: str, image: str, *, guest: str) -> str | None:
        other = self._ledger.namer((pool, image), excluding=guest)
        if other is not None:
            return f"guest {other} names it"
        backed = sorted(
            each.image for each in self.images.values() if each.pool == pool and each.backing_image == image
        )
        return f"image {backed[0]} is backed by it" if backed else None

    async def firmware_code(self, image: str) -> bool:
        return image in self.firmware

    async def default_firmware(self) -> str | None:
        return self.firmware[0] if self.firmware else None

    # network

    async def bridge_exists(self, name: str) -> bool:
        return name in self.bridges

    async def script_exists(self, name: str) -> bool:
        return name in self.scripts

    async def open_tap(self, guest: str, request: TapRequest) -> None:
        with self._effect("open_tap", guest, request.name):
            if request.bridge is not None and request.bridge not in self.bridges:
                raise Refused("NoSuchBridge", f"the node has no bridge {request.bridge}")
            self.taps[request.name] = guest

    async def close_tap(self, name: str) -> None:
        with self._effect("close_tap", name):
            self.taps.pop(name, None)

    async def run_script(self, run: ScriptRun) -> ScriptOutcome:
        with self._effect("run_script", run.script, dict(run.environment).get("GUESTLET_EVENT", "")):
            if run.script not in self.scripts:
                raise Refused("NoSuchScript", f"the node's scripts directory has no executable file {run.script}")
            self.script_runs.append(run)
            return self.scripts[run.script]

    # process and monitor

    def paths(self, guest: str, machine: Machine) -> HostPaths:
        firmware = f"/firmware/{machine.firmware_image}" if machine.firmware is FirmwareType.UEFI else None
        return HostPaths(
            binary=self._facts.qemu_binary,
            data_dirs=(),
            state_dir=f"/state/{guest}",
            runtime_dir=f"/run/{guest}",
            pools={name: f"/pools/{name}" for name in sorted(self.pools)},
            firmware_code=firmware,
            tap_fds={network: numbers for network, (_, numbers) in tap_places(machine).items()},
        )

    async def process(self, guest: str) -> ProcessFacts:
        qemu = self.qemus.get(guest)
        return ProcessFacts(running=qemu.identity if qemu else None, last_exit=self.exits.get(guest))

    async def prepare_launch(self, guest: str, machine: Machine) -> None:
        with self._effect("prepare_launch", guest):
            for disk in machine.disks:
                if (disk.source.pool, disk.source.image) not in self.images:
                    raise Refused("ImageMissing", f"pool {disk.source.pool} has no image {disk.source.image}")
            self.prepared[guest] = machine

    async def launch(self, guest: str, argv: tuple[str, ...], *, timeout_s: float) -> ProcessIdentity:
        with self._effect("launch", guest):
            if guest in self.qemus:
                raise Unknown("QemuUnknown", "a QEMU of this guest runs already")
            machine = self.prepared[guest]
            missing = [tap for tap, _ in tap_places(machine).values() if self.taps.get(tap) != guest]
            if missing:
                raise Refused("TapFailed", f"tap {missing[0]} was not opened for this launch")
            self._exit_words.pop(guest, None)
            pid = next(self._pids)
            identity = ProcessIdentity(pid=pid, start_ticks=pid * 10)
            qemu = FakeQemu(
                identity=identity,
                machine=machine,
                argv=argv,
                end=lambda code, word: self.end_qemu(guest, code=code, word=word),
            )
            self.qemus[guest] = qemu
            self.taps = {name: owner for name, owner in self.taps.items() if owner != guest}
            self._settle(guest, qemu, timeout_s)
        return identity

    def _settle(self, guest: str, qemu: FakeQemu, timeout_s: float) -> None:
        fate = self.fates.get(guest, LaunchFate.GREETS)
        if fate is LaunchFate.EXITS:
            self.end_qemu(guest, code=1)
            raise Refused("QemuExited", "QEMU ended before it was ready, with code 1: aborted")
        if fate is LaunchFate.SILENT:
            qemu.switches.silent = True
            raise Unknown("QemuSilent", f"QEMU did not open its monitor within {timeout_s:g} s")

    async def execute(self, guest: str, command: Command) -> object:
        if command.name.startswith(("query-", "qom-")):
            return self._answer(guest, command)
        with self._effect("execute", guest, command.name):
            return self._answer(guest, command)

    def _answer(self, guest: str, command: Command) -> object:
        self.commands.append((guest, command.name))
        qemu = self.qemus.get(guest)
        if qemu is None:
            raise Unknown("QemuUnknown", f"{command.name} was not sent: no QEMU of this guest runs")
        if qemu.switches.silent:
            raise Unknown("QemuSilent", "QEMU's monitor did not greet")
        return qemu.answer(command)

    async def kill(self, guest: str, identity: ProcessIdentity) -> None:
        with self._effect("kill", guest, str(identity.pid)):
            qemu = self.qemus.get(guest)
            if qemu is not None and qemu.identity == identity:
                self.end_qemu(guest, code=None, signal=9)

    def exit_note(self, guest: str) -> str | None:
        return self._exit_words.get(guest)

    async def cmdline(self, identity: ProcessIdentity) -> tuple[str, ...] | None:
        return next((qemu.argv for qemu in self.qemus.values() if qemu.identity == identity), None)

    async def trim_logs(self, guest: str) -> None:
        with self._effect("trim_logs", guest):
            return

"""A node in memory that keeps the promises of ``GuestHost``, with a journal of effects and faults between them.

What a real node keeps when its agent dies (files, images, QEMUs) survives ``restart_agent``; the rest does not.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

from fakes.qemu import FakeQemu
from guestlet.errors import Broken, GuestletError, Refused, Unknown
from guestlet.host.accelerator import AcceleratorProbe
from guestlet.host.facts import (
    ExitFacts,
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
from guestlet.host.hearing import Hearing
from guestlet.host.images import require_plain_name
from guestlet.host.ledger import Holding, Ledger
from guestlet.host.preparation import tap_places
from guestlet.qemu.capabilities import Capabilities
from guestlet.qemu.commands import Command
from guestlet.qemu.events import Other, Shutdown, parse_event
from guestlet.qemu.machine import Bandwidth, Disk, FileSource, FirmwareType, HostPaths, Machine
from guestlet.qemu.names import net_backend

_OVERHEAD_BYTES = 200 * 1024
_QUESTION = re.compile(r"query-.*|x-debug-query-.*|qom-get|qom-list|human-monitor-command")


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
        self.plugged_taps: dict[str, tuple[str, str]] = {}  # name → guest whose QEMU has it, netdev ("": none yet)
        self._handed_over: dict[str, str] = {}  # name → guest, as the agent remembers it
        self.tap_bridges: dict[str, str] = {}
        self.tap_limits: dict[str, Bandwidth] = {}
        self.can_limit_outbound = True
        self.images_made: set[tuple[str, str]] = set()  # images that are QEMU's from the beginning
        self.lent: set[tuple[str, str, str]] = set()  # guest, pool, image
        self.fates: dict[str, LaunchFate] = {}
        self.qemus: dict[str, FakeQemu] = {}
        self.prepared: dict[str, Machine] = {}
        self.exits: dict[str, ExitFacts] = {}
        self._hearing = Hearing()
        self.journal: list[Effect] = []
        self.commands: list[tuple[str, str]] = []
        self.faults: tuple[Fault, ...] = ()
        self.on_exit: Callable[[str], None] = lambda _guest: None

    # what tests do to the node

    def restart_agent(self) -> None:
        """The agent's process is a new one: taps not handed over, words heard and the ledger are gone."""
        for name in tuple(self.taps):
            self._remove_tap(name)
        self._handed_over.clear()
        self._hearing = Hearing()
        self._ledger = Ledger()
        self.faults = ()

    def add_pool(self, name: str, *, identity: str | None = "pool-1", free_bytes: int = 1 << 40) -> None:
        """A pool of the node; without identity it is not mounted."""
        self.pools[name] = PoolFacts(name=name, identity=identity, free_bytes=free_bytes)

    def end_qemu(self, guest: str, *, code: int | None = 0, signal: int | None = None, word: str | None = None) -> None:
        """The guest's QEMU ends: with a code or by a signal, or unseen (neither)."""
        qemu = self.qemus.pop(guest)
        if word is not None:
            farewell = Shutdown(at_s=self._clock(), guest=word.startswith("guest-"), reason=word)
            self._hearing.take(guest, farewell)
        self._hearing.ended(guest)
        for name in [name for name, (owner, _) in self.plugged_taps.items() if owner == guest]:
            self._remove_tap(name)
        self.exits[guest] = ExitFacts(
            identity=qemu.identity, code=code, signal=signal, at=self._clock(), log_tail="" if code == 0 else "aborted"
        )
        self.on_exit(guest)

    def reboot(self) -> None:
        """Every process is gone, unseen."""
        for guest in sorted(self.qemus):
            self.end_qemu(guest, code=None)
        self.restart_agent()

    def start_qemu(self, guest: str, machine: Machine, argv: tuple[str, ...]) -> FakeQemu:
        """A QEMU of the guest's runs, started by the agent or by anybody else."""
        pid = next(self._pids)
        qemu = FakeQemu(
            identity=ProcessIdentity(pid=pid, start_ticks=pid * 10),
            machine=machine,
            argv=argv,
            end=lambda code, word: self.end_qemu(guest, code=code, word=word),
            clock=self._clock,
        )
        qemu.on_event = lambda event: self._hear(guest, event)
        qemu.blocks.image_bytes = lambda path: self._bytes_to_open(guest, path)
        qemu.blocks.resized = self._resized
        self.qemus[guest] = qemu
        return qemu

    def _bytes_to_open(self, guest: str, path: str) -> int | None:
        """What a QEMU finds that opens an image: nothing where it has no rights, nor where there is nothing."""
        pool, image = _image_at(path)
        found = self.images.get((pool, image))
        may = (guest, pool, image) in self.lent or (pool, image) in self.images_made
        return found.virtual_size_bytes if found is not None and may else None

    def _resized(self, path: str, size_bytes: int) -> None:
        found = self.images[_image_at(path)]
        self.images[_image_at(path)] = replace(found, virtual_size_bytes=size_bytes)

    def _hear(self, guest: str, raw: Mapping[str, object]) -> None:
        event = parse_event(raw)
        self._hearing.take(guest, event)
        if not isinstance(event, Other):
            self.on_exit(guest)

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
        nodes = [node for qemu in self.qemus.values() for node in qemu.blocks.nodes.values()]
        writers = {_image_at(node.filename) for node in nodes if node.driver != "file" and not node.read_only}
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
            self.images_made.add((source.pool, source.image))
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
            self._remove_tap(request.name)
            self.taps[request.name] = guest
            if request.bridge is not None:
                self.tap_bridges[request.name] = request.bridge

    async def close_tap(self, name: str) -> None:
        with self._effect("close_tap", name):
            guest = self._handed_over.pop(name, "")
            if guest in self.qemus:
                fds = self.qemus[guest].fds
                fds -= {each for each in fds if each.rpartition("-")[0] == name}
            self._remove_tap(name)

    def _remove_tap(self, name: str) -> None:
        for kept in (self.taps, self.plugged_taps, self.tap_bridges, self.tap_limits):
            kept.pop(name, None)

    def _require_tap(self, name: str) -> None:
        if name not in self.taps and name not in self.plugged_taps:
            raise Refused("TapFailed", f"the node has no tap {name}")

    async def hand_over_tap(self, guest: str, request: TapRequest) -> tuple[str, ...]:
        with self._effect("hand_over_tap", guest, request.name):
            if self.taps.get(request.name) != guest:
                raise Refused("TapFailed", f"tap {request.name} was not opened for QEMU")
            names = tuple(f"{request.name}-{queue}" for queue in range(request.queues))
            qemu = self._speaking(guest, "getfd")
            for name in names:
                qemu.take_fd(name)
            del self.taps[request.name]
            self._handed_over[request.name] = guest
            self.plugged_taps[request.name] = (guest, "")
        return names

    async def move_tap(self, name: str, bridge: str) -> None:
        with self._effect("move_tap", name, bridge):
            self._require_tap(name)
            if bridge not in self.bridges:
                raise Refused("NoSuchBridge", f"the node has no bridge {bridge}")
            self.tap_bridges[name] = bridge

    async def shape_tap(self, name: str, bandwidth: Bandwidth | None) -> None:
        with self._effect("shape_tap", name, _limits_text(bandwidth)):
            self._require_tap(name)
            if bandwidth is not None and bandwidth.outbound_bytes is not None and not self.can_limit_outbound:
                raise Refused("BandwidthUnsupported", "the node's kernel lacks act_police and cls_matchall")
            if bandwidth is None:
                self.tap_limits.pop(name, None)
            else:
                self.tap_limits[name] = bandwidth

    async def lend_disk(self, guest: str, disk: Disk) -> None:
        with self._effect("lend_disk", guest, disk.name):
            self._lend(guest, disk)

    def _lend(self, guest: str, disk: Disk) -> None:
        if disk.source is None:
            return
        pool, image = disk.source.pool, disk.source.image
        require_plain_name(image)
        found = self.images.get((pool, image))
        if found is None:
            raise Refused("ImageMissing", f"pool {pool} has no image {image}")
        self.lent.add((guest, pool, image))
        while found.backing_image is not None:
            below = self.images.get((pool, found.backing_image))
            if below is None:
                raise Refused("BackingImageMissing", f"pool {pool} has no image {found.backing_image}")
            self.lent.add((guest, pool, below.image))
            found = below

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
                self._lend(guest, disk)
            self.prepared[guest] = machine

    async def launch(self, guest: str, argv: tuple[str, ...], *, timeout_s: float) -> ProcessIdentity:
        with self._effect("launch", guest):
            if guest in self.qemus:
                raise Unknown("QemuUnknown", "a QEMU of this guest runs already")
            machine = self.prepared[guest]
            missing = [tap for tap, _ in tap_places(machine).values() if self.taps.get(tap) != guest]
            if missing:
                raise Refused("TapFailed", f"tap {missing[0]} was not opened for this launch")
            self._hearing.forget(guest)
            qemu = self.start_qemu(guest, machine, argv)
            for nic in machine.networks:
                if nic.tap is not None:
                    del self.taps[nic.tap]
                    self.plugged_taps[nic.tap] = (guest, net_backend(nic.name))
            for name in [name for name, owner in self.taps.items() if owner == guest]:
                self._remove_tap(name)
            self._settle(guest, qemu, timeout_s)
        return qemu.identity

    def _settle(self, guest: str, qemu: FakeQemu, timeout_s: float) -> None:
        fate = self.fates.get(guest, LaunchFate.GREETS)
        if fate is LaunchFate.EXITS:
            self.end_qemu(guest, code=1)
            raise Refused("QemuExited", "QEMU ended before it was ready, with code 1: aborted")
        if fate is LaunchFate.SILENT:
            qemu.switches.silent = True
            raise Unknown("QemuSilent", f"QEMU did not open its monitor within {timeout_s:g} s")

    async def execute(self, guest: str, command: Command) -> object:
        if _QUESTION.fullmatch(command.name):
            return self._answer(guest, command)
        with self._effect("execute", guest, _command_text(command)):
            self._hearing.sent(guest, command)
            answer = self._answer(guest, command)
            self._follow_taps(guest, command)
            return answer

    def _answer(self, guest: str, command: Command) -> object:
        self.commands.append((guest, command.name))
        return self._speaking(guest, command.name).answer(command)

    def _speaking(self, guest: str, command: str) -> FakeQemu:
        qemu = self.qemus.get(guest)
        if qemu is None:
            raise Unknown("QemuUnknown", f"{command} was not sent: no QEMU of this guest runs")
        if qemu.switches.silent:
            raise Unknown("QemuSilent", "QEMU's monitor did not greet")
        return qemu

    def _follow_taps(self, guest: str, command: Command) -> None:
        """A tap lives as long as a netdev, or a descriptor that nobody took, holds it."""
        told = command.arguments
        if command.name == "netdev_add":
            names = str(told.get("fds", told.get("fd", ""))).split(":")
            for tap in {name.rpartition("-")[0] for name in names} & set(self.plugged_taps):
                self.plugged_taps[tap] = (guest, str(told["id"]))
        gone = {"netdev_del": (guest, str(told.get("id"))), "closefd": (guest, "")}.get(command.name)
        for tap in [tap for tap, held in self.plugged_taps.items() if held == gone]:
            if command.name == "netdev_del" or tap == str(told["fdname"]).rpartition("-")[0]:
                self._remove_tap(tap)

    async def kill(self, guest: str, identity: ProcessIdentity) -> None:
        with self._effect("kill", guest, str(identity.pid)):
            qemu = self.qemus.get(guest)
            if qemu is not None and qemu.identity == identity:
                self.end_qemu(guest, code=None, signal=9)

    def exit_note(self, guest: str) -> str | None:
        return self._hearing.farewell(guest)

    def heard(self, guest: str) -> Heard:
        return self._hearing.heard(guest)

    async def surroundings(self, identity: ProcessIdentity) -> Surroundings:
        argv = await self.cmdline(identity)
        if argv is None:
            raise Refused("QemuMissing", f"there is no process {identity.pid}")
        pools = {f"/pools/{name}": name for name in sorted(self.pools)}
        return Surroundings(argv=argv, folder="/", taps={}, bridges={}, pools=pools)

    async def cmdline(self, identity: ProcessIdentity) -> tuple[str, ...] | None:
        return next((qemu.argv for qemu in self.qemus.values() if qemu.identity == identity), None)

    async def trim_logs(self, guest: str) -> None:
        with self._effect("trim_logs", guest):
            return


def _image_at(path: str) -> tuple[str, str]:
    pool, _, image = path.removeprefix("/pools/").partition("/")
    return pool, image


def _command_text(command: Command) -> str:
    """The command's name and what it is about."""
    about = [str(command.arguments[key]) for key in ("id", "node-name", "name", "fdname") if key in command.arguments]
    return " ".join((command.name, *about[:1]))


def _limits_text(bandwidth: Bandwidth | None) -> str:
    return f"{bandwidth.inbound_bytes}/{bandwidth.outbound_bytes}" if bandwidth is not None else "none"

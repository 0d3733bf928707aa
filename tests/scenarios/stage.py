"""A stage for stories: the agent's real loop on a simulated node and an API server in memory, and a clock that jumps.

stage = Stage()
await stage.create("demo", disks=[...])     # kubectl apply, and the controller's binding
await stage.passes(60)                      # a minute passes: every turn that is due is taken
assert stage.ready("demo")
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from fakes.host import AgentCrashed, FakeHost, Moment
from fakes.kube import FakeApiServer, FakeGuests
from fakes.qemu import FakeQemu
from guestlet.api.base import Condition
from guestlet.api.guest import VirtualGuest
from guestlet.api.guest_status import LastExit, VirtualGuestStatus
from guestlet.errors import GuestletError, NotNow
from guestlet.guest.record import RECORD_FILE, Record, parse_record
from guestlet.host.facts import ImageFacts, ProcessIdentity
from guestlet.kube.client import Request
from guestlet.qemu.capabilities import Capabilities
from guestlet.qemu.commands import Command
from guestlet.qemu.machine import FileSource, ImageFormat
from guestlet.qemu.replies import RunState
from guestlet.reconcile.loop import GuestLoop
from guestlet.reconcile.queue import GuestKey
from unit.guest.guest_samples import CAPABILITIES, GIB, NODE, TCG

NAMESPACE = "default"
RETRY_S = 1.0
RESYNC_S = 300.0
MOST_TURNS = 400
Spec = dict[str, Any]


class Journal:
    """A ``LoopJournal`` that counts."""

    def __init__(self) -> None:
        self.actions: Counter[tuple[str, str]] = Counter()
        self.phases: dict[str, str | None] = {}
        self.orphan_count = 0

    def action(self, kind: str, outcome: str) -> None:
        self.actions[kind, outcome] += 1

    def phase(self, guest: str, phase: str | None) -> None:
        self.phases[guest] = phase

    def orphans(self, count: int) -> None:
        self.orphan_count = count

    @property
    def done(self) -> set[str]:
        return {kind for kind, outcome in self.actions if outcome == "Done"}


class CountingHost(FakeHost):
    """Counts what really happened: an effect that a fault prevented is in the journal, and did not happen."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(facts=NODE, capabilities=CAPABILITIES, probe=TCG, clock=clock)
        self.started: Counter[str] = Counter()
        self.created: Counter[str] = Counter()
        self.refused: dict[str, GuestletError] = {}

    def set_capabilities(self, capabilities: Capabilities) -> None:
        """The node has another QEMU."""
        self._capabilities = capabilities

    async def execute(self, guest: str, command: Command) -> object:
        if command.name in self.refused:
            raise self.refused[command.name]
        return await super().execute(guest, command)

    async def launch(self, guest: str, argv: tuple[str, ...], *, timeout_s: float) -> ProcessIdentity:
        before = self.qemus.get(guest)
        try:
            return await super().launch(guest, argv, timeout_s=timeout_s)
        finally:
            self.started[guest] += self.qemus.get(guest) is not before

    async def create_image(self, source: FileSource, size_bytes: int | None) -> None:
        before = len(self.images)
        try:
            await super().create_image(source, size_bytes)
        finally:
            self.created[source.image] += len(self.images) - before


class Stage:
    def __init__(self, *, node: str = "node-a") -> None:
        self.now = 1_700_000_000.0
        self.node_name = node
        self.server = FakeApiServer(clock=lambda: self.now)
        self.api = FakeGuests(self.server)
        self.host = CountingHost(lambda: self.now)
        self.host.add_pool("default")
        self.host.on_exit = self._woken_by_host
        self.server.watchers.append(self._woken_by_api)
        self.server.fault_before = self._before_request
        self.server.fault_after = self._after_request
        self.refuses: Callable[[Request], GuestletError | None] = lambda _request: None
        self.dies_at_write: tuple[int, Moment] | None = None
        self.journal = Journal()
        self.errors: list[GuestletError] = []
        self.deaths = 0
        self._due: dict[GuestKey, float] = {}
        self.loop: GuestLoop | None = None

    # people

    async def create(self, name: str = "demo", **spec: Any) -> None:
        """``kubectl apply`` and the controller's binding; then the agent works until it rests."""
        self.server.create_guest(NAMESPACE, name, spec)
        self.server.bind_guest(NAMESPACE, name, self.node_name)
        await self.passes(0)

    async def edit(self, name: str = "demo", **fields: Any) -> None:
        self.server.edit_guest(NAMESPACE, name, lambda spec: spec.update(fields))
        await self.passes(0)

    async def delete(self, name: str = "demo") -> None:
        self.server.delete_guest(NAMESPACE, name)
        await self.passes(0)

    # the node

    def add_image(self, name: str, **facts: Any) -> None:
        plain: dict[str, Any] = {
            "format": ImageFormat.QCOW2,
            "virtual_size_bytes": GIB,
            "backing_image": None,
            "locked": False,
        }
        self.host.images["default", name] = ImageFacts(pool="default", image=name, **{**plain, **facts})

    def pool_goes(self) -> None:
        """Its file system is not mounted any more."""
        self.host.add_pool("default", identity=None)

    def pool_comes_back(self) -> None:
        self.host.add_pool("default")

    async def qemu_stops(self, state: RunState, name: str = "demo") -> None:
        """QEMU stops the guest by itself, or somebody at its monitor does."""
        self.qemu(name).run_state = state
        self.wake(name)
        await self.passes(0)

    async def qemu_ends(self, *, code: int | None = None, signal: int | None = None, name: str = "demo") -> None:
        self.host.end_qemu(self.uuid(name), code=code, signal=signal)
        await self.passes(0)

    def refuse_command(self, name: str, error: GuestletError) -> None:
        """From now on QEMU answers this command so."""
        self.host.refused[name] = error

    def accept_command(self, name: str) -> None:
        self.host.refused.pop(name, None)

    async def guest_reboots(self, name: str = "demo") -> None:
        """The guest resets its machine by itself."""
        self.qemu(name).guest_resets()
        self.wake(name)
        await self.passes(0)

    async def guest_powers_off(self, name: str = "demo") -> None:
        self.host.end_qemu(self.uuid(name), code=0, word="guest-shutdown")
        await self.passes(0)

    async def qemu_crashes(self, name: str = "demo") -> None:
        await self.qemu_ends(signal=11, name=name)

    # time

    async def passes(self, seconds: float) -> None:
        """Every turn that is due within ``seconds`` is taken at its time."""
        end = self.now + seconds
        if self.loop is None:
            await self.agent_starts()
        for _ in range(MOST_TURNS):
            due = [(when, key) for key, when in self._due.items() if when <= end]
            if not due and self.loop is None:
                await self.agent_starts()  # something restarts it, as the kubelet does
                continue
            if not due:
                self.now = end
                return
            when, key = min(due)
            self.now = max(self.now, when)
            await self._turn(key)
        raise AssertionError(f"{MOST_TURNS} turns in {seconds} s: a busy loop; last: {self.host.journal[-9:]}")

    async def _turn(self, key: GuestKey) -> None:
        del self._due[key]
        if self.loop is None:
            await self.agent_starts()
        assert self.loop is not None
        try:
            again_s = await self.loop.turn(key)
        except GuestletError as error:
            self.errors.append(error)
            again_s = RETRY_S
        except AgentCrashed:
            self.agent_dies()
            return
        if again_s is not None:
            self._wake(key, again_s)

    def _wake(self, key: GuestKey, after_s: float = 0.0) -> None:
        self._due[key] = min(self._due.get(key, self.now + after_s), self.now + after_s)

    def wake(self, name: str = "demo") -> None:
        self._wake(GuestKey(NAMESPACE, name))

    def _woken_by_api(self, _change: str, body: Any) -> None:
        meta = body["metadata"]
        if body["kind"] == "VirtualGuest":
            self._wake(GuestKey(meta["namespace"], meta["name"]))

    def _woken_by_host(self, guest: str) -> None:
        for name in [each.name for each in self.records if each.uuid == guest]:
            self.wake(name)

    # the agent

    async def agent_starts(self) -> None:
        """A new process: it knows what the node's disk says, and lists its guests."""
        try:
            self.loop = GuestLoop(
                node=self.node_name,
                host=self.host,
                api=self.api,
                clock=lambda: self.now,
                journal=self.journal,
                live_s=0.0,
            )
            for key in await self.loop.start():
                self._wake(key)
            for namespace, name in [key[1:] for key in self.server.objects if key[0] == "virtualguests"]:
                self._wake(GuestKey(namespace, name))
        except AgentCrashed:
            self.agent_dies()

    def agent_is_killed(self) -> NoReturn:
        """For a fault: the process ends right here."""
        raise AgentCrashed("killed")

    def agent_dies(self) -> None:
        self.loop = None
        self.deaths += 1
        faults = self.host.faults
        self.host.restart_agent()
        self.host.faults = faults  # each is for one effect, whichever agent has it

    async def agent_restarts(self) -> None:
        self.agent_dies()
        await self.agent_starts()
        await self.passes(0)

    def _before_request(self, request: Request) -> GuestletError | None:
        self._strike(request, Moment.BEFORE)
        return self.refuses(request)

    def _after_request(self, request: Request) -> GuestletError | None:
        self._strike(request, Moment.AFTER)
        return None

    def _strike(self, request: Request, moment: Moment) -> None:
        """``requests`` has this one already: writes are numbered from 0."""
        if request.verb not in ("get", "list") and self.dies_at_write == (self.writes - 1, moment):
            raise AgentCrashed(str(request))

    def api_is_down(self) -> None:
        self.refuses = lambda _request: NotNow("ApiUnavailable", "the API server cannot be reached")

    def api_is_back(self) -> None:
        self.refuses = lambda _request: None

    # what can be seen

    def exists(self, name: str = "demo") -> bool:
        return ("virtualguests", NAMESPACE, name) in self.server.objects

    def guest(self, name: str = "demo") -> VirtualGuest:
        return self.server.guest(NAMESPACE, name)

    def status(self, name: str = "demo") -> VirtualGuestStatus:
        return self.guest(name).status

    def condition(self, kind: str, name: str = "demo") -> Condition:
        (found,) = (each for each in self.status(name).conditions if each.type == kind)
        return found

    def says(self, kind: str, name: str = "demo") -> tuple[str, str]:
        """Status and reason of a condition."""
        found = self.condition(kind, name)
        return found.status, found.reason

    def ready(self, name: str = "demo") -> bool:
        return self.condition("Ready", name).status == "True"

    def phase(self, name: str = "demo") -> str:
        return str(self.status(name).phase)

    @property
    def records(self) -> list[Record]:
        return [parse_record(data) for (_, name), data in self.host.files.items() if name == RECORD_FILE]

    def record(self, name: str = "demo") -> Record:
        (found,) = (each for each in self.records if each.name == name)
        return found

    def uuid(self, name: str = "demo") -> str:
        return self.record(name).uuid

    def qemu(self, name: str = "demo") -> FakeQemu:
        return self.host.qemus[self.uuid(name)]

    def runs(self, name: str = "demo") -> bool:
        return any(each.uuid in self.host.qemus for each in self.records if each.name == name)

    @property
    def last_exit(self) -> LastExit:
        """Of the guest ``demo``."""
        found = self.status().last_exit
        assert found is not None
        return found

    @property
    def memory_at_boot(self) -> str:
        """Of the guest ``demo``."""
        memory = self.status().memory
        assert memory is not None
        return memory.at_boot

    @property
    def addresses(self) -> set[str | None]:
        """Guest addresses of the devices of the guest ``demo``."""
        pci = self.status().pci
        return {each.guest_address for each in pci.devices} if pci is not None else set()

    @property
    def effects(self) -> list[str]:
        """Names of what was done to the node."""
        return [each.name for each in self.host.journal]

    @property
    def launches(self) -> int:
        return self.effects.count("launch")

    @property
    def writes(self) -> int:
        return len(self.server.writes())

    @property
    def reasons(self) -> list[str]:
        """Reasons of the Events so far."""
        return self.api.events.reasons


def disk(name: str = "root", **fields: Any) -> Spec:
    return {"name": name, "source": {"file": {"pool": "default", "image": f"{name}.qcow2"}}, "size": "1Gi", **fields}

"""The QEMUs of this node as processes: found, started, spoken to, killed.

It must never take one process for another, start a second QEMU for a guest, or restart, stop or kill one by itself.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Refused, Unknown
from guestlet.host import process
from guestlet.host.access import QemuUser
from guestlet.host.arrival import Arrivals
from guestlet.host.facts import ExitFacts, ProcessFacts, ProcessIdentity
from guestlet.host.files import read_if_there, remove_if_there, tail_text, write_atomically
from guestlet.host.launcher import Launcher, LaunchRequest
from guestlet.host.places import GuestPlace, Places
from guestlet.host.qmp import QmpSession
from guestlet.qemu.commands import Command

LOG_TAIL_BYTES = 2048
_KILL_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0
_BURIAL_TIMEOUT_S = 2.0
RawEvent = Mapping[str, object]


class QemuProcesses:
    """Every guest's QEMU on this node. ``on_event`` and ``on_exit`` are called in the loop and must not raise.

    ``reading``: beside the agent, so by the observers' monitor, and nothing is noted.
    """

    def __init__(
        self,
        *,
        places: Places,
        user: QemuUser | None,
        environment: Mapping[str, str],
        on_event: Callable[[str, RawEvent], None],
        on_exit: Callable[[str], None],
        reading: bool = False,
    ) -> None:
        self._places = places
        self._user = user
        self._environment = environment
        self._on_event = on_event
        self._on_exit = on_exit
        self._reading = reading
        self._launcher = Launcher(state_dir=places.state_dir, runtime_dir=places.runtime_dir)
        self._boot = process.boot_id()
        self._exits = process.ExitWatch()
        self._arrivals = Arrivals()
        self._meeting: dict[str, asyncio.Event] = {}
        self._sessions: dict[str, QmpSession] = {}

    async def close(self) -> None:
        """Lets go of every QEMU; they run on."""
        self._exits.close()
        self._arrivals.close()
        for guest in tuple(self._sessions):
            await self.hang_up(guest)

    async def find(self, guest: str) -> ProcessFacts:
        """The guest's QEMU and its last known end.

        It is found by the launcher's note, the lock on its pidfile, or its observers' socket.
        """
        place = self._places.of(guest)
        launched = _note(place.launch_note)
        noted = _identity(launched) if launched is not None and launched.get("bootId") == self._boot else None
        running = noted if noted is not None and process.is_alive(noted) else self._unnoted(guest, place)
        if running is not None:
            self._exits.watch(guest, running, self._ended)
            return ProcessFacts(running=running, last_exit=_exit_facts(_note(place.exit_note)))
        await self.hang_up(guest)
        if noted is not None:
            await self._wait_for_burial(noted, place)
        return ProcessFacts(running=None, last_exit=self._last_exit(place, launched))

    def _unnoted(self, guest: str, place: GuestPlace) -> ProcessIdentity | None:
        """A QEMU whose note was lost: the lock on its pidfile names it, else its own socket and uuid, else the other
        note of one that somebody else started.
        """
        pid = process.lock_holder(place.pidfile)
        if pid is not None:
            return process.identity_of(pid)
        pid = process.listener_pid(place.runtime / "observer")
        found = process.identity_of(pid) if pid is not None else None
        arguments = process.command_line(found) if found is not None else None
        return found if arguments is not None and guest in arguments else self._taken_in(place)

    def _taken_in(self, place: GuestPlace) -> ProcessIdentity | None:
        """What we noted of one that somebody else started; a note that is not ours, QEMU's user put there."""
        try:
            ours = place.adoption_note.lstat().st_uid == os.geteuid()
        except FileNotFoundError:
            return None
        note = _note(place.adoption_note) if ours else None
        noted = _identity(note) if note is not None and note.get("bootId") == self._boot else None
        return noted if noted is not None and process.is_alive(noted) else None

    async def _wait_for_burial(self, noted: ProcessIdentity, place: GuestPlace) -> None:
        """The launcher writes its exit note before it reaps: that of a zombie of the launcher's is still to come."""
        deadline = time.monotonic() + _BURIAL_TIMEOUT_S
        launcher = self._launcher.pid
        while process.zombies_parent(noted) == launcher is not None and time.monotonic() < deadline:
            end = _note(place.exit_note)
            if end is not None and _identity(end) == noted:
                return
            await asyncio.sleep(0.002)

    def _last_exit(self, place: GuestPlace, launched: RawEvent | None) -> ExitFacts | None:
        """What the exit note says, if it is about the last QEMU; else that one ended unseen: launcher gone, reboot.

        The latter is noted once, so that the time it gives stays the same.
        """
        end = _note(place.exit_note)
        if launched is None or (end is not None and _key(end) == _key(launched)):
            return _exit_facts(end)
        # What one that somebody else started said, nobody kept: the log is of the one before.
        tail = "" if launched.get("foreign") else tail_text(place.log, limit_bytes=LOG_TAIL_BYTES)
        lost = {**launched, "code": None, "signal": None, "at": time.time(), "logTail": tail}
        if not self._reading:
            write_atomically(place.exit_note, json.dumps(lost).encode(), durable=False)
        return _exit_facts(lost)

    async def launch(
        self, guest: str, argv: tuple[str, ...], *, fds: tuple[tuple[int, int], ...], timeout_s: float
    ) -> ProcessIdentity:
        """Starts QEMU and returns when its monitor has greeted.

        Raises:
            Refused: QemuExited, LaunchFailed. Unknown: QemuSilent, QemuUnknown (also: one runs already).
        """
        place = self._places.of(guest)
        running = (await self.find(guest)).running
        if running is not None:
            raise Unknown(Reason.QEMU_UNKNOWN, f"QEMU {running.pid} of this guest runs already")
        for path in (*place.sockets, place.adoption_note):
            remove_if_there(path)
        deadline = time.monotonic() + timeout_s
        with self._arrivals.expecting(place.runtime) as arrived:
            self._meeting[guest] = arrived
            try:
                identity = await self._launcher.launch(self._request(place, argv, fds), timeout_s=timeout_s)
                self._exits.watch(guest, identity, self._ended)
                await self._meet(guest, identity, arrived=arrived, timeout_s=deadline - time.monotonic())
            finally:
                del self._meeting[guest]
        return identity

    def _request(self, place: GuestPlace, argv: tuple[str, ...], fds: tuple[tuple[int, int], ...]) -> LaunchRequest:
        return LaunchRequest(
            argv=argv,
            environment=self._environment,
            user=(self._user.uid, self._user.gid) if self._user is not None else None,
            log=place.log,
            launch_note=place.launch_note,
            exit_note=place.exit_note,
            fds=fds,
        )

    async def _meet(self, guest: str, identity: ProcessIdentity, *, arrived: asyncio.Event, timeout_s: float) -> None:
        silent = Unknown(Reason.QEMU_SILENT, f"QEMU {identity.pid} did not open its monitor within the deadline")
        try:
            async with asyncio.timeout(timeout_s):
                await self._greet(guest, identity, arrived=arrived, timeout_s=timeout_s)
        except TimeoutError as error:
            raise silent from error
        except Unknown as error:
            await self._refuse_if_ended(guest, identity)
            raise silent from error

    async def _greet(self, guest: str, identity: ProcessIdentity, *, arrived: asyncio.Event, timeout_s: float) -> None:
        session = self._session(guest)
        while True:
            arrived.clear()
            if not process.is_alive(identity):
                await self._refuse_if_ended(guest, identity)
            try:
                await session.connect(identity, timeout_s=timeout_s)
            except FileNotFoundError:
                await arrived.wait()
            except ConnectionRefusedError:
                await asyncio.sleep(0.001)  # bound, and about to listen
            else:
                return

    async def _refuse_if_ended(self, guest: str, identity: ProcessIdentity) -> None:
        """A monitor that broke off may be the first sign of an end: gives the process a moment to be seen ended."""
        fd = process.open_pidfd(identity)
        if fd is not None:
            try:
                async with asyncio.timeout(_BURIAL_TIMEOUT_S):
                    await process.wait_readable(fd)
            except TimeoutError:
                return
            finally:
                os.close(fd)
        end = (await self.find(guest)).last_exit
        how = _how_it_ended(end) if end is not None and end.identity == identity else "and left no word"
        raise Refused(Reason.QEMU_EXITED, f"QEMU ended before it was ready, {how}")

    def _ended(self, guest: str) -> None:
        meeting = self._meeting.get(guest)
        if meeting is not None:
            meeting.set()
        self._on_exit(guest)

    async def execute(self, guest: str, command: Command, *, descriptor: int | None = None) -> object:
        """One QMP command to the guest's own QEMU, with a descriptor for it to keep (``getfd``).

        Raises:
            Unknown: QemuUnknown, QemuSilent. Broken: QmpRefused, HostFailure (a foreign process listens).
        """
        running = self._exits.watched(guest) or (await self.find(guest)).running
        if running is None:
            raise Unknown(Reason.QEMU_UNKNOWN, f"{command.name} was not sent: no QEMU of this guest runs")
        session = self._session(guest)
        try:
            await session.connect(running, timeout_s=_CONNECT_TIMEOUT_S)
        except OSError as error:
            raise Unknown(Reason.QEMU_SILENT, f"{command.name} was not sent: QEMU's monitor: {error}") from error
        return await session.execute(command, descriptor=descriptor)

    async def kill(self, guest: str, identity: ProcessIdentity) -> None:
        """SIGKILL to that very process; returns when it has ended.

        Raises:
            Unknown: QemuUnknown, the kernel holds it.
        """
        await process.kill_process(identity, timeout_s=_KILL_TIMEOUT_S)
        await self.hang_up(guest)

    async def stop_launcher(self) -> bool:
        """Ends the launcher and no QEMU; says whether there was one."""
        return await self._launcher.stop()

    async def hang_up(self, guest: str) -> None:
        """Ends the monitor session, if there is one."""
        session = self._sessions.pop(guest, None)
        if session is not None:
            await session.close()

    def _session(self, guest: str) -> QmpSession:
        session = self._sessions.get(guest)
        if session is None:
            path = self._places.of(guest).runtime / ("observer" if self._reading else "qmp")
            session = QmpSession(path, on_event=lambda event: self._on_event(guest, event))
            self._sessions[guest] = session
        return session


def _note(path: Path) -> Mapping[str, object] | None:
    """A note; one that a loss of power left unreadable tells nothing."""
    data = read_if_there(path)
    try:
        note = json.loads(data) if data else None
    except ValueError:
        return None
    return note if isinstance(note, dict) else None


def _identity(note: Mapping[str, object]) -> ProcessIdentity | None:
    pid, ticks = note.get("pid"), note.get("startTicks")
    return ProcessIdentity(pid=pid, start_ticks=ticks) if isinstance(pid, int) and isinstance(ticks, int) else None


def _key(note: Mapping[str, object]) -> tuple[object, ...]:
    return note.get("pid"), note.get("startTicks"), note.get("bootId")


def _exit_facts(note: Mapping[str, object] | None) -> ExitFacts | None:
    identity = _identity(note) if note is not None else None
    if note is None or identity is None:
        return None
    code, signal, at = note.get("code"), note.get("signal"), note.get("at")
    return ExitFacts(
        identity=identity,
        code=code if isinstance(code, int) else None,
        signal=signal if isinstance(signal, int) else None,
        at=float(at) if isinstance(at, int | float) else 0.0,
        log_tail=str(note.get("logTail", ""))[-LOG_TAIL_BYTES:],
    )


def _how_it_ended(end: ExitFacts) -> str:
    how = f"by signal {end.signal}" if end.signal is not None else f"with code {end.code}"
    return f"{how}: {end.log_tail}" if end.log_tail else f"{how} and without a word"

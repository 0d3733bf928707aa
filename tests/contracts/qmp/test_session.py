"""One set of promises for QMP sessions, held against the fake server and against a real QEMU."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.host.nodes import short_directory
from fakes.qmp import FakeQmpServer
from guestlet.errors import Broken, Unknown
from guestlet.host.facts import ProcessIdentity
from guestlet.host.process import identity_of
from guestlet.host.qmp import QmpSession
from guestlet.qemu import commands
from guestlet.qemu.commands import Command

QUICK = Command(name="query-status", deadline_s=0.1)
STATUS = commands.query_status()


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """Something that speaks QMP on a socket; ``fake`` when a test may turn it."""

    path: Path
    identity: ProcessIdentity
    fake: FakeQmpServer | None


def identity(pid: int) -> ProcessIdentity:
    found = identity_of(pid)
    assert found is not None
    return found


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as made:
        yield made


@asynccontextmanager
async def fake_monitor(directory: Path) -> AsyncIterator[Monitor]:
    server = FakeQmpServer(directory / "qmp")
    await server.start()
    try:
        yield Monitor(path=server.path, identity=identity(os.getpid()), fake=server)
    finally:
        await server.stop()


@asynccontextmanager
async def real_monitor(directory: Path) -> AsyncIterator[Monitor]:
    path = directory / "qmp"
    options = ("-S", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "none")
    monitor = ("-chardev", f"socket,id=qmp,path={path},server=on,wait=off", "-mon", "chardev=qmp,mode=control")
    process = await asyncio.create_subprocess_exec("qemu-system-x86_64", *options, *monitor)
    try:
        async with asyncio.timeout(10):
            await listening(path)
        yield Monitor(path=path, identity=identity(process.pid), fake=None)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def listening(path: Path) -> None:
    for _ in range(1000):
        try:
            _, writer = await asyncio.open_unix_connection(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(0.01)
            continue
        writer.close()
        return


@pytest.fixture(params=["fake", pytest.param("qemu", marks=[pytest.mark.qemu, pytest.mark.slow])])
async def monitor(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Monitor]:
    make = fake_monitor if request.param == "fake" else real_monitor
    async with make(directory) as made:
        yield made


@pytest.fixture
async def fake(directory: Path) -> AsyncIterator[Monitor]:
    async with fake_monitor(directory) as made:
        yield made


@pytest.fixture
def events() -> list[Mapping[str, object]]:
    return []


@pytest.fixture
async def session(directory: Path, events: list[Mapping[str, object]]) -> AsyncIterator[QmpSession]:
    made = QmpSession(directory / "qmp", on_event=events.append)
    yield made
    await made.close()


async def test_a_command_is_answered(monitor: Monitor, session: QmpSession) -> None:
    await session.connect(monitor.identity, timeout_s=5)

    reply = await session.execute(STATUS)

    assert isinstance(reply, dict)
    assert reply["status"] == "prelaunch"


async def test_a_refused_command_is_broken_and_says_why(monitor: Monitor, session: QmpSession) -> None:
    await session.connect(monitor.identity, timeout_s=5)

    with pytest.raises(Broken, match="QmpRefused: no-such-thing: CommandNotFound: The command no-such-thing has not"):
        await session.execute(Command(name="no-such-thing"))


async def test_a_session_that_is_there_is_used_again(monitor: Monitor, session: QmpSession) -> None:
    await session.connect(monitor.identity, timeout_s=5)
    await session.connect(monitor.identity, timeout_s=5)

    assert await session.execute(STATUS)


async def test_a_closed_session_is_made_anew(monitor: Monitor, session: QmpSession) -> None:
    await session.connect(monitor.identity, timeout_s=5)
    await session.close()
    await session.connect(monitor.identity, timeout_s=5)

    assert await session.execute(STATUS)


async def test_a_second_client_is_not_greeted_and_told_so(monitor: Monitor, session: QmpSession) -> None:
    await session.connect(monitor.identity, timeout_s=5)
    second = QmpSession(monitor.path, on_event=lambda _: None)

    with pytest.raises(Unknown, match=r"QemuSilent: .*another client"):
        await second.connect(monitor.identity, timeout_s=0.1)

    assert await session.execute(STATUS)


async def test_a_foreign_peer_is_not_spoken_to(monitor: Monitor, session: QmpSession) -> None:
    stranger = ProcessIdentity(pid=monitor.identity.pid + 1, start_ticks=monitor.identity.start_ticks)

    with pytest.raises(Broken, match="listens on the guest's monitor, not QEMU"):
        await session.connect(stranger, timeout_s=5)

    if monitor.fake is not None:
        assert monitor.fake.received == []


async def test_a_later_process_of_the_same_number_is_not_taken_for_ours(monitor: Monitor, session: QmpSession) -> None:
    later = ProcessIdentity(pid=monitor.identity.pid, start_ticks=monitor.identity.start_ticks + 1)

    with pytest.raises(Broken):
        await session.connect(later, timeout_s=5)


async def test_nobody_listening_is_said_plainly(session: QmpSession) -> None:
    with pytest.raises(FileNotFoundError):
        await session.connect(identity(os.getpid()), timeout_s=5)


async def test_commands_are_sent_one_at_a_time(monitor: Monitor, session: QmpSession) -> None:
    await session.connect(monitor.identity, timeout_s=5)

    replies = await asyncio.gather(*(session.execute(STATUS) for _ in range(20)))

    assert len(replies) == 20


@pytest.mark.qemu
@pytest.mark.slow
async def test_a_stopped_qemu_makes_a_command_unknown_and_answers_later(directory: Path, session: QmpSession) -> None:
    async with real_monitor(directory) as monitor:
        await session.connect(monitor.identity, timeout_s=5)
        os.kill(monitor.identity.pid, signal.SIGSTOP)

        with pytest.raises(Unknown, match="QEMU may still do it"):
            await session.execute(QUICK)

        os.kill(monitor.identity.pid, signal.SIGCONT)
        assert await session.execute(STATUS)


async def test_a_command_without_an_answer_is_unknown_by_its_deadline(fake: Monitor, session: QmpSession) -> None:
    assert fake.fake is not None
    fake.fake.silent.add("query-status")
    await session.connect(fake.identity, timeout_s=5)

    with pytest.raises(Unknown, match=r"query-status: no reply within 0\.1 s"):
        await session.execute(QUICK)


async def test_a_late_answer_is_not_taken_for_the_next_one(fake: Monitor, session: QmpSession) -> None:
    assert fake.fake is not None
    fake.fake.latency_s["query-status"] = 0.15
    fake.fake.answers["query-name"] = {"name": "demo"}
    await session.connect(fake.identity, timeout_s=5)
    with pytest.raises(Unknown):
        await session.execute(QUICK)

    assert await session.execute(commands.query_name()) == {"name": "demo"}


async def test_a_connection_that_breaks_makes_the_command_unknown(fake: Monitor, session: QmpSession) -> None:
    assert fake.fake is not None
    fake.fake.dies_on.add("cont")
    await session.connect(fake.identity, timeout_s=5)

    with pytest.raises(Unknown, match="cont: the monitor broke off"):
        await session.execute(commands.cont())

    await session.connect(fake.identity, timeout_s=5)
    assert await session.execute(STATUS)


async def test_events_are_told_as_they_come(
    fake: Monitor, session: QmpSession, events: list[Mapping[str, object]]
) -> None:
    assert fake.fake is not None
    await session.connect(fake.identity, timeout_s=5)

    await fake.fake.send_event("STOP")
    await session.execute(STATUS)

    assert [each["event"] for each in events] == ["STOP"]


async def test_a_monitor_that_never_greets_is_silent(fake: Monitor, session: QmpSession) -> None:
    assert fake.fake is not None
    fake.fake.greets = False

    with pytest.raises(Unknown, match=r"did not greet in 0\.1 s"):
        await session.connect(fake.identity, timeout_s=0.1)


async def test_no_event_is_kept(fake: Monitor, session: QmpSession) -> None:
    """The library's own listener keeps each event for ever: ours must not be behind it."""
    assert fake.fake is not None
    await session.connect(fake.identity, timeout_s=5)
    for _ in range(50):
        await fake.fake.send_event("RTC_CHANGE", offset=1)
    await session.execute(STATUS)

    assert session._client.events.history == ()


async def test_an_idle_session_that_was_cut_is_closed_without_a_word(fake: Monitor, session: QmpSession) -> None:
    assert fake.fake is not None
    await session.connect(fake.identity, timeout_s=5)
    await fake.fake.hang_up()
    await asyncio.sleep(0.01)

    await session.close()

"""A QEMU that somebody started by hand becomes a guest's, and stays as it was."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from contracts.host.conftest import REAL, REAL_10, sweep
from contracts.host.nodes import GUEST, small_machine, source
from contracts.host.stage import launch, open_qcow2
from guestlet.errors import Broken, Refused
from guestlet.host.facts import ProcessIdentity
from guestlet.host.node import NodeHost
from guestlet.host.process import identity_of, is_alive, open_pidfd
from guestlet.qemu import commands
from guestlet.qemu.replies import RunState, parse_status
from guestlet.settings import AgentSettings
from unit.qemu.sample_machines import disk

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.parametrize("real_node", [REAL, REAL_10], indirect=True),
]
DEADLINE_S = 20
OTHERS_UID = 64099  # neither root nor the node's QEMU
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a QEMU as somebody else")


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """A QEMU that some script started, and its own QMP socket."""

    identity: ProcessIdentity
    monitor: Path


def start_by_hand(settings: AgentSettings, folder: Path, *options: str, uid: int = 0) -> ByHand:
    """As ``-daemonize`` does it: started, listening, and nobody's child when the command returns."""
    folder.mkdir()
    if uid:
        os.chown(folder, uid, uid)
    as_whom = ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups") if uid else ()
    data = (option for each in settings.qemu_data_dirs for option in ("-L", str(each)))
    command = (
        *as_whom,
        *(str(settings.qemu_binary), *data, "-nodefaults", "-display", "none", "-M", "pc", "-m", "32"),
        *("-accel", "tcg,tb-size=32", "-S", "-name", "by-hand", "-daemonize", "-pidfile", str(folder / "pid")),
        *("-qmp", f"unix:{folder}/monitor,server=on,wait=off", *options),
    )
    modules = {"QEMU_MODULE_DIR": str(settings.qemu_module_dir)} if settings.qemu_module_dir else {}
    subprocess.run(command, check=True, timeout=DEADLINE_S, env={"PATH": os.environ["PATH"], **modules})
    identity = identity_of(int((folder / "pid").read_text()))
    assert identity is not None
    return ByHand(identity=identity, monitor=folder / "monitor")


@pytest.fixture
def by_hand(real_node: AgentSettings, directory: Path) -> Iterator[ByHand]:
    started = start_by_hand(real_node, directory / "hand")
    yield started
    end(started.identity)


def end(identity: ProcessIdentity) -> None:
    fd = open_pidfd(identity)
    if fd is not None:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        os.close(fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A node's host, and whether it told that something ended."""

    host: NodeHost
    over: asyncio.Event


@pytest.fixture
async def agent(real_node: AgentSettings) -> AsyncIterator[Agent]:
    over = asyncio.Event()
    made = NodeHost(real_node, on_exit=lambda _guest: over.set())
    await made.start()
    try:
        yield Agent(host=made, over=over)
    finally:
        await sweep(made, real_node)


async def run_state(host: NodeHost) -> RunState:
    return parse_status(await host.execute(GUEST, commands.query_status())).run_state


def looks_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Everything in a folder, and whose it is."""
    facts = {each.name: each.lstat() for each in (folder, *folder.iterdir())}
    return {name: (each.st_ino, each.st_mode, each.st_uid, each.st_gid) for name, each in facts.items()}


async def test_it_is_found_and_answers_and_again_is_fine(agent: Agent, by_hand: ByHand) -> None:
    for _ in range(2):
        await agent.host.take_in(GUEST, by_hand.identity, monitor=by_hand.monitor)

        assert (await agent.host.process(GUEST)).running == by_hand.identity
        assert await run_state(agent.host) is RunState.PRELAUNCH
    assert await agent.host.guests() == (GUEST,)
    assert await agent.host.cmdline(by_hand.identity) is not None


async def test_the_next_agent_finds_it_too(agent: Agent, by_hand: ByHand, real_node: AgentSettings) -> None:
    await agent.host.take_in(GUEST, by_hand.identity, monitor=by_hand.monitor)
    await agent.host.close()
    second = NodeHost(real_node)
    await second.start()

    found = await second.process(GUEST)
    state = await run_state(second)

    await second.close()
    await agent.host.start()
    assert (found.running, state) == (by_hand.identity, RunState.PRELAUNCH)


async def test_it_is_found_when_the_state_directory_is_lost(agent: Agent, by_hand: ByHand, directory: Path) -> None:
    await agent.host.take_in(GUEST, by_hand.identity, monitor=by_hand.monitor)
    shutil.rmtree(directory / "state" / "guests" / GUEST)

    assert (await agent.host.process(GUEST)).running == by_hand.identity
    assert await run_state(agent.host) is RunState.PRELAUNCH


@as_root
async def test_a_note_that_qemus_user_wrote_is_not_believed(agent: Agent, by_hand: ByHand, directory: Path) -> None:
    await agent.host.take_in(GUEST, by_hand.identity, monitor=by_hand.monitor)
    shutil.rmtree(directory / "state" / "guests" / GUEST)
    os.chown(directory / "run" / GUEST / "adopted.json", OTHERS_UID, OTHERS_UID)

    assert (await agent.host.process(GUEST)).running is None


async def test_nothing_of_its_own_is_touched(agent: Agent, by_hand: ByHand, directory: Path) -> None:
    before = looks_of(directory / "hand")
    await agent.host.take_in(GUEST, by_hand.identity, monitor=by_hand.monitor)
    await run_state(agent.host)
    with pytest.raises(Broken, match="cannot be forgotten"):
        await agent.host.forget(GUEST)
    assert is_alive(by_hand.identity)
    assert looks_of(directory / "hand") == before

    await agent.host.kill(GUEST, by_hand.identity)
    left = looks_of(directory / "hand")
    await agent.host.forget(GUEST)

    assert "monitor" in left
    assert looks_of(directory / "hand") == left
    assert not (directory / "run" / GUEST).exists()


async def test_its_end_is_seen_and_nobody_knows_how_it_was(agent: Agent, by_hand: ByHand, directory: Path) -> None:
    """The log of an earlier QEMU of the guest is not its last word."""
    await agent.host.take_in(GUEST, by_hand.identity, monitor=by_hand.monitor)
    (directory / "state" / "guests" / GUEST / "qemu.log").write_text("words of another")
    await agent.host.process(GUEST)

    end(by_hand.identity)
    await asyncio.wait_for(agent.over.wait(), DEADLINE_S)

    facts = await agent.host.process(GUEST)
    assert facts.running is None
    assert facts.last_exit is not None
    assert (facts.last_exit.identity, facts.last_exit.code, facts.last_exit.signal) == (by_hand.identity, None, None)
    assert facts.last_exit.log_tail == ""
    assert (await agent.host.process(GUEST)).last_exit == facts.last_exit


async def test_it_says_why_it_goes(agent: Agent, by_hand: ByHand) -> None:
    await agent.host.take_in(GUEST, by_hand.identity, monitor=by_hand.monitor)
    await agent.host.execute(GUEST, commands.quit_qemu())
    await asyncio.wait_for(agent.over.wait(), DEADLINE_S)

    assert agent.host.exit_note(GUEST) == "host-qmp-quit"


async def test_a_process_that_is_gone_is_not_taken_in(agent: Agent, by_hand: ByHand) -> None:
    await agent.host.kill(GUEST, by_hand.identity)

    with pytest.raises(Refused, match=f"QemuExited: process {by_hand.identity.pid} is gone"):
        await agent.host.take_in(GUEST, by_hand.identity, monitor=by_hand.monitor)

    assert await agent.host.guests() == ()


async def test_another_qemu_behind_the_socket_is_not_spoken_to(
    agent: Agent, by_hand: ByHand, real_node: AgentSettings, directory: Path
) -> None:
    other = start_by_hand(real_node, directory / "other")
    try:
        await agent.host.take_in(GUEST, by_hand.identity, monitor=other.monitor)

        with pytest.raises(Broken, match=f"process {other.identity.pid} listens on the guest's monitor"):
            await run_state(agent.host)
    finally:
        end(other.identity)


async def test_a_second_monitor_serves_observers(agent: Agent, real_node: AgentSettings, directory: Path) -> None:
    options = ("-qmp", f"unix:{directory}/hand/second,server=on,wait=off")
    started = start_by_hand(real_node, directory / "hand", *options)
    try:
        second = directory / "hand" / "second"
        await agent.host.take_in(GUEST, started.identity, monitor=started.monitor, observer=second)
        observer = NodeHost(real_node)
        await observer.start(reading=True)

        assert await run_state(agent.host) is RunState.PRELAUNCH
        assert await run_state(observer) is RunState.PRELAUNCH
        await observer.close()
    finally:
        end(started.identity)


async def test_a_start_of_our_own_comes_after_it(agent: Agent, by_hand: ByHand, directory: Path) -> None:
    """Its link makes room for the socket of ours."""
    await agent.host.take_in(GUEST, by_hand.identity, monitor=by_hand.monitor)
    await agent.host.kill(GUEST, by_hand.identity)

    ours = await launch(agent.host, small_machine())

    assert (await agent.host.process(GUEST)).running == ours
    assert await run_state(agent.host) is RunState.PRELAUNCH
    assert (directory / "run" / GUEST / "qmp").is_socket()
    assert not (directory / "run" / GUEST / "qmp").is_symlink()
    assert by_hand.monitor.is_socket()


@as_root
async def test_its_disks_are_lent_to_whoever_it_runs_as(
    agent: Agent, real_node: AgentSettings, directory: Path
) -> None:
    started = start_by_hand(real_node, directory / "hand", uid=OTHERS_UID)
    try:
        await agent.host.take_in(GUEST, started.identity, monitor=started.monitor)
        await agent.host.create_image(source("data"), 1024 * 1024)
        await agent.host.lend_disk(GUEST, replace(disk("data"), source=source("data")))

        await open_qcow2(agent.host, "disk-data", directory / "pool" / "data")
    finally:
        end(started.identity)

    assert (directory / "pool" / "data").stat().st_uid == OTHERS_UID

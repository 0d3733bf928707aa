"""What launching promises, on a real QEMU: its rights, its descriptors, its log, and that it outlives everybody."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.host.conftest import sweep
from contracts.host.nodes import GUEST, launcher_has_gone, launcher_pid, machine_with_a_disk, small_machine, source
from guestlet.errors import Broken, Refused, Unknown
from guestlet.host import launcher_daemon
from guestlet.host.facts import LaunchUser, ProcessIdentity, TapRequest
from guestlet.host.launcher import Launcher, LaunchRequest
from guestlet.host.launcher_notes import LOG_LIMIT_BYTES
from guestlet.host.node import NodeHost
from guestlet.host.process import identity_of, is_alive, open_pidfd, wait_readable
from guestlet.qemu import commands
from guestlet.qemu.commandline import build_argv
from guestlet.qemu.events import Event, Resumed, Shutdown
from guestlet.qemu.machine import Machine, TapNet
from guestlet.qemu.replies import RunState, parse_status
from guestlet.settings import AgentSettings
from unit.qemu.sample_machines import laid_out, nic

pytestmark = [pytest.mark.qemu]
TIMEOUT_S = 20.0
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="an agent that is not root cannot give QEMU other rights")


async def launch(node: NodeHost, machine: Machine | None = None, *extra: str) -> ProcessIdentity:
    machine = machine or small_machine()
    await node.prepare_launch(GUEST, machine)
    argv = build_argv(machine, node.paths(GUEST, machine))
    return await node.launch(GUEST, (*argv, *extra), timeout_s=TIMEOUT_S)


async def launch_script(node: NodeHost, directory: Path, text: str, *, timeout_s: float) -> ProcessIdentity:
    """Something else in QEMU's place."""
    script = directory / "not-qemu"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    await node.prepare_launch(GUEST, small_machine())
    return await node.launch(GUEST, (str(script),), timeout_s=timeout_s)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def ended(identity: ProcessIdentity) -> None:
    pidfd = open_pidfd(identity)
    if pidfd is not None:
        await asyncio.wait_for(wait_readable(pidfd), 5)
        os.close(pidfd)


def modes_in(directory: str) -> dict[str, int]:
    return {each.name: each.stat().st_mode & 0o777 for each in (Path(directory), *Path(directory).iterdir())}


def environment_of(pid: int) -> set[str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    return {each.partition(b"=")[0].decode() for each in entries}


def descriptors_of(pid: int) -> dict[str, str]:
    return {each.name: os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}


async def test_a_launched_qemu_stands_frozen_and_answers(node: NodeHost) -> None:
    identity = await launch(node)

    status = parse_status(await node.execute(GUEST, commands.query_status()))

    assert status.run_state is RunState.PRELAUNCH
    assert (await node.process(GUEST)).running == identity


@as_root
async def test_qemu_runs_without_privileges(node: NodeHost, settings: AgentSettings) -> None:
    identity = await launch(node)

    status = status_of(identity.pid)

    assert node.launch_user is LaunchUser.UNPRIVILEGED
    assert status["Uid"].split() == [str(settings.qemu_uid)] * 4
    assert status["Gid"].split() == [str(settings.qemu_gid)] * 4
    assert status["Groups"] == ""
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert status["Umask"] == "0177"


async def test_qemu_has_a_session_of_its_own_and_a_clean_environment(
    node: NodeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUESTLET_SECRET", "must not be seen")
    identity = await launch(node)

    assert os.getsid(identity.pid) == identity.pid
    assert environment_of(identity.pid) == {"PATH", "LANG"}


async def test_only_what_was_passed_is_open_in_qemu(node: NodeHost, directory: Path) -> None:
    """A script shows what it was born with: QEMU opens files of its own."""
    leak = os.open(directory, os.O_RDONLY)
    os.set_inheritable(leak, True)
    listing = directory / "listing"
    listing.touch()
    listing.chmod(0o666)

    with pytest.raises(Refused):
        await launch_script(node, directory, f"ls -l /proc/self/fd > {listing}", timeout_s=TIMEOUT_S)

    os.close(leak)
    opened = {line.split()[-3]: line.split()[-1] for line in listing.read_text().splitlines() if "->" in line}
    assert opened["0"] == "/dev/null"
    assert opened["2"].startswith("pipe:")
    assert sorted(opened) == ["0", "1", "2", "3"]  # 3 is the listing's own


async def test_its_sockets_are_qemus_alone(node: NodeHost) -> None:
    await launch(node)

    modes = modes_in(node.paths(GUEST, small_machine()).runtime_dir)

    assert modes == {GUEST: 0o700, "qmp": 0o600, "observer": 0o600, "console": 0o600}


@as_root
async def test_its_image_is_qemus_alone_and_is_locked_while_it_runs(node: NodeHost, settings: AgentSettings) -> None:
    await node.create_image(source("root.qcow2"), 16 * 1024 * 1024)
    await launch(node, machine_with_a_disk())

    facts = (settings.pools[0].path / "root.qcow2").stat()
    image = await node.image("default", "root.qcow2")

    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (settings.qemu_uid, settings.qemu_gid, 0o600)
    assert image is not None
    assert image.locked


async def test_the_command_line_is_the_one_that_was_asked_for(node: NodeHost) -> None:
    identity = await launch(node)

    assert await node.cmdline(identity) == build_argv(small_machine(), node.paths(GUEST, small_machine()))


async def test_a_second_qemu_of_a_guest_is_not_started(node: NodeHost) -> None:
    first = await launch(node)

    with pytest.raises(Unknown, match="runs already"):
        await launch(node)

    assert (await node.process(GUEST)).running == first


async def test_the_lock_on_the_pidfile_stops_a_second_qemu_that_nobody_noticed(
    node: NodeHost, settings: AgentSettings
) -> None:
    """Even when every note of the first one is lost."""
    first = await launch(node)
    state = settings.state_dir / "guests" / GUEST
    (state / "launch.json").unlink()

    assert (await node.process(GUEST)).running == first

    argv = build_argv(small_machine(), node.paths(GUEST, small_machine()))
    second = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    _, said = await asyncio.wait_for(second.communicate(), TIMEOUT_S)
    assert second.returncode == 1
    assert b"PID file" in said


async def test_a_qemu_whose_state_directory_is_gone_is_found_by_its_socket(
    node: NodeHost, settings: AgentSettings
) -> None:
    first = await launch(node)
    for each in (settings.state_dir / "guests" / GUEST).iterdir():
        each.unlink()

    assert (await node.process(GUEST)).running == first


async def test_a_new_agent_finds_the_qemu_of_the_one_before(node: NodeHost, settings: AgentSettings) -> None:
    first = await launch(node)
    await node.close()
    second_agent = NodeHost(settings)
    await second_agent.start()

    found = await second_agent.process(GUEST)
    status = parse_status(await second_agent.execute(GUEST, commands.query_status()))

    assert found.running == first
    assert status.run_state is RunState.PRELAUNCH
    await sweep(second_agent, settings)
    await node.start()


async def test_a_second_agent_for_the_directory_is_refused_and_told_who_has_it(
    node: NodeHost, settings: AgentSettings
) -> None:
    second = NodeHost(settings.model_copy(update={"node_name": "node-b"}))

    with pytest.raises(Refused, match=f"agent node-a \\(pid {os.getpid()}\\)"):
        await second.start()


@pytest.mark.slow
async def test_qemu_lives_on_without_its_launcher_and_its_end_is_seen(node: NodeHost, directory: Path) -> None:
    identity = await launch(node)
    os.kill(launcher_pid(directory), signal.SIGKILL)
    launcher_has_gone(directory)

    assert parse_status(await node.execute(GUEST, commands.query_status())).run_state is RunState.PRELAUNCH
    await node.kill(GUEST, identity)

    facts = await node.process(GUEST)
    assert facts.running is None
    assert facts.last_exit is not None
    assert (facts.last_exit.identity, facts.last_exit.code, facts.last_exit.signal) == (identity, None, None)
    assert (await node.process(GUEST)).last_exit == facts.last_exit


@pytest.mark.slow
async def test_a_qemu_that_writes_to_its_log_without_a_launcher_does_not_die_of_it(
    node: NodeHost, directory: Path
) -> None:
    identity = await launch(node)
    os.kill(launcher_pid(directory), signal.SIGKILL)
    launcher_has_gone(directory)

    # QEMU says on stderr who sent it a SIGTERM, then ends as it always does.
    os.kill(identity.pid, signal.SIGTERM)
    await ended(identity)

    assert (await node.process(GUEST)).running is None


@pytest.mark.slow
async def test_a_launch_after_the_launchers_death_starts_another(node: NodeHost, directory: Path) -> None:
    first = await launch(node)
    await node.kill(GUEST, first)
    killed = launcher_pid(directory)
    os.kill(killed, signal.SIGKILL)
    launcher_has_gone(directory)

    second = await launch(node)

    assert launcher_pid(directory) != killed
    assert (await node.process(GUEST)).running == second


async def test_the_exit_code_is_reported(node: NodeHost) -> None:
    identity = await launch(node)
    await node.execute(GUEST, commands.quit_qemu())
    await ended(identity)

    facts = await node.process(GUEST)

    assert facts.last_exit is not None
    assert (facts.last_exit.identity, facts.last_exit.code) == (identity, 0)
    assert node.exit_note(GUEST) == "host-qmp-quit"


async def test_the_signal_that_ended_it_is_reported(node: NodeHost) -> None:
    identity = await launch(node)
    os.kill(identity.pid, signal.SIGABRT)
    await ended(identity)

    facts = await node.process(GUEST)

    assert facts.last_exit is not None
    assert (facts.last_exit.code, facts.last_exit.signal) == (None, signal.SIGABRT)


async def test_a_qemu_that_exits_at_once_is_refused_with_the_end_of_its_log(node: NodeHost) -> None:
    with pytest.raises(Refused, match=r"QemuExited: .*code 1.*-bogus: invalid option"):
        await launch(node, None, "-bogus")


async def test_a_binary_that_is_not_there_is_refused(node: NodeHost) -> None:
    await node.prepare_launch(GUEST, small_machine())

    with pytest.raises(Refused, match=r"LaunchFailed: .*No such file"):
        await node.launch(GUEST, ("/nowhere/qemu",), timeout_s=TIMEOUT_S)


@pytest.mark.slow
async def test_a_qemu_that_never_opens_its_monitor_is_unknown_by_the_deadline(node: NodeHost, directory: Path) -> None:
    before = time.monotonic()

    with pytest.raises(Unknown, match="QemuSilent"):
        await launch_script(node, directory, "exec sleep 60", timeout_s=0.3)

    assert time.monotonic() - before < 2
    running = (await node.process(GUEST)).running
    assert running is not None
    await node.kill(GUEST, running)


async def test_a_log_that_grows_is_cut(node: NodeHost, directory: Path, settings: AgentSettings) -> None:
    written = 4 * LOG_LIMIT_BYTES

    with pytest.raises(Refused):
        await launch_script(node, directory, f"yes words | head -c {written}; echo last words", timeout_s=TIMEOUT_S)

    state = settings.state_dir / "guests" / GUEST
    sizes = [(state / name).stat().st_size for name in ("qemu.log", "qemu.log.1")]
    facts = await node.process(GUEST)
    assert max(sizes) <= LOG_LIMIT_BYTES
    assert facts.last_exit is not None
    assert facts.last_exit.log_tail.endswith("last words")


async def test_kill_never_reaches_another_process_of_the_number(node: NodeHost) -> None:
    identity = await launch(node)

    await node.kill(GUEST, replace(identity, start_ticks=identity.start_ticks - 1))

    assert is_alive(identity)


async def test_a_running_guest_is_not_forgotten(node: NodeHost) -> None:
    identity = await launch(node)

    with pytest.raises(Broken, match="cannot be forgotten"):
        await node.forget(GUEST)

    await node.kill(GUEST, identity)
    await node.forget(GUEST)
    assert await node.guests() == ()


@pytest.fixture
async def heard(settings: AgentSettings) -> AsyncIterator[tuple[NodeHost, list[Event], asyncio.Event]]:
    events: list[Event] = []
    over = asyncio.Event()
    host = NodeHost(settings, on_event=lambda _, event: events.append(event), on_exit=lambda _: over.set())
    await host.start()
    try:
        yield host, events, over
    finally:
        await sweep(host, settings)


async def test_events_and_the_end_are_told(heard: tuple[NodeHost, list[Event], asyncio.Event]) -> None:
    node, events, over = heard
    await launch(node)

    await node.execute(GUEST, commands.cont())
    await node.execute(GUEST, commands.quit_qemu())
    await asyncio.wait_for(over.wait(), 5)

    assert [type(each) for each in events if isinstance(each, Resumed | Shutdown)] == [Resumed, Shutdown]


async def test_descriptors_arrive_at_their_numbers(node: NodeHost, directory: Path) -> None:
    """Through the launcher alone: taps need more rights than some machines give."""
    fd = os.open(directory / "pool", os.O_RDONLY | os.O_CLOEXEC)
    launcher = Launcher(state_dir=directory / "state", runtime_dir=directory / "run")
    request = LaunchRequest(
        argv=("/bin/sleep", "60"),
        environment={"PATH": "/usr/bin:/bin"},
        user=None,
        log=directory / "log",
        launch_note=directory / "launch.json",
        exit_note=directory / "exit.json",
        fds=((fd, 32), (fd, 7)),
    )

    identity = await launcher.launch(request, timeout_s=5)
    os.close(fd)

    wanted = ["0", "1", "2", "32", "7"]
    # The program's loader opens and closes its libraries while we look.
    for _ in range(500):
        opened = descriptors_of(identity.pid)
        if sorted(opened) == wanted:
            break
        await asyncio.sleep(0.01)
    assert sorted(opened) == wanted
    assert opened["7"] == opened["32"] == str(directory / "pool")
    assert identity_of(identity.pid) == identity
    os.kill(identity.pid, signal.SIGKILL)


def interface_names() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


@as_root
@pytest.mark.slow
async def test_a_tap_passes_to_qemu_and_vanishes_with_it(node: NodeHost) -> None:
    """Two queues, one of them only offered; and QEMU may open neither /dev/net/tun nor the bridge."""
    name = f"gt{os.getpid()}"
    network = replace(nic("lan", backend=TapNet(up_script=None, down_script=None)), tap=name, queues=2)
    machine = laid_out(replace(small_machine(), networks=(network,)))
    await node.open_tap(GUEST, TapRequest(name=name, queues=2, bridge=None))

    identity = await launch(node, machine)

    opened = descriptors_of(identity.pid)
    assert opened["32"] == opened["33"] == "/dev/net/tun"
    assert name in interface_names()
    await node.kill(GUEST, identity)
    assert name not in interface_names()


@as_root
async def test_a_launch_without_its_tap_is_refused(node: NodeHost) -> None:
    network = replace(nic("lan", backend=TapNet(up_script=None, down_script=None)), tap="gtnone")

    with pytest.raises(Refused, match="TapFailed: tap gtnone was not opened"):
        await launch(node, laid_out(replace(small_machine(), networks=(network,))))


@pytest.mark.slow
def test_the_launcher_is_small_and_quick(directory: Path) -> None:
    """Both are paid by every node: at most 14 MiB resident, and one a state directory."""
    (directory / "state").mkdir()
    (directory / "run").mkdir()
    daemon = str(Path(launcher_daemon.__file__))
    command = [sys.executable, "-S", "-E", "-I", daemon, str(directory / "state"), str(directory / "run")]
    subprocess.run(command, check=True, timeout=10)
    pid = launcher_pid(directory)
    resident_kib = int(status_of(pid)["VmRSS"].split()[0])
    second = subprocess.run(command, check=False, timeout=10, capture_output=True)

    os.kill(pid, signal.SIGTERM)
    launcher_has_gone(directory)
    assert resident_kib < 14 * 1024
    assert second.returncode != 0
    assert not (directory / "run" / "launcher.sock").exists()


@pytest.mark.slow
async def test_an_idle_launcher_leaves_nothing_behind(directory: Path) -> None:
    (directory / "state").mkdir()
    (directory / "run").mkdir()
    source_root = str(Path(launcher_daemon.__file__).parents[2])
    program = (
        f"import sys; sys.path.append({source_root!r}); from guestlet.host import launcher_daemon as daemon; "
        f"daemon.IDLE_S = 0.1; daemon.main({str(directory / 'state')!r}, {str(directory / 'run')!r})"
    )
    started = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    await asyncio.wait_for(started.wait(), 10)

    await asyncio.to_thread(launcher_has_gone, directory)

    launcher = Launcher(state_dir=directory / "state", runtime_dir=directory / "run")
    assert not await launcher.stop()
    assert not (directory / "run" / "launcher.sock").exists()


@pytest.mark.parametrize(
    "note",
    [
        f'{{"pid": {os.getpid()}, "startTicks": 1, "bootId": "another boot"}}',
        f'{{"pid": {os.getpid()}, "startTicks": 1}}',
    ],
)
async def test_a_note_of_another_boot_or_process_is_an_end_that_nobody_saw(
    node: NodeHost, settings: AgentSettings, note: str
) -> None:
    await node.write_file(GUEST, "launch.json", note.encode())

    facts = await node.process(GUEST)

    assert facts.running is None
    assert facts.last_exit is not None
    assert (facts.last_exit.code, facts.last_exit.signal) == (None, None)
    assert (await node.process(GUEST)).last_exit == facts.last_exit


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": "x"}'])
async def test_a_note_that_a_power_cut_spoiled_tells_nothing(node: NodeHost, note: str) -> None:
    await node.write_file(GUEST, "launch.json", note.encode())

    facts = await node.process(GUEST)

    assert (facts.running, facts.last_exit) == (None, None)

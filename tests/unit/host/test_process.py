import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from guestlet.host import process
from guestlet.host.facts import ProcessIdentity


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        # The kernel lets go of the descriptor that Popen waits for before the new program's arguments are in place.
        while not Path(f"/proc/{child.pid}/cmdline").read_bytes():
            os.sched_yield()
        yield child
        child.kill()


def identity(pid: int) -> ProcessIdentity:
    found = process.identity_of(pid)
    assert found is not None
    return found


def test_a_process_is_itself_and_not_a_later_one_of_its_number() -> None:
    me = identity(os.getpid())

    assert process.is_alive(me)
    assert not process.is_alive(replace(me, start_ticks=me.start_ticks + 1))


def test_a_name_with_parentheses_and_blanks_does_not_confuse_the_reader(tmp_path: Path) -> None:
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([odd, "60"]) as child:
        ticks = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]

        assert identity(child.pid).start_ticks == int(ticks)
        child.kill()


def test_nobody_has_no_identity() -> None:
    assert process.identity_of(2**22 + 1) is None


def test_a_zombie_is_no_living_process_and_names_its_parent(sleeper: subprocess.Popen[bytes]) -> None:
    was = identity(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)

    assert not process.is_alive(was)
    assert process.zombies_parent(was) == os.getpid()
    assert process.zombies_parent(identity(os.getpid())) is None


def test_arguments_are_read_whole(sleeper: subprocess.Popen[bytes]) -> None:
    found = identity(sleeper.pid)

    assert process.command_line(found) == ("sleep", "60")
    assert process.command_line(replace(found, start_ticks=1)) is None


async def test_a_kill_reaches_its_process_and_returns_when_it_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    target = identity(sleeper.pid)

    await process.kill_process(target, timeout_s=5)

    assert not process.is_alive(target)
    await process.kill_process(target, timeout_s=5)


async def test_a_kill_spares_a_later_process_of_the_number(sleeper: subprocess.Popen[bytes]) -> None:
    target = identity(sleeper.pid)

    await process.kill_process(replace(target, start_ticks=target.start_ticks - 1), timeout_s=5)

    assert process.is_alive(target)


async def test_the_end_of_a_watched_process_is_told_once(sleeper: subprocess.Popen[bytes]) -> None:
    told = asyncio.Queue[str]()
    watch = process.ExitWatch()
    target = identity(sleeper.pid)
    watch.watch("guest", target, told.put_nowait)
    watch.watch("guest", target, told.put_nowait)
    assert watch.watched("guest") == target

    sleeper.kill()

    assert await asyncio.wait_for(told.get(), 5) == "guest"
    await asyncio.sleep(0)
    assert told.empty()
    assert watch.watched("guest") is None


async def test_the_end_of_a_process_that_was_gone_already_is_told_too(sleeper: subprocess.Popen[bytes]) -> None:
    told = asyncio.Queue[str]()
    gone = replace(identity(sleeper.pid), start_ticks=1)

    process.ExitWatch().watch("guest", gone, told.put_nowait)

    assert await asyncio.wait_for(told.get(), 5) == "guest"


async def test_a_dropped_watch_tells_nothing(sleeper: subprocess.Popen[bytes]) -> None:
    told = asyncio.Queue[str]()
    watch = process.ExitWatch()
    watch.watch("guest", identity(sleeper.pid), told.put_nowait)

    watch.close()
    sleeper.kill()
    sleeper.wait()
    await asyncio.sleep(0.01)

    assert told.empty()


LOCKER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.{call}
print("held", flush=True)
sys.stdin.read()
"""


def locker(path: Path, call: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", LOCKER.format(call=call), str(path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    return child


def test_the_holder_of_qemus_lock_is_named_by_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "qemu.pid"
    with locker(path, "lockf(file, fcntl.LOCK_EX)") as holder:
        assert process.lock_holder(path) == holder.pid
    assert process.lock_holder(path) is None


def test_a_lock_without_a_pid_counts_and_the_file_names_the_holder(tmp_path: Path) -> None:
    """An open-file-description lock has no owner's pid."""
    path = tmp_path / "qemu.pid"
    call = "fcntl(file, 37, __import__('struct').pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))"
    with locker(path, call):
        path.write_text("4711\n")
        assert process.lock_holder(path) == 4711
    assert fcntl.F_OFD_SETLK == 37


def test_no_pidfile_no_holder(tmp_path: Path) -> None:
    assert process.lock_holder(tmp_path / "qemu.pid") is None


def test_who_listens_on_a_socket_is_known(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert process.listener_pid(path) is None
        listener.listen()
        assert process.listener_pid(path) == os.getpid()
    assert process.listener_pid(path) is None
    assert process.listener_pid(tmp_path / "nothing") is None


async def test_a_stuck_process_is_unknown_by_the_deadline(sleeper: subprocess.Popen[bytes]) -> None:
    """Nothing in user space survives SIGKILL; so the wait alone is looked at."""
    fd = process.open_pidfd(identity(sleeper.pid))
    assert fd is not None

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait_readable(fd), 0.01)

    os.close(fd)
    sleeper.send_signal(signal.SIGKILL)

"""Finding what agents leave behind: by locks that processes hold for life, never by a number in a file."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.leftovers import end_guests, end_launchers, launcher_of, processes_below, qemu_of, running_guests

# As QEMU does it (a lock of fcntl on the whole file) and as the launcher does it (flock).
HOLD = """
import fcntl, os, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX) if sys.argv[2] == "qemu" else fcntl.flock(file, fcntl.LOCK_EX)
file.write(str(os.getpid()))
file.flush()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(file: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    command = [sys.executable, "-c", HOLD, str(file), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_qemu_is_known_by_its_lock_and_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "node-a" / "state" / "guests" / "one" / "qemu.pid"
    with holder(pid_file, "qemu") as process:
        assert qemu_of(pid_file) == process.pid
        assert running_guests(tmp_path) == {pid_file: process.pid}
        assert end_guests(tmp_path) == 1
        assert process.wait(10) != 0
    assert running_guests(tmp_path) == {}


def test_a_pidfile_that_names_a_living_process_without_its_lock_harms_nobody(tmp_path: Path) -> None:
    pid_file = tmp_path / "node-a" / "state" / "guests" / "one" / "qemu.pid"
    pid_file.parent.mkdir(parents=True)
    pid_file.write_text(str(os.getpid()))

    assert qemu_of(pid_file) is None
    assert end_guests(tmp_path) == 0


def test_a_launcher_is_known_by_its_lock_and_ended(tmp_path: Path) -> None:
    lock_file = tmp_path / "node-a" / "state" / "launcher.lock"
    with holder(lock_file, "launcher") as process:
        assert launcher_of(lock_file) == process.pid
        assert end_launchers(tmp_path) == 1
        assert process.wait(10) != 0
    assert launcher_of(lock_file) is None
    with lock_file.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_processes_are_found_by_the_folder_they_name(tmp_path: Path) -> None:
    with holder(tmp_path / "mine" / "lock", "launcher") as process:
        assert set(processes_below(tmp_path / "mine")) == {process.pid}
        assert processes_below(tmp_path / "min") == {}

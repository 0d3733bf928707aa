"""Daemons are found again by pid and start time, and only they are ended."""

import dataclasses
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import processes
from sandbox.errors import SandboxError
from sandbox.processes import Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    value = Daemon(
        name="sleeper",
        argv=("sleep", "600"),
        pid_file=tmp_path / "run" / "sleeper.pid",
        log_file=tmp_path / "log" / "sleeper.log",
        directory=tmp_path,
    )
    yield value
    processes.stop(value.pid_file, kill=True)


def with_script(daemon: Daemon, script: str) -> Daemon:
    return dataclasses.replace(daemon, argv=("sh", "-c", script))


def wait_for_line(log: Path, line: str) -> None:
    # The pipe-less way to hear of a line: the test below writes it once, and soon.
    while not log.exists() or line not in log.read_text():
        select.select((), (), (), 0.005)


def test_a_started_daemon_is_alive_under_its_own_command_line(daemon: Daemon) -> None:
    pid = processes.start(daemon)
    assert processes.alive_pid(daemon.pid_file) == pid
    assert processes.command_line(pid) == daemon.argv


def test_a_daemon_leads_a_session_of_its_own_in_its_directory(daemon: Daemon) -> None:
    pid = processes.start(daemon)
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cwd").resolve() == daemon.directory.resolve()


def test_a_daemon_inherits_no_descriptor_but_its_log(daemon: Daemon, tmp_path: Path) -> None:
    inherited, ours = os.pipe()
    os.set_inheritable(ours, True)
    try:
        processes.start(with_script(daemon, "for fd in /proc/$$/fd/*; do readlink $fd; done; echo end; exec sleep 600"))
        wait_for_line(daemon.log_file, "end")
    finally:
        os.close(inherited)
        os.close(ours)
    assert set(daemon.log_file.read_text().splitlines()) == {"/dev/null", str(daemon.log_file), "end"}


def test_stopping_ends_it_and_forgets_it(daemon: Daemon) -> None:
    pid = processes.start(daemon)
    assert processes.stop(daemon.pid_file) is True
    assert not Path(f"/proc/{pid}").exists()
    assert not daemon.pid_file.exists()
    assert processes.stop(daemon.pid_file) is False


def test_a_daemon_deaf_to_sigterm_is_killed_after_the_deadline(daemon: Daemon) -> None:
    processes.start(with_script(daemon, "trap '' TERM; echo deaf; while :; do sleep 600; done"))
    wait_for_line(daemon.log_file, "deaf")
    assert processes.stop(daemon.pid_file, timeout_s=0.05) is True
    assert processes.alive_pid(daemon.pid_file) is None


def test_a_recycled_pid_is_neither_alive_nor_touched(daemon: Daemon) -> None:
    processes.start(daemon)
    truth = daemon.pid_file.read_text()
    pid, start_time, boot = truth.split()
    daemon.pid_file.write_text(f"{pid} {int(start_time) - 1} {boot}")
    assert processes.alive_pid(daemon.pid_file) is None
    assert processes.stop(daemon.pid_file, kill=True) is False
    daemon.pid_file.write_text(truth)
    assert processes.alive_pid(daemon.pid_file) == int(pid)


def test_a_pid_file_of_an_earlier_boot_names_nobody(daemon: Daemon) -> None:
    processes.start(daemon)
    recorded = daemon.pid_file.read_text()
    pid, start_time, _ = recorded.split()
    daemon.pid_file.write_text(f"{pid} {start_time} 00000000-0000-0000-0000-000000000000")
    assert processes.alive_pid(daemon.pid_file) is None
    daemon.pid_file.write_text(recorded)


@pytest.mark.parametrize("content", ["", "12", "12 x y", "garbage"])
def test_a_damaged_pid_file_names_nobody(tmp_path: Path, content: str) -> None:
    pid_file = tmp_path / "x.pid"
    pid_file.write_text(content)
    assert processes.alive_pid(pid_file) is None
    assert processes.stop(pid_file) is False


def test_a_daemon_killed_from_outside_is_dead(daemon: Daemon) -> None:
    pid = processes.start(daemon)
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    select.select([pidfd], (), (), 10)
    os.close(pidfd)
    assert processes.alive_pid(daemon.pid_file) is None


def test_a_program_that_cannot_be_started_is_said_with_its_log(daemon: Daemon) -> None:
    with pytest.raises(SandboxError, match=r"sleeper ended at once:\n.*/no/such/program"):
        processes.start(dataclasses.replace(daemon, argv=("/no/such/program",)))
    assert processes.alive_pid(daemon.pid_file) is None


def test_a_directory_that_is_not_there_is_said(daemon: Daemon) -> None:
    with pytest.raises(SandboxError, match="/no/such/directory"):
        processes.start(dataclasses.replace(daemon, directory=Path("/no/such/directory")))


def test_a_record_that_cannot_be_written_stops_the_start(daemon: Daemon) -> None:
    daemon.pid_file.with_name(daemon.pid_file.name + ".new").mkdir(parents=True)
    with pytest.raises(SandboxError, match="sleeper ended at once"):
        processes.start(daemon)


def test_a_long_log_is_put_aside_at_the_next_start(daemon: Daemon) -> None:
    daemon.log_file.parent.mkdir(parents=True)
    with daemon.log_file.open("wb") as log:
        log.truncate(processes.LOG_KEPT_BYTES + 1)
    processes.start(daemon)
    assert daemon.log_file.stat().st_size < processes.LOG_KEPT_BYTES
    assert daemon.log_file.with_name("sleeper.log.1").exists()

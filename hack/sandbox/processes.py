"""Daemons of the sandbox: started in a session of their own, found again by pid and start time, ended by pidfd.

It must never signal a process whose start time is not the recorded one: pids are recycled.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.errors import SandboxError

_START_TIMEOUT_S = 10.0
LOG_KEPT_BYTES = 16 * 1024 * 1024

# The shell records itself before it becomes the daemon (exec keeps pid and start time), so that a starter that is
# killed in between never leaves a daemon that nobody knows.
_RECORD_THEN_EXEC = """\
record=$1; directory=$2; shift 2
read -r stat </proc/$$/stat && read -r boot </proc/sys/kernel/random/boot_id || exit 126
start_time=$(echo "${stat##*) }" | cut -d' ' -f20)
cd "$directory" && echo "$$ $start_time $boot" >"$record.new" && mv "$record.new" "$record" && exec "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """What is needed to start a daemon and to find it again."""

    name: str
    argv: tuple[str, ...]
    pid_file: Path
    log_file: Path
    directory: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same pid; `start_time` is in clock ticks."""

    pid: int
    start_time: int
    boot: str


def start(daemon: Daemon) -> int:
    """Start the daemon and return its pid, when its pid file is written and its own program runs.

    The caller makes sure that it is not running (`alive_pid`) and that nobody else starts it at the same time.

    Raises: SandboxError with the end of its log when it ended at once.
    """
    daemon.pid_file.parent.mkdir(parents=True, exist_ok=True)
    daemon.log_file.parent.mkdir(parents=True, exist_ok=True)
    daemon.pid_file.unlink(missing_ok=True)
    _rotate(daemon.log_file)
    shell = ("sh", "-c", _RECORD_THEN_EXEC, daemon.name, str(daemon.pid_file.absolute()), str(daemon.directory))
    pid = os.posix_spawn(
        "/bin/sh",
        (*shell, *daemon.argv),
        dict(daemon.environment),
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(daemon.log_file), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable_descriptors()),
        ),
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ),
    )
    # Whoever looks at the pid file from now on is to see the program, not the shell before it.
    deadline = time.monotonic() + _START_TIMEOUT_S
    while (words := command_line(pid))[: len(shell)] == shell or not words:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        if _ended(pid):
            raise SandboxError(f"{daemon.name} ended at once:\n{log_tail(daemon.log_file)}")
        time.sleep(0.002)
    return pid


def alive_pid(pid_file: Path) -> int | None:
    """Give the pid of the recorded process if that very process is alive, else None."""
    identity = _recorded(pid_file)
    return identity.pid if identity is not None and _identity(identity.pid) == identity else None


def command_line(pid: int) -> tuple[str, ...]:
    """Give the arguments of a process, empty if it is gone."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in raw.split(b"\0")[:-1])


def stop(pid_file: Path, *, timeout_s: float = 10.0, kill: bool = False) -> bool:
    """End the recorded process: SIGTERM, after the deadline SIGKILL; tell whether it was alive.

    Args:
        pid_file: what `start` wrote; it is removed.
        timeout_s: how long the process has after SIGTERM.
        kill: send SIGKILL at once, as a crash would.

    Raises: SandboxError when it outlives even SIGKILL by ten seconds.
    """
    return stop_all((pid_file,), timeout_s=timeout_s, kill=kill) == 1


def stop_all(pid_files: Iterable[Path], *, timeout_s: float = 10.0, kill: bool = False) -> int:
    """End the recorded processes side by side, as `stop` does, and tell how many were alive."""
    files = tuple(pid_files)
    with contextlib.ExitStack() as stack:
        handles = {}
        for pid_file in files:
            opened = _open_pidfd(pid_file)
            if opened is not None:
                pid, pidfd = opened
                stack.callback(os.close, pidfd)
                handles[pidfd] = pid
        survivors = _signal_and_wait(handles, signal.SIGKILL if kill else signal.SIGTERM, timeout_s)
        survivors = _signal_and_wait(survivors, signal.SIGKILL, 10.0)
    for pid in handles.values():
        _ended(pid)
    if survivors:
        raise SandboxError(f"processes {sorted(survivors.values())} outlive SIGKILL")
    for pid_file in files:
        pid_file.unlink(missing_ok=True)
    return len(handles)


def log_tail(log_file: Path, *, lines: int = 15) -> str:
    """Give the last lines of a log, for the message about what failed."""
    try:
        text = log_file.read_text(errors="replace")
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(text.splitlines()[-lines:]) or f"({log_file} is empty)"


def _inheritable_descriptors() -> tuple[int, ...]:
    # What our own starter left open to us, a pipe for instance at whose other end somebody waits for us to end.
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        # The descriptor of the listing itself is closed by now.
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                descriptors.append(int(name))
    return tuple(descriptors)


def _rotate(log_file: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log_file.stat().st_size > LOG_KEPT_BYTES:
            log_file.rename(log_file.with_name(log_file.name + ".1"))


def _recorded(pid_file: Path) -> ProcessIdentity | None:
    try:
        words = pid_file.read_text().split()
    except FileNotFoundError:
        return None
    if len(words) != 3 or not (words[0].isdecimal() and words[1].isdecimal()):
        return None
    return ProcessIdentity(pid=int(words[0]), start_time=int(words[1]), boot=words[2])


def _identity(pid: int) -> ProcessIdentity | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything, even a parenthesis: fields are counted from the last one.
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ProcessIdentity(pid=pid, start_time=int(fields[19]), boot=boot)


def _open_pidfd(pid_file: Path) -> tuple[int, int] | None:
    identity = _recorded(pid_file)
    if identity is None:
        return None
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    # Compared after the pidfd holds the process: from here on the pid cannot become another's.
    if _identity(identity.pid) != identity:
        os.close(pidfd)
        _ended(identity.pid)
        return None
    return identity.pid, pidfd


def _signal_and_wait(handles: Mapping[int, int], number: signal.Signals, timeout_s: float) -> dict[int, int]:
    poller = select.poll()
    remaining = dict(handles)
    for pidfd in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        poller.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while remaining and (left_s := deadline - time.monotonic()) > 0:
        for pidfd, _ in poller.poll(left_s * 1000):
            poller.unregister(pidfd)
            del remaining[pidfd]
    return remaining


def _ended(pid: int) -> bool:
    """Reap the process if it is our own dead child: whoever starts a daemon and lives on must leave no zombie."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False

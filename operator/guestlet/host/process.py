"""Processes by identity: found, watched and killed without ever confusing a process with a later one of its number.

It must never signal a bare pid: only a pidfd whose process was seen to be the one meant.
"""

import asyncio
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Unknown
from guestlet.host.facts import ProcessIdentity

_FLOCK = "hhqqi4x"  # struct flock of the 64-bit ABIs: l_type, l_whence, l_start, l_len, l_pid
_UCRED = "iII"  # struct ucred: pid, uid, gid


def boot_id() -> str:
    """The kernel's name for this boot: identities of another boot say nothing about this one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command in parentheses may hold blanks and parentheses itself: fields are counted after the last one.
    return text[text.rindex(")") + 2 :].split()


def identity_of(pid: int) -> ProcessIdentity | None:
    """The living process of that number; ``None`` when there is none or only its zombie is left."""
    fields = _stat_fields(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return ProcessIdentity(pid=pid, start_ticks=int(fields[19]))


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs."""
    return identity_of(identity.pid) == identity


def zombies_parent(identity: ProcessIdentity) -> int | None:
    """Pid of the parent that has yet to learn that this very process ended; ``None`` when there is no such zombie."""
    fields = _stat_fields(identity.pid)
    if fields is None or fields[0] != "Z" or int(fields[19]) != identity.start_ticks:
        return None
    return int(fields[1])


def user_of(identity: ProcessIdentity) -> tuple[int, int] | None:
    """Uid and gid that very process opens files with, or ``None`` when it is gone."""
    try:
        lines = Path(f"/proc/{identity.pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    ids = {name: value.split() for name, _, value in (line.partition(":") for line in lines) if name in ("Uid", "Gid")}
    # Real, effective, saved and file system's, see proc(5).
    return (int(ids["Uid"][3]), int(ids["Gid"][3])) if is_alive(identity) else None


def command_line(identity: ProcessIdentity) -> tuple[str, ...] | None:
    """The arguments of that very process, or ``None`` when it is gone."""
    try:
        data = Path(f"/proc/{identity.pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if not data or not is_alive(identity):
        return None
    return tuple(os.fsdecode(part) for part in data.removesuffix(b"\0").split(b"\0"))


def lock_holder(pidfile: Path) -> int | None:
    """Pid of the process that holds QEMU's lock on its pidfile; ``None`` when nobody does.

    QEMU takes a POSIX write lock on the whole file (``qemu_write_pidfile``), so the kernel names the holder. A lock
    without an owner's pid (an open-file-description lock, another pid namespace) is still a lock: then the number in
    the file counts.

    Raises:
        Unknown: QemuUnknown, the lock is held and neither the kernel nor the file says by whom.
    """
    try:
        fd = os.open(pidfile, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            return None
        if pid > 0:
            return int(pid)
        text = os.pread(fd, 32, 0).decode(errors="replace").strip()
    finally:
        os.close(fd)
    if not text.isdecimal():
        raise Unknown(Reason.QEMU_UNKNOWN, f"{pidfile} is locked by a process that cannot be named; a QEMU may run")
    return int(text)


def peer_pid(connection: socket.socket) -> int:
    """Pid of the process at the other end of a Unix socket (the one that called listen(2), for a connecting end)."""
    size = struct.calcsize(_UCRED)
    pid, _, _ = struct.unpack(_UCRED, connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid)


def listener_pid(path: Path) -> int | None:
    """Pid of the process that listens on a Unix socket; ``None`` when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            return None
        return peer_pid(probe)


def open_pidfd(identity: ProcessIdentity) -> int | None:
    """A descriptor of that very process, for the caller to close; ``None`` when it is gone."""
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    # The number may have been given to another process before pidfd_open, not after: so look now.
    fields = _stat_fields(identity.pid)
    if fields is None or int(fields[19]) != identity.start_ticks:
        os.close(fd)
        return None
    return fd


async def wait_readable(fd: int) -> None:
    """Returns when a descriptor can be read; for a pidfd: when its process has ended."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def mark() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, mark)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def kill_process(identity: ProcessIdentity, *, timeout_s: float) -> None:
    """SIGKILL to that very process, and no other; returns when it has ended. Gone before is fine.

    Raises:
        Unknown: QemuUnknown, it has not ended within the deadline (stuck in the kernel).
    """
    fd = open_pidfd(identity)
    if fd is None:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        async with asyncio.timeout(timeout_s):
            await wait_readable(fd)
    except ProcessLookupError:
        return
    except TimeoutError as error:
        raise Unknown(
            Reason.QEMU_UNKNOWN,
            f"process {identity.pid} has not ended {timeout_s:g} s after SIGKILL: the kernel has it",
        ) from error
    finally:
        os.close(fd)


class ExitWatch:
    """Calls back once when a watched process ends. One watch a key; a new process replaces the old one."""

    def __init__(self) -> None:
        self._watched: dict[str, tuple[ProcessIdentity, int]] = {}

    def watch(self, key: str, identity: ProcessIdentity, on_exit: Callable[[str], None]) -> None:
        """Watches a process; already watched is fine, already gone calls back soon."""
        loop = asyncio.get_running_loop()
        known = self._watched.get(key)
        if known is not None and known[0] == identity:
            return
        self.drop(key)
        fd = open_pidfd(identity)
        if fd is None:
            loop.call_soon(on_exit, key)
            return
        self._watched[key] = (identity, fd)

        def ended() -> None:
            self.drop(key)
            on_exit(key)

        loop.add_reader(fd, ended)

    def watched(self, key: str) -> ProcessIdentity | None:
        """The process under watch for a key, if it still runs."""
        known = self._watched.get(key)
        return known[0] if known is not None and is_alive(known[0]) else None

    def drop(self, key: str) -> None:
        """Forgets a watch; none is fine."""
        known = self._watched.pop(key, None)
        if known is not None:
            asyncio.get_running_loop().remove_reader(known[1])
            os.close(known[1])

    def close(self) -> None:
        """Forgets all watches."""
        for key in tuple(self._watched):
            self.drop(key)

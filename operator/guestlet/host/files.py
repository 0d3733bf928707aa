"""Small files that must survive a crash, locks between processes, and bounded logs. Blocking: call it from a thread.

It must never follow a symbolic link in a file's last component and never leave a half-written file under its name.
"""

import fcntl
import os
import stat
from pathlib import Path

from guestlet.errors import Refused

_COPY_BYTES = 64 * 1024


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replaces a file as a whole: readers see the old content or the new one.

    ``durable``: fsync of the file and of its directory, so that it also survives a loss of power.

    Raises:
        OSError: the directory is missing, not writable or full; the old file is untouched.
    """
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        _write_all(fd, data)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    fresh.replace(path)
    if durable:
        sync_directory(path.parent)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable (a rename or link is not, before the directory is synced)."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_if_there(path: Path) -> bytes | None:
    """The whole file, or ``None`` when there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def remove_if_there(path: Path) -> None:
    """Unlinks a file; absent is fine."""
    path.unlink(missing_ok=True)


def tail_text(path: Path, *, limit_bytes: int) -> str:
    """The end of a text file, at most ``limit_bytes`` of it, undecodable bytes replaced; empty when it is missing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        size = os.fstat(fd).st_size
        data = os.pread(fd, limit_bytes, max(0, size - limit_bytes))
    finally:
        os.close(fd)
    return data.decode(errors="replace").strip()


def trim_by_copy(path: Path, *, limit_bytes: int) -> bool:
    """Copies a log to ``<name>.1`` and truncates it, once it is longer than its limit; says whether it did.

    The writer keeps its descriptor, so it must have opened the log for appending. What it writes between the copy and
    the truncation is lost: the price of a writer that cannot be told to open its log again.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size <= limit_bytes:
            return False
        _copy_end(fd, path.with_name(f"{path.name}.1"), limit_bytes=limit_bytes)
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)
    return True


def _copy_end(source: int, target: Path, *, limit_bytes: int) -> None:
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        offset = max(0, os.fstat(source).st_size - limit_bytes)
        for _ in range(limit_bytes // _COPY_BYTES + 1):
            data = os.pread(source, _COPY_BYTES, offset)
            if not data:
                break
            _write_all(out, data)
            offset += len(data)
    finally:
        os.close(out)


class DirectoryLock:
    """An exclusive lock on a directory, held by flock(2) on a file that names its holder; gone with the process."""

    def __init__(self, path: Path, *, holder: str) -> None:
        self._path = path
        self._holder = holder
        self._fd: int | None = None

    def acquire(self) -> None:
        """Takes the lock or says who has it.

        Raises:
            Refused: StateDirectoryInUse.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            first = os.pread(fd, 400, 0).decode(errors="replace").strip()
            os.close(fd)
            raise Refused(
                "StateDirectoryInUse",
                f"{self._path.parent} belongs to {first or 'another agent'}; stop that agent or give this one another "
                "stateDir",
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, self._holder.encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Lets go; safe to call twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

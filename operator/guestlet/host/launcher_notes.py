"""The launcher's notes (which process was started, how it ended) and QEMU's bounded log. Standard library only.

It must never let a log grow beyond its bound, nor a note be seen half written.
"""

import json
import os

LOG_LIMIT_BYTES = 256 * 1024
TAIL_BYTES = 4096


def boot_id() -> str:
    """The kernel's name for this boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def write_note(path: str, note: dict[str, object]) -> None:
    """Replaces a note as a whole. Not synced: it tells of a process of this boot, and a power cut ends both."""
    fresh = f"{path}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(note).encode())
    finally:
        os.close(fd)
    os.rename(fresh, path)


def append_bounded(log: str, data: bytes) -> None:
    """Appends; a full log becomes ``<log>.1`` first. A log that cannot be written loses output, not the QEMU."""
    try:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size + len(data) > LOG_LIMIT_BYTES:
                os.rename(log, f"{log}.1")
                os.close(fd)
                fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            os.write(fd, data)
        finally:
            os.close(fd)
    except OSError:
        return  # the guest was forgotten, or the disk is full: QEMU runs on without a log


def rotate(log: str) -> None:
    """A new QEMU starts a new log; the one before is kept."""
    try:
        if os.stat(log).st_size:
            os.rename(log, f"{log}.1")
    except FileNotFoundError:
        return


def tail(log: str) -> str:
    """The end of the log."""
    try:
        fd = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.pread(fd, TAIL_BYTES, max(0, os.fstat(fd).st_size - TAIL_BYTES)).decode(errors="replace").strip()
    finally:
        os.close(fd)

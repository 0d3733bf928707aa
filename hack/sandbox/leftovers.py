"""What agents leave behind on purpose when they end, so that guests survive them: QEMUs, launchers, taps. Found, ended.

It must never signal a process that does not hold the lock of a file below the sandbox's folder: QEMU and the launcher
each hold one for life, which no recycled pid can.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from sandbox.errors import SandboxError

# struct flock of the C library on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("hhqqi4x")


def qemu_of(pid_file: Path) -> int | None:
    """The pid of the process that holds QEMU's lock on this pidfile: the kernel's word, not the file's.

    QEMU keeps the lock for life (qemu_write_pidfile), so a recycled pid cannot be mistaken for it.
    """
    try:
        with pid_file.open("rb") as file:
            question = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, question))
    except FileNotFoundError:
        return None
    return int(pid) if kind == fcntl.F_WRLCK and pid > 0 else None


def running_guests(nodes: Path) -> dict[Path, int]:
    """Pidfile → pid of every QEMU that runs for a node of this folder."""
    found = ((file, qemu_of(file)) for file in sorted(nodes.glob("*/state/guests/*/qemu.pid")))
    return {file: pid for file, pid in found if pid is not None}


def launcher_of(lock_file: Path) -> int | None:
    """The pid of the launcher that holds this lock: an flock's holder can only be named by the file itself."""
    try:
        with lock_file.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().decode(errors="replace").strip()
                return int(text) if text.isdecimal() else None
    except FileNotFoundError:
        pass
    return None


def end_guests(nodes: Path) -> int:
    """Ends every QEMU of this folder: SIGTERM, on which QEMU closes its images, then SIGKILL; tells how many.

    Raises:
        SandboxError: one outlives SIGKILL by ten seconds.
    """
    return _end_holders(sorted(nodes.glob("*/state/guests/*/qemu.pid")), qemu_of)


def end_launchers(nodes: Path) -> int:
    """Ends every launcher of this folder, once its guests are gone; tells how many.

    Raises:
        SandboxError: one outlives SIGKILL by ten seconds.
    """
    return _end_holders(sorted(nodes.glob("*/state/launcher.lock")), launcher_of)


def taps_of(nodes: Path) -> tuple[str, ...]:
    """Names of the taps that the records of this folder speak of and that are there."""
    recorded = {name for file in nodes.glob("*/state/guests/*/record.json") for name in _recorded_taps(file)}
    return tuple(sorted(name for name in recorded if Path("/sys/class/net", name, "tun_flags").exists()))


def remove_taps(nodes: Path) -> int:
    """Removes what an agent that was killed between making a tap and handing it on may have left; tells how many.

    Raises:
        SandboxError: a tap cannot be removed.
    """
    taps = taps_of(nodes)
    for name in taps:
        run = subprocess.run(
            ["/usr/sbin/ip", "link", "delete", name], capture_output=True, text=True, check=False, timeout=10
        )
        if run.returncode != 0 and Path("/sys/class/net", name).exists():
            raise SandboxError(f"tap {name} cannot be removed: {run.stderr.strip()}")
    return len(taps)


def processes_below(*folders: Path) -> dict[int, str]:
    """Pid → command line of every process that names one of these folders in its arguments."""
    needles = tuple(os.fsencode(folder) + b"/" for folder in folders)
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if any(needle in line for needle in needles):
                    found[int(entry.name)] = line.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def _recorded_taps(record: Path) -> Iterator[str]:
    try:
        machine = json.loads(record.read_bytes())["record"]["machine"]
        for nic in machine["networks"] if machine else ():
            if nic["tap"]:
                yield str(nic["tap"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # a record that no agent could read either


def _end_holders(files: Iterable[Path], holder_of: Callable[[Path], int | None]) -> int:
    with contextlib.ExitStack() as stack:
        handles: dict[int, int] = {}
        for file in files:
            pid = holder_of(file)
            if pid is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                # Asked again with the process held: the first answer may be of one that ended meanwhile.
                if holder_of(file) == pid:
                    handles[handle] = pid
        survivors = _signal(handles, signal.SIGTERM, timeout_s=5.0)
        survivors = _signal(survivors, signal.SIGKILL, timeout_s=10.0)
        if survivors:
            raise SandboxError(f"processes {sorted(survivors.values())} outlive SIGKILL")
        return len(handles)


def _signal(handles: Mapping[int, int], number: signal.Signals, *, timeout_s: float) -> dict[int, int]:
    remaining = dict(handles)
    poller = select.poll()
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        poller.register(handle, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while remaining and (left_s := deadline - time.monotonic()) > 0:
        for handle, _ in poller.poll(left_s * 1000):
            poller.unregister(handle)
            del remaining[handle]
    return remaining

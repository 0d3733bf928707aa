"""What the kernel knows of a QEMU that somebody else started: its arguments, taps, and the sockets it listens on.

It must never change anything of that process, nor take another process for a QEMU.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.host import process
from guestlet.host.facts import ProcessIdentity

_PROGRAM = re.compile(r"qemu-(system-x86_64|kvm)|kvm")
_LISTENING = 0x10000  # __SO_ACCEPTCON in the flags column of /proc/net/unix (net/unix/af_unix.c)
_TAP = re.compile(r"^iff:\s*(\S+)$", re.MULTILINE)  # of a tun descriptor (drivers/net/tun.c, tun_chr_show_fdinfo)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignProcess:
    """A QEMU: ``started_at`` in seconds since the epoch, ``folder`` it works in, ``taps`` by descriptor, ``bridges`` by
    tap, Unix ``sockets`` it listens on.
    """

    identity: ProcessIdentity
    started_at: float
    argv: tuple[str, ...]
    folder: str
    taps: Mapping[int, str]
    bridges: Mapping[str, str]
    sockets: tuple[Path, ...]


def look_at(pid: int) -> ForeignProcess:
    """What there is to know of that process.

    Raises:
        Refused: QemuMissing, there is no such process, it is no QEMU, or we may not look at it.
    """
    identity = process.identity_of(pid)
    argv = process.command_line(identity) if identity is not None else None
    if identity is None or argv is None:
        raise Refused(
            Reason.QEMU_MISSING, f"there is no process {pid}: give the pid of a QEMU that runs (pgrep -a qemu)"
        )
    try:
        program = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
        if _PROGRAM.fullmatch(Path(program).name) is None:
            raise Refused(
                Reason.QEMU_MISSING,
                f"process {pid} runs {program}, which is no QEMU: give the pid of one (pgrep -a qemu)",
            )
        folder, taps = os.readlink(f"/proc/{pid}/cwd"), _taps(pid)
        sockets = _sockets(pid, Path(folder))
    except PermissionError as error:
        raise Refused(
            Reason.QEMU_MISSING, f"process {pid} may not be looked at ({error.strerror}): run as root"
        ) from error
    except FileNotFoundError as error:
        raise Refused(Reason.QEMU_MISSING, f"process {pid} ended meanwhile") from error
    return ForeignProcess(
        identity=identity,
        started_at=_started_at(identity),
        argv=argv,
        folder=folder,
        taps=taps,
        bridges=_bridges(taps, argv),
        sockets=sockets,
    )


def _started_at(identity: ProcessIdentity) -> float:
    booted = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    return (float(booted[1]) if booted else 0.0) + identity.start_ticks / os.sysconf("SC_CLK_TCK")


def _taps(pid: int) -> Mapping[int, str]:
    found: dict[int, str] = {}
    for entry in sorted(Path(f"/proc/{pid}/fdinfo").iterdir()):
        try:
            tap = _TAP.search(entry.read_text())
        except FileNotFoundError:
            continue  # closed meanwhile
        if tap is not None:
            found[int(entry.name)] = tap[1]
    return found


def _bridges(taps: Mapping[int, str], argv: tuple[str, ...]) -> Mapping[str, str]:
    names = {*taps.values(), *re.findall(r"ifname=([^,\s]+)", " ".join(argv))}
    masters = {name: Path("/sys/class/net", name, "master") for name in sorted(names) if "/" not in name}
    return {name: os.path.basename(os.readlink(link)) for name, link in masters.items() if link.is_symlink()}


def _sockets(pid: int, folder: Path) -> tuple[Path, ...]:
    """Paths of the Unix sockets that the process listens on, as its own network namespace has them."""
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            held.add(target[len("socket:[") : -1])
    found = []
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        # Num RefCount Protocol Flags Type St Inode Path
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and int(fields[3], 16) & _LISTENING and fields[6] in held and fields[7][0] != "@":
            found.append(folder / fields[7])
    return tuple(sorted(found))

"""Whose files are whose: gives QEMU's uid what a guest needs, by descriptor, and nothing to anybody else.

It must never follow a symbolic link, widen the rights of "others", or change the owner of a file that is only read.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuUser:
    """The numeric ids QEMU runs with."""

    uid: int
    gid: int


def make_own(fd: int, user: QemuUser | None) -> None:
    """A file that the guest writes: QEMU's alone. ``None``: QEMU runs as ourselves, who own it already."""
    if user is None:
        return
    facts = os.fstat(fd)
    if (facts.st_uid, facts.st_gid) != (user.uid, user.gid):
        os.fchown(fd, user.uid, user.gid)
    if stat.S_IMODE(facts.st_mode) != 0o600:
        os.fchmod(fd, 0o600)


def let_read(fd: int, user: QemuUser | None) -> None:
    """A file that the guest only reads: its owner keeps it; QEMU's group may read unless QEMU can already."""
    if user is None or _can_read(os.fstat(fd), user):
        return
    facts = os.fstat(fd)
    os.fchown(fd, -1, user.gid)
    os.fchmod(fd, stat.S_IMODE(facts.st_mode) & ~0o070 | 0o040)


def _can_read(facts: os.stat_result, user: QemuUser) -> bool:
    return bool(facts.st_mode & _bits(facts, user, stat.S_IRUSR))


def _can_enter(facts: os.stat_result, user: QemuUser) -> bool:
    return bool(facts.st_mode & _bits(facts, user, stat.S_IXUSR))


def _bits(facts: os.stat_result, user: QemuUser, owners: int) -> int:
    """The kernel looks at one class only: the owner's bits, else the group's, else the others'."""
    if facts.st_uid == user.uid:
        return owners
    return owners >> 3 if facts.st_gid == user.gid else owners >> 6


def require_passage(directory: Path, user: QemuUser | None) -> None:
    """Checks that QEMU can get into a directory from the root of the file system.

    Raises:
        Refused: HostFailure, a directory on the way is closed to QEMU's uid.
    """
    if user is None:
        return
    resolved = directory.resolve()
    for each in (*reversed(resolved.parents), resolved):
        facts = each.stat()
        if not _can_enter(facts, user):
            raise Refused(
                Reason.HOST_FAILURE,
                f"QEMU's uid {user.uid} cannot enter {each} (mode {stat.S_IMODE(facts.st_mode):04o}, on the way to "
                f"{directory}): chmod o+x {each}, or keep the node's directories elsewhere",
            )


def precreate(path: Path, user: QemuUser | None) -> None:
    """Makes an empty file that QEMU may write in a directory that it may not; an existing one keeps its content."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        make_own(fd, user)
    finally:
        os.close(fd)

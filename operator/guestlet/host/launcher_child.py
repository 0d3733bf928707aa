"""What the launcher's forked child does until it has become QEMU: gives everything up, notes itself, executes.

It must never return into the launcher's loop, and never leave the child a descriptor, group or capability unasked.
Standard library only, like the launcher.
"""

import ctypes  # here, not after the fork: loading it takes milliseconds of every start
import fcntl
import os
import signal

from guestlet.host.launcher_notes import boot_id, start_ticks, write_note

_PR_SET_NO_NEW_PRIVS = 38
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522


class Launch:
    """A launch request, checked before anything is forked. ``uid`` and ``gid`` are both given or both ``None``."""

    def __init__(self, request: dict[str, object], fds: list[int]) -> None:
        self.argv = _texts(request["argv"])
        if not self.argv:
            raise ValueError("argv is empty")
        environment = request["environment"]
        if not isinstance(environment, dict):
            raise TypeError("environment is not an object")
        self.environment = {str(name): str(value) for name, value in environment.items()}
        self.uid = _number_or_none(request["uid"])
        self.gid = _number_or_none(request["gid"])
        if (self.uid is None) != (self.gid is None):
            raise ValueError("uid and gid belong together")
        self.log = str(request["log"])
        self.launch_note = str(request["launchNote"])
        self.exit_note = str(request["exitNote"])
        targets = request["fds"]
        if not isinstance(targets, list) or len(targets) != len(fds) or not all(isinstance(n, int) for n in targets):
            raise ValueError(f"{len(fds)} descriptors came for the places {targets!r}")
        self.fds = list(zip(fds, targets, strict=True))
        self.first_free = max([2, *targets]) + 1


def _texts(found: object) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
        raise TypeError("a list of texts is needed")
    return found


def _number_or_none(found: object) -> int | None:
    if found is None or isinstance(found, int):
        return found
    raise TypeError("a number or null is needed")


def become(wanted: Launch, *, tell: int, output: int) -> None:
    """In the child: gives everything up, notes itself, and becomes QEMU. Never returns."""
    try:
        tell = fcntl.fcntl(tell, fcntl.F_DUPFD_CLOEXEC, wanted.first_free)
        signal.set_wakeup_fd(-1)
        # SIGPIPE stays ignored: when this launcher is gone, a QEMU that writes to its log must not die of it.
        os.setsid()
        os.umask(0o177)  # sockets become 0600; QEMU makes neither directories nor programs
        os.chdir("/")
        arrange_descriptors(wanted, tell=tell, output=output)
        note = {"pid": os.getpid(), "startTicks": start_ticks(os.getpid()), "bootId": boot_id()}
        write_note(wanted.launch_note, note)
        drop_privileges(wanted.uid, wanted.gid)
        os.execve(wanted.argv[0], wanted.argv, wanted.environment)
    except BaseException as error:  # noqa: BLE001 (a fork must never return into the loop)
        os.write(tell, f"{type(error).__name__}: {error}".encode()[:4000])
    finally:
        os._exit(127)


def arrange_descriptors(wanted: Launch, *, tell: int, output: int) -> None:
    """Exactly stdin (nothing), the output pipe twice, and the passed descriptors at their numbers survive exec."""
    above = wanted.first_free
    held = [(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above), target) for fd, target in wanted.fds]
    pipe = fcntl.fcntl(output, fcntl.F_DUPFD_CLOEXEC, above)
    nothing = fcntl.fcntl(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), fcntl.F_DUPFD_CLOEXEC, above)
    for fd, target in [(nothing, 0), (pipe, 1), (pipe, 2), *held]:
        os.dup2(fd, target)
    kept = {0, 1, 2, tell, *(target for _, target in wanted.fds)}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            close_quietly(int(name))  # one of them was the listing's own


def close_quietly(fd: int) -> None:
    """Closes a descriptor that may be closed already."""
    try:
        os.close(fd)
    except OSError:
        return


def drop_privileges(uid: int | None, gid: int | None) -> None:
    """No groups, no capabilities in any set, no way to gain any; the ids need no passwd entry."""
    libc = ctypes.CDLL(None, use_errno=True)
    if uid is not None and gid is not None:
        with open("/proc/sys/kernel/cap_last_cap") as file:
            last = int(file.read())
        for capability in range(last + 1):
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), f"cannot drop capability {capability}")
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "cannot give up capabilities")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot set no_new_privs")

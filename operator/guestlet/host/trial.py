"""Short-lived QEMUs that answer a question about the node: with a guest's rights at most, and gone with the agent.

It must never start a guest, and never leave a QEMU behind: not at a deadline, not at an error, not when the agent is
killed meanwhile.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Broken
from guestlet.host.access import QemuUser, require_passage

# query-qmp-schema is one line of 240 kB.
_LINE_BYTES = 16 * 1024 * 1024
_LOG_BYTES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuProgram:
    """A QEMU of the node and how it is started: ``module_dir`` and ``data_dirs`` as in the node's settings, ``user``
    whose rights it gets (``None``: the agent's own).
    """

    binary: Path
    module_dir: Path | None = None
    data_dirs: tuple[Path, ...] = ()
    user: QemuUser | None = None

    def as_agent(self) -> "QemuProgram":
        """The same program with the agent's own rights."""
        return replace(self, user=None)

    def environment(self) -> dict[str, str]:
        """All that QEMU sees of the environment."""
        modules = {"QEMU_MODULE_DIR": str(self.module_dir)} if self.module_dir else {}
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **modules}

    def command(self, *options: str) -> tuple[str, ...]:
        """The whole command line: rights, program, where its data files are, and no configuration but ours.

        setpriv(1), because only what runs between fork and exec can ask the kernel to kill QEMU with the agent, and
        Python must not run there (the agent has threads).
        """
        rights = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
        if self.user is not None:
            rights += [
                "--reuid",
                str(self.user.uid),
                "--regid",
                str(self.user.gid),
                "--clear-groups",
                "--inh-caps=-all",
            ]
        folders = (option for folder in self.data_dirs for option in ("-L", str(folder)))
        return (*rights, str(self.binary), *folders, "-no-user-config", "-nodefaults", "-display", "none", *options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A running trial: QEMU with pipes for its standard input and output, and what it writes to its standard error."""

    process: Process
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    _log: "asyncio.Task[str]"

    async def log(self) -> str:
        """The end of what QEMU wrote to its standard error; waits until QEMU is gone."""
        return await self._log


@contextlib.asynccontextmanager
async def start_trial(program: QemuProgram, *options: str) -> AsyncIterator[Trial]:
    """Starts QEMU for the block's length; the block sets its own deadline.

    Raises:
        Refused: HostFailure, the program lies where its user cannot get.
        Broken: QemuMissing, setpriv could not be started. A QEMU that cannot be started ends at once, and its log
            says why.
    """
    # setpriv still has the agent's rights when it executes QEMU, the launcher of guests has not.
    await asyncio.to_thread(require_passage, program.binary.parent, program.user)
    try:
        process = await asyncio.create_subprocess_exec(
            *program.command(*options),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=_LINE_BYTES,
            env=program.environment(),
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise Broken(Reason.QEMU_MISSING, f"setpriv (util-linux) cannot be started: {error}") from error
    pidfd = _open_pidfd(process.pid)
    log: asyncio.Task[str] | None = None
    try:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise Broken(Reason.HOST_FAILURE, "a process was started without its pipes")
        log = asyncio.create_task(_drain(process.stderr))
        yield Trial(process=process, stdin=process.stdin, stdout=process.stdout, _log=log)
    finally:
        _kill(pidfd)
        await process.wait()
        if log is not None:
            await log


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None  # it ended at once and was waited for


def _kill(pidfd: int | None) -> None:
    """By pidfd: ``Process.kill`` may take the exit status away from asyncio, which then reports a lost child."""
    if pidfd is None:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


async def _drain(stream: asyncio.StreamReader) -> str:
    """Read all the time, so that a full pipe never stops QEMU."""
    end = b""
    while block := await stream.read(4096):
        end = (end + block)[-_LOG_BYTES:]
    return end.decode(errors="replace").strip()

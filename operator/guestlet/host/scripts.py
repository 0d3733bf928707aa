"""Tap scripts: programs of the node's administrator, named by guests and never given a path by them.

It must never run anything but a regular executable right in the scripts directory, and never longer than its limit.
"""

import asyncio
import os
import re
import signal
import stat
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.host.facts import ScriptOutcome, ScriptRun

_OUTPUT_LIMIT_BYTES = 4096
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~@-]{0,127}")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Scripts:
    """The node's scripts directory, if it has one."""

    def __init__(self, directory: Path | None, *, timeout_s: float) -> None:
        self._directory = directory
        self._timeout_s = timeout_s

    def exists(self, name: str) -> bool:
        """Whether the script is an executable regular file right in the directory (a link is not)."""
        if self._directory is None or _NAME.fullmatch(name) is None:
            return False
        try:
            facts = os.lstat(self._directory / name)
        except OSError:
            return False
        return stat.S_ISREG(facts.st_mode) and bool(facts.st_mode & 0o111)

    async def run(self, run: ScriptRun) -> ScriptOutcome:
        """Runs it as the agent, in a session of its own, with exactly its environment and a plain PATH.

        Raises:
            Refused: NoSuchScript, ScriptFailed (it cannot be executed).
        """
        if self._directory is None or not self.exists(run.script):
            raise Refused(Reason.NO_SUCH_SCRIPT, f"the node's scripts directory has no executable file {run.script}")
        try:
            process = await asyncio.create_subprocess_exec(
                str(self._directory / run.script),
                env={"PATH": _PATH, **dict(run.environment)},
                cwd="/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise Refused(Reason.SCRIPT_FAILED, f"script {run.script} cannot be run: {error}") from error
        output = bytearray()
        code: int | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await _collect(process, output)
                code = await process.wait()
        except TimeoutError:
            code = None
        finally:
            # Its children too, also after a good end: nothing of a script stays behind.
            _kill_group(process.pid)
            await process.wait()
        return ScriptOutcome(code=code, output=output.decode(errors="replace").strip())


async def _collect(process: asyncio.subprocess.Process, output: bytearray) -> None:
    if process.stdout is None:
        return
    while data := await process.stdout.read(_OUTPUT_LIMIT_BYTES):
        output += data
        del output[:-_OUTPUT_LIMIT_BYTES]


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return

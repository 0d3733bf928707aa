"""The agent's side of the launcher: starts the small program that outlives the agent, and asks it for QEMUs.

It must never start a QEMU itself: a child of the agent's would die or be orphaned unseen with it.
"""

import asyncio
import json
import os
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Broken, Refused, Unknown
from guestlet.host.facts import ProcessIdentity
from guestlet.host.files import read_if_there

_VERSION = 1  # of the protocol: launcher_daemon.VERSION
_LENGTH = struct.Struct("!I")
_START_TIMEOUT_S = 10.0
_DAEMON = Path(__file__).with_name("launcher_daemon.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """One QEMU to start. ``user``: numeric uid and gid, or ``None`` for the agent's own; ``fds``: (ours, its)."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    user: tuple[int, int] | None
    log: Path
    launch_note: Path
    exit_note: Path
    fds: tuple[tuple[int, int], ...]


class Launcher:
    """One node's launcher, started when first needed."""

    def __init__(self, *, state_dir: Path, runtime_dir: Path) -> None:
        self._state_dir = state_dir
        self._runtime_dir = runtime_dir
        self._starting = asyncio.Lock()

    @property
    def socket_path(self) -> Path:
        """Where the launcher listens."""
        return self._runtime_dir / "launcher.sock"

    @property
    def pid(self) -> int | None:
        """The launcher that runs or ran last, as it noted itself in its lock."""
        text = (read_if_there(self._state_dir / "launcher.lock") or b"").decode(errors="replace")
        return int(text) if text.isdecimal() else None

    async def launch(self, request: LaunchRequest, *, timeout_s: float) -> ProcessIdentity:
        """Starts a process; returns once it has become what was asked for (exec succeeded).

        Raises:
            Refused: LaunchFailed, it could not be started, and why.
            Unknown: QemuUnknown, the launcher ended or was silent: the process may run.
            Broken: HostFailure, the launcher itself cannot be started.
        """
        uid, gid = request.user or (None, None)
        message = {
            "op": "launch",
            "argv": request.argv,
            "environment": dict(request.environment),
            "uid": uid,
            "gid": gid,
            "log": str(request.log),
            "launchNote": str(request.launch_note),
            "exitNote": str(request.exit_note),
            "fds": [target for _, target in request.fds],
        }
        reply = await self._ask(message, fds=[fd for fd, _ in request.fds], timeout_s=timeout_s)
        if "error" in reply:
            raise Refused(Reason.LAUNCH_FAILED, f"cannot start {request.argv[0]}: {reply['error']}")
        return ProcessIdentity(pid=int(str(reply["pid"])), start_ticks=int(str(reply["startTicks"])))

    async def stop(self, *, timeout_s: float = 5.0) -> bool:
        """Ends the launcher and leaves its QEMUs running; says whether one was there."""
        connection = await self._connect()
        if connection is None:
            return False
        await self._exchange(connection, {"op": "stop"}, fds=[], timeout_s=timeout_s)
        return True

    async def _ask(self, message: Mapping[str, object], *, fds: list[int], timeout_s: float) -> dict[str, object]:
        connection = await self._connect() or await self._start()
        return await self._exchange(connection, message, fds=fds, timeout_s=timeout_s)

    async def _connect(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(str(self.socket_path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except BlockingIOError:  # its backlog is full: it lives, and is busy
            try:
                async with asyncio.timeout(_START_TIMEOUT_S):
                    await asyncio.get_running_loop().sock_connect(connection, str(self.socket_path))
            except (TimeoutError, OSError) as error:
                connection.close()
                raise Broken(Reason.HOST_FAILURE, f"the launcher does not answer: {error}") from error
        return connection

    async def _start(self) -> socket.socket:
        async with self._starting:
            connection = await self._connect()
            if connection is not None:
                return connection
            said = await self._run_daemon()
            connection = await self._connect()
            if connection is None:
                raise Broken(Reason.HOST_FAILURE, f"the launcher did not start: {said}")
            return connection

    async def _run_daemon(self) -> str:
        arguments = ("-S", "-E", "-I", str(_DAEMON), str(self._state_dir), str(self._runtime_dir))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env={"PATH": os.defpath, "LANG": "C"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                _, said = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise Broken(Reason.HOST_FAILURE, "the launcher did not start in time") from error
        return said.decode(errors="replace").strip()[-400:]

    async def _exchange(
        self, connection: socket.socket, message: Mapping[str, object], *, fds: list[int], timeout_s: float
    ) -> dict[str, object]:
        data = json.dumps({"version": _VERSION, **message}).encode()
        try:
            async with asyncio.timeout(timeout_s):
                return await _converse(connection, _LENGTH.pack(len(data)) + data, fds)
        except (TimeoutError, OSError, EOFError) as error:
            raise Unknown(
                Reason.QEMU_UNKNOWN, f"the launcher did not answer: {error!r}; a process may have started"
            ) from error
        finally:
            connection.close()


async def _converse(connection: socket.socket, data: bytes, fds: list[int]) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    # The buffer of a fresh connection holds this first piece: descriptors travel with it, the rest follows.
    sent = socket.send_fds(connection, [data[:4096]], fds) if fds else 0
    await loop.sock_sendall(connection, data[sent:])
    (length,) = _LENGTH.unpack(await _receive(connection, _LENGTH.size))
    return dict(json.loads(await _receive(connection, length)))


async def _receive(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        more = await loop.sock_recv(connection, size - len(data))
        if not more:
            raise EOFError("connection closed")
        data += more
    return data

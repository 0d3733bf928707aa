"""One guest's QMP session: the only place that knows ``qemu.qmp``.

It must never talk to a socket whose peer is not the expected process, never have two commands in flight, never wait
without a deadline, and never call a command failed whose outcome is not known.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPClient, QMPError, Runstate, StateError
from qemu.qmp.message import Message

from guestlet.api.reasons import Reason
from guestlet.errors import Broken, Unknown
from guestlet.host.facts import ProcessIdentity
from guestlet.host.process import is_alive, peer_pid
from guestlet.qemu.commands import Command

_REPLY_LIMIT_BYTES = 32 * 1024 * 1024
_CLOSE_TIMEOUT_S = 2.0
_silent = logging.getLogger("guestlet.qmp.wire")
# The library logs what it also raises, with tracebacks; we translate what it raises.
_silent.disabled = True


class _Client(QMPClient):
    """The library's client without what grows or costs: no pretty printing, no history of events."""

    logger = _silent

    def __init__(self, on_event: Callable[[Mapping[str, object]], None]) -> None:
        super().__init__(None, _REPLY_LIMIT_BYTES)
        self.logger = _silent
        self._on_event = on_event

    def _cb_inbound(self, msg: Message) -> Message:
        return msg

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    async def _event_dispatch(self, msg: Message) -> None:
        self._on_event(msg)


class QmpSession:
    """A session that is made when needed and made anew after it broke.

    ``on_event`` gets every event as QEMU sent it; it must not raise.
    """

    def __init__(self, path: Path, *, on_event: Callable[[Mapping[str, object]], None]) -> None:
        self._path = path
        self._client = _Client(on_event)
        self._peer: ProcessIdentity | None = None
        self._turn = asyncio.Lock()

    async def connect(self, expected: ProcessIdentity, *, timeout_s: float) -> None:
        """Makes sure that there is a live session with that very process.

        Raises:
            FileNotFoundError, ConnectionRefusedError: nobody listens (yet).
            Unknown: QemuSilent, no greeting in time (busy with another client, or stuck). QemuUnknown, it broke off.
            Broken: HostFailure, another process listens there.
        """
        if self._peer == expected and self._client.runstate is Runstate.RUNNING:
            return
        await self.close()
        try:
            async with asyncio.timeout(timeout_s):
                await self._open(expected)
        except TimeoutError as error:
            raise Unknown(
                Reason.QEMU_SILENT,
                f"QEMU's monitor did not greet in {timeout_s:g} s; stuck, or another client has it",
            ) from error
        self._peer = expected

    async def _open(self, expected: ProcessIdentity) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(connection, str(self._path))
            pid = peer_pid(connection)
            if pid != expected.pid or not is_alive(expected):
                raise Broken(
                    Reason.HOST_FAILURE, f"process {pid} listens on the guest's monitor, not QEMU {expected.pid}"
                )
            await self._client.connect(connection)
        except ConnectError as error:
            connection.close()
            raise Unknown(Reason.QEMU_UNKNOWN, f"QEMU's monitor broke off before it greeted: {error}") from error
        except BaseException:
            connection.close()
            raise

    async def execute(self, command: Command, *, descriptor: int | None = None) -> object:
        """One command; its reply as QEMU sent it. ``descriptor`` is sent right before it (for ``getfd``).

        Raises:
            Unknown: QemuUnknown, the deadline passed or the session broke: QEMU may have done it.
            Broken: QmpRefused, QEMU said no, and why.
        """
        try:
            async with asyncio.timeout(command.deadline_s), self._turn:
                if descriptor is not None:
                    # Not through the library's queue, which is empty: nobody else is in flight.
                    self._client.send_fd_scm(descriptor)
                return await self._client.execute(command.name, dict(command.arguments) if command.arguments else None)
        except TimeoutError as error:
            raise Unknown(
                Reason.QEMU_UNKNOWN, f"{command.name}: no reply within {command.deadline_s:g} s; QEMU may still do it"
            ) from error
        except ExecuteError as error:
            raise Broken(Reason.QMP_REFUSED, f"{command.name}: {error.error_class}: {error}") from error
        except (ExecInterruptedError, StateError, QMPError, OSError, EOFError) as error:
            raise Unknown(
                Reason.QEMU_UNKNOWN, f"{command.name}: the monitor broke off, QEMU may have done it"
            ) from error

    async def close(self) -> None:
        """Ends the session, whatever its state; QEMU does not mind."""
        self._peer = None
        if self._client.runstate is Runstate.IDLE:
            return
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._client.disconnect()
        except (TimeoutError, EOFError, OSError, QMPError, ValueError):
            # Why the session broke was told to whoever waited for a reply; disconnect only repeats it.
            return

"""QMP as a plain script speaks it, for floors and looks from outside. It must never use anything of guestlet's."""

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_TIMEOUT_S = 60


class Monitor:
    """A connection to one QMP socket; the socket may appear later."""

    def __init__(self, path: Path) -> None:
        self._connection = _connected(path)
        self._stream = self._connection.makefile("rw")
        self._stream.readline()
        self.ask("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()
        self._connection.close()

    def ask(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """What QEMU answers; events are passed over.

        Raises:
            RuntimeError: QEMU refused.
        """
        self._stream.write(json.dumps({"execute": command, "arguments": arguments or {}}) + "\n")
        self._stream.flush()
        while True:
            answer = json.loads(self._stream.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']}")


def _connected(path: Path) -> socket.socket:
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
        else:
            return connection

"""Loopback ports of a sandbox: chosen once, remembered in a file, chosen anew only when someone else took one.

It must never take a port below 1024 or out of the kernel's ephemeral range, where any outgoing connection may sit.
"""

import json
import os
import secrets
import socket
from collections.abc import Collection, Mapping
from pathlib import Path

from sandbox.errors import SandboxError

_FIRST, _LAST = 16000, 29999


def remembered_ports(file: Path) -> dict[str, int]:
    """Read the ports of an earlier start; empty when there was none or its file is damaged."""
    try:
        content = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {str(name): port for name, port in content.items() if isinstance(port, int)}


def remember_ports(file: Path, ports: Mapping[str, int]) -> None:
    """Write the ports for the next start."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    new.write_text(json.dumps(dict(ports), indent=2, sort_keys=True) + "\n")
    new.rename(file)


def is_free(port: int) -> bool:
    """Tell whether nobody listens on this port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of an earlier server in TIME_WAIT do not matter: the servers started here reuse addresses too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(*, besides: Collection[int] = ()) -> int:
    """Choose a port on which nobody listens.

    Raises: SandboxError when a hundred random choices are all taken.
    """
    for _ in range(100):
        port = _FIRST + secrets.randbelow(_LAST - _FIRST + 1)
        if port not in besides and is_free(port):
            return port
    raise SandboxError(f"no free port found between {_FIRST} and {_LAST}")

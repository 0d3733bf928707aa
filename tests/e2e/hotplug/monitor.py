"""What QEMU itself has, asked on the monitor for observers; the agent is not asked.

Nothing here compares, and nothing here changes a machine but what a story says that somebody else did by hand.
"""

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from e2e.stage import Guest
from sandbox.kubectl import Object

_ANSWER_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """Ids of everything that a plug makes: devices, objects, block nodes, network back ends."""

    devices: frozenset[str]
    objects: frozenset[str]
    nodes: frozenset[str]
    netdevs: frozenset[str]


@cache
def runtime_of(guest: Guest) -> Path:
    """The folder of a guest's sockets; asked once, because kubectl takes longer than QEMU."""
    return guest.node.runtime / guest.field(".status.uuid")


def ask_qemu(guest: Guest, command: str, arguments: Mapping[str, object] | None = None) -> object:
    """What QEMU answers to a command; events are passed over."""
    with _monitor(guest) as ask:
        return ask(command, arguments or {})


def ask_for_list(guest: Guest, command: str, arguments: Mapping[str, object] | None = None) -> list[Object]:
    """An answer that is a list of objects."""
    return cast("list[Object]", ask_qemu(guest, command, arguments))


def belongings(guest: Guest) -> Belongings:
    """What QEMU has now."""
    with _monitor(guest) as ask:
        netdevs = cast(str, ask("human-monitor-command", {"command-line": "info network"}))
        nodes = cast("list[Object]", ask("query-named-block-nodes", {"flat": True}))
        devices, objects = (ask("qom-list", {"path": path}) for path in ("/machine/peripheral", "/objects"))
    return Belongings(
        devices=_children(devices),
        objects=_children(objects),
        nodes=frozenset(str(each["node-name"]) for each in nodes),
        netdevs=frozenset(re.findall(r"^ ?\\? ?([\w.-]+): index=", netdevs, re.MULTILINE)),
    )


def has_device(guest: Guest, device: str) -> bool:
    """Whether QEMU has a device of that id."""
    return device in belongings(guest).devices


def drive(guest: Guest, device: str) -> Object:
    """What ``query-block`` says of a disk's medium: ``inserted`` of the drive of that device."""
    paths = (device, f"/machine/peripheral/{device}", f"/machine/peripheral/{device}/virtio-backend")
    (found,) = (each for each in ask_for_list(guest, "query-block") if each.get("qdev") in paths)
    return cast(Object, found.get("inserted", {}))


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextmanager
def _monitor(guest: Guest) -> Iterator[Callable[[str, Mapping[str, object]], object]]:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_ANSWER_S)
        line.connect(str(runtime_of(guest) / "observer"))
        with line.makefile("rw") as stream:

            def ask(command: str, arguments: Mapping[str, object]) -> object:
                stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                stream.flush()
                reply = json.loads(stream.readline())
                while "event" in reply:
                    reply = json.loads(stream.readline())
                assert "return" in reply, f"{command}: {reply}"
                return cast(object, reply["return"])

            stream.readline()
            ask("qmp_capabilities", {})
            yield ask


def _children(listed: object) -> frozenset[str]:
    children = cast("list[Object]", listed)
    return frozenset(str(each["name"]) for each in children if str(each["type"]).startswith("child<"))

"""What a story about a guest's life looks at: which QEMU it is, what that QEMU says, what was written about the guest.

Nothing here asks the agent: the kernel, QEMU's observers' socket and the API server's audit log are the witnesses.
"""

import json
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from e2e.stage import Guest, eventually
from sandbox.audit import Request, read_audit_log
from sandbox.kubectl import Object
from sandbox.nodes import POOL

# A guest whose firmware finds nothing to boot: it runs, ignores the power button, and is there in half a second.
TINY: Mapping[str, object] = {"memory": {"size": "32Mi"}, "terminationGracePeriodSeconds": 0, "nodeName": "node-a"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One QEMU from start to end; no two are equal. ``ticks``: the kernel's start time of the process."""

    pid: int
    ticks: int
    started_at: str


def life_of(guest: Guest) -> Life:
    """The QEMU that runs, as kernel and status know it; they must agree."""
    pid = guest.pid()
    assert pid is not None, f"no QEMU of {guest.name} runs"
    qemu = cast(Object, guest.status()["qemu"])
    assert qemu["pid"] == pid
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Life(pid=pid, ticks=int(fields[19]), started_at=str(qemu["startedAt"]))


def qemus_of(uuid: str) -> tuple[int, ...]:
    """The pids of all processes that run this machine, whoever started them."""
    needle = f"\0-uuid\0{uuid}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if needle in line:
                found.append(int(entry.name))
    return tuple(found)


def kill_qemu(guest: Guest) -> None:
    """Ends a guest's QEMU as a crash would, and returns when it is gone."""
    pid = guest.pid()
    assert pid is not None, f"no QEMU of {guest.name} runs"
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: guest.pid() is None, timeout_s=10, what="the end of a killed QEMU")


def assert_in_hand(guest: Guest) -> None:
    """The agent commands this guest's QEMU: it pauses it and lets it go on."""
    guest.edit({"paused": True})
    guest.wait("Paused")
    assert run_state(guest) == "paused"
    guest.edit({"paused": False})
    guest.wait("Ready")
    assert run_state(guest) == "running"


def run_state(guest: Guest) -> str:
    """What QEMU says of itself on the monitor for observers."""
    path = guest.node.runtime / guest.field(".status.uuid") / "observer"
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(str(path))
        with line.makefile("rw") as monitor:
            monitor.readline()
            for command in ("qmp_capabilities", "query-status"):
                monitor.write(json.dumps({"execute": command}) + "\n")
                monitor.flush()
                answer = json.loads(monitor.readline())
                while "event" in answer:
                    answer = json.loads(monitor.readline())
    return str(answer["return"]["status"])


def type_line(guest: Guest, text: str) -> None:
    """Types a line on the serial console of a guest once it has booted; returns when the guest has taken it.

    Nobody stays connected: a client that does not read would hold up what the guest writes.
    """
    guest.wait()
    guest.wait_for_console("guest# ")
    path = guest.node.runtime / guest.field(".status.uuid") / "console"
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30)
        line.connect(str(path))
        line.sendall(text.encode() + b"\n")
        shown = b""
        # The end of the line is echoed too, unless what it orders stops or ends the guest before that.
        with suppress(TimeoutError):
            while (text + "\r\n").encode() not in shown:
                line.settimeout(2 if text.encode() in shown else 30)
                block = line.recv(4096)
                if not block:
                    break
                shown += block
        assert text.encode() in shown


def writes_of(audit_log: Path, guest: Guest) -> tuple[Request, ...]:
    """Every write of the object by the program, the user's own apart."""
    return tuple(
        request
        for request in read_audit_log(audit_log)
        if request.is_write
        and request.code < 300
        and (request.resource, request.namespace, request.name) == ("virtualguests", guest.namespace, guest.name)
        and request.user.startswith("system:serviceaccount:")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where each controller and device is, and each MAC: what no restart may change."""

    places: frozenset[tuple[object, object, object]]
    macs: frozenset[tuple[object, object]]


def layout_of(guest: Guest) -> Layout:
    """The layout as status has it."""
    status = guest.status()
    pci = cast("Mapping[str, list[Object]]", status["pci"])
    nics = cast("list[Object]", status.get("networks", []))
    return Layout(
        places=frozenset(
            (each["id"], each.get("bus"), each.get("address")) for each in (*pci["controllers"], *pci["devices"])
        ),
        macs=frozenset((nic["name"], nic["macAddress"]) for nic in nics),
    )


def disk(name: str, image: str, *, size: str | None = "1Mi", bus: str = "Virtio", **more: object) -> Object:
    """A disk of the default pool."""
    sized = {"size": size} if size else {}
    return {"name": name, "bus": bus, "source": {"file": {"pool": POOL, "image": image}}, **sized, **more}

"""What the Linux inside a guest sees of its machine, asked on its serial console.

Nothing here compares; the guest's kernel is the witness.
"""

import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from e2e.stage import Guest

_BEGIN, _END = "GUEST-REPORT-BEGIN", "GUEST-REPORT-END"
_ANSWER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk as the guest has it; ``name`` is its kernel's (``sr0`` for a cdrom drive)."""

    name: str
    size_bytes: int
    serial: str
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """PCI functions: address → (vendor, device); interfaces: MAC → driver; ``bridges`` are the bridges' addresses."""

    pci: dict[str, tuple[str, str]]
    bridges: frozenset[str]
    disks: tuple[Disk, ...]
    nics: dict[str, str]
    cpus: int
    memory_kib: int

    def disk(self, serial: str) -> Disk:
        """The one disk with that serial."""
        (found,) = (each for each in self.disks if each.serial == serial)
        return found


def first_report(guest: Guest) -> Report:
    """What the guest reports when it has booted."""
    guest.wait()
    return parse_report(guest.wait_for_console(_END, timeout_s=120))


def ask(guest: Guest, command: str) -> str:
    """Types a command on the console socket of a guest that has booted and gives what it prints."""
    return ask_at(guest.node.runtime / guest.field(".status.uuid") / "console", command)


def ask_at(path: Path, command: str) -> str:
    """Types a command on a console socket and gives what the guest prints."""
    deadline = time.monotonic() + _ANSWER_S
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        # The terminal echoes what is typed: only what the shell makes of it has the brackets side by side.
        line.sendall(f'echo [""[; {command}; echo ]""]\n'.encode())
        shown = b""
        while b"]]" not in shown:
            line.settimeout(max(0.01, deadline - time.monotonic()))
            block = line.recv(65536)
            assert block, f"the console ended after {shown[-500:]!r}"
            shown += block
    text = shown.decode(errors="replace").replace("\r", "")
    # What the guest tells unasked, whenever something is plugged.
    text = re.sub(r"^hotplug: .*\n", "", text, flags=re.MULTILINE)
    return text.partition("[[\n")[2].partition("]]")[0]


def report(guest: Guest) -> Report:
    """What a guest that has booted answers to ``report`` on its console."""
    guest.wait_for_console("guest# ", timeout_s=120)
    return parse_report(ask(guest, "report"))


def parse_report(text: str) -> Report:
    """The last report in what a console showed."""
    body = text.rpartition(_BEGIN)[2].partition(_END)[0]
    lines = [line.split() for line in body.splitlines()]
    of = {kind: [line[1:] for line in lines if line[:1] == [kind]] for kind in ("pci", "disk", "nic", "cpu", "memory")}
    pairs = {address: ids.split(":") for address, ids, *_ in of["pci"]}
    return Report(
        pci={address: (vendor, device) for address, (vendor, device) in pairs.items()},
        bridges=frozenset(address for address, _, _, code in of["pci"] if code.startswith("0x0604")),
        disks=tuple(
            Disk(name=name, size_bytes=int(size), serial=serial, read_only=read_only == "1")
            for name, size, serial, read_only in of["disk"]
        ),
        nics={mac: driver for _, mac, driver in of["nic"]},
        cpus=int(of["cpu"][0][0]),
        memory_kib=int(of["memory"][0][0]),
    )

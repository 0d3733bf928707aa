"""A test guest that runs under a bare QEMU: its console, its report, its monitor."""

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.qemu import QemuBuild
from sandbox.test_guest import CMDLINE, TestGuest

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the guest's kernel sees: PCI functions as (address, vendor:device), disks as (bytes, serial), interfaces
    as (MAC, driver).
    """

    pci: dict[str, str]
    disks: tuple[tuple[int, str], ...]
    nics: tuple[tuple[str, str], ...]
    cpus: int
    memory_kib: int


class RunningGuest:
    """Made by ``boot``."""

    def __init__(self, process: subprocess.Popen[bytes], monitor: socket.socket, console: socket.socket) -> None:
        self._process = process
        self._monitor = monitor.makefile("rw")
        self._console = console
        self._read = ""
        self._monitor.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str) -> Any:
        """The answer to a QMP command."""
        self._monitor.write(json.dumps({"execute": command}) + "\n")
        self._monitor.flush()
        while True:
            message = json.loads(self._monitor.readline())
            assert "error" not in message, message
            if "return" in message:
                return message["return"]

    def say(self, line: str) -> None:
        """Types a line on the console."""
        self._console.sendall(line.encode() + b"\n")

    def read_until(self, text: str) -> str:
        """What the console shows up to a text, and the text."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self._read:
            self._console.settimeout(max(0.01, deadline - time.monotonic()))
            block = self._console.recv(65536)
            assert block, f"QEMU ended; the console showed {self._read!r}"
            self._read += block.decode().replace("\r", "")
        shown, found, self._read = self._read.partition(text)
        return shown + found

    def report(self) -> Report:
        """The next report on the console."""
        self.read_until("GUEST-REPORT-BEGIN")
        lines = [line.split() for line in self.read_until("GUEST-REPORT-END").splitlines()]
        by_kind = {kind: [line[1:] for line in lines if line[:1] == [kind]] for kind in ("pci", "disk", "nic")}
        numbers = {line[0]: int(line[1]) for line in lines if line[:1] in (["cpu"], ["memory"])}
        return Report(
            pci={address: ids for address, ids, *_ in by_kind["pci"]},
            disks=tuple((int(size), serial) for _, size, serial, _ in by_kind["disk"]),
            nics=tuple((mac, driver) for _, mac, driver in by_kind["nic"]),
            cpus=numbers["cpu"],
            memory_kib=numbers["memory"],
        )

    def pci_functions(self) -> dict[str, str]:
        """Vendor and device of each PCI function by its address, as QEMU sees them."""
        found = {}
        waiting = [device for bus in self.execute("query-pci") for device in bus["devices"]]
        while waiting:
            device = waiting.pop()
            address = f"0000:{device['bus']:02x}:{device['slot']:02x}.{device['function']}"
            found[address] = f"{device['id']['vendor']:04x}:{device['id']['device']:04x}"
            waiting += device.get("pci_bridge", {}).get("devices", [])
        return found

    def wait_for_end(self, *, timeout_s: float) -> int:
        """QEMU's exit status; the console is read meanwhile, as a terminal would."""
        deadline = time.monotonic() + timeout_s
        self._console.settimeout(timeout_s)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while self._console.recv(65536):
                pass
        return self._process.wait(timeout=max(0.01, deadline - time.monotonic()))


@contextlib.contextmanager
def boot(
    build: QemuBuild, guest: TestGuest, folder: Path, machine: str, *options: str, kernel: Path | None = None
) -> Iterator[RunningGuest]:
    """A guest of 256 MiB that runs until the block's end."""
    argv = [
        *(str(build.binary), *build.options(), "-nodefaults", "-display", "none"),
        *("-machine", machine, "-accel", "tcg,tb-size=128", "-m", "256"),
        *("-chardev", f"socket,id=console,server=on,wait=off,path={folder}/console", "-serial", "chardev:console"),
        *("-qmp", f"unix:{folder}/qmp,server=on,wait=off"),
        *("-kernel", str(kernel or guest.kernel), "-initrd", str(guest.initrd), "-append", CMDLINE),
        *options,
    ]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, env={**os.environ, **build.environment()})
    try:
        with _connect(process, folder / "console") as console, _connect(process, folder / "qmp") as monitor:
            yield RunningGuest(process, monitor, console)
    finally:
        process.kill()
        process.communicate()


def _connect(process: subprocess.Popen[bytes], path: Path) -> socket.socket:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            if process.poll() is not None:
                raise AssertionError(_last_words(process)) from None
            assert time.monotonic() < deadline, f"nobody listens on {path}"
            time.sleep(0.01)
        else:
            return connection


def _last_words(process: subprocess.Popen[bytes]) -> str:
    text = process.communicate()[1].decode(errors="replace")
    return re.sub(r"\s+$", "", text) or "QEMU ended without a word"

"""A bare QEMU with the command line of a guest's QEMU, so that the floor stands on the very same machine.

It must never touch what the guest has: sockets, state and identity are its own.
"""

import contextlib
import json
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet import wait_for_text
from monitor import Monitor

from sandbox.processes import command_line
from sandbox.qemu import QemuBuild

_NUMBERED_S = 30
_BOOT_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A running twin: the monitor that commands, the one that looks, and the root ports with nothing behind them."""

    monitor: Monitor
    observer: Monitor
    free_ports: tuple[str, ...]
    console_log: Path

    def wait_for_console(self, text: str) -> None:
        """Returns when its serial console has shown a text."""
        wait_for_text(self.console_log, text, timeout_s=_BOOT_S)


@contextlib.contextmanager
def twin_of(pid: int, folders: Mapping[str, str], qemu: QemuBuild) -> Iterator[Twin]:
    """Starts it and returns when its firmware has numbered the buses.

    Args:
        pid: the guest's QEMU.
        folders: the guest's own folders, each with the name of the twin's.
        qemu: the build the guest runs on.
    """
    with tempfile.TemporaryDirectory(prefix="gf-") as name, contextlib.ExitStack() as stack:
        argv = [_moved(word, name, folders) for word in command_line(pid)]
        for own in folders.values():
            (Path(name) / own).mkdir()
        argv[argv.index("-uuid") + 1] = str(uuid.uuid4())
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env={**os.environ, **qemu.environment()})
        stack.callback(process.wait)
        stack.callback(process.kill)
        runtime = Path(name) / "run"
        monitor = stack.enter_context(Monitor(runtime / "qmp"))
        observer = stack.enter_context(Monitor(runtime / "observer"))
        monitor.ask("cont")
        wait_until_numbered(observer)
        log = Path(name) / "state" / "serial.log"
        yield Twin(monitor=monitor, observer=observer, free_ports=_free_ports(argv), console_log=log)


def wait_until_numbered(monitor: Monitor) -> None:
    """Returns when the firmware has given every bridge its bus: before that nothing behind them is listed."""
    deadline = time.monotonic() + _NUMBERED_S
    while time.monotonic() < deadline:
        devices = [each for bus in monitor.ask("query-pci") for each in bus["devices"]]
        bridges = [each["pci_bridge"]["bus"]["secondary"] for each in devices if "pci_bridge" in each]
        if all(bridges):
            return
        time.sleep(0.01)
    raise RuntimeError(f"the firmware has not numbered the buses after {_NUMBERED_S} s")


def _moved(word: str, folder: str, folders: Mapping[str, str]) -> str:
    for theirs, own in folders.items():
        word = word.replace(theirs, f"{folder}/{own}")
    return word


def _free_ports(argv: list[str]) -> tuple[str, ...]:
    devices = [json.loads(argv[at + 1]) for at, word in enumerate(argv) if word == "-device" and argv[at + 1][0] == "{"]
    ports = [each["id"] for each in devices if each["driver"] == "pcie-root-port"]
    used = {each.get("bus") for each in devices}
    return tuple(port for port in ports if port not in used)

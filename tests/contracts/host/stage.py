"""A host to hold a promise against, the fake or a real one, and what only the stage can do to it."""

import asyncio
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from contracts.host.nodes import GUEST
from fakes.host import FakeHost
from guestlet.guest.ports import GuestHost
from guestlet.host.facts import ProcessIdentity, ScriptOutcome
from guestlet.host.images import IDENTITY_FILE
from guestlet.qemu import commands
from guestlet.qemu.commandline import build_argv
from guestlet.qemu.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """``woken`` is set whenever the host has something to tell of a guest."""

    host: GuestHost
    directory: Path
    fake: FakeHost | None
    woken: asyncio.Event

    def unmount_the_pool(self) -> None:
        if self.fake is not None:
            self.fake.add_pool("default", identity=None)
        else:
            (self.directory / "pool" / IDENTITY_FILE).unlink()

    def remove_image(self, image: str) -> None:
        if self.fake is not None:
            del self.fake.images["default", image]
        else:
            (self.directory / "pool" / image).unlink()

    def add_script(self, name: str, *, says: str, code: int) -> None:
        if self.fake is not None:
            self.fake.scripts[name] = ScriptOutcome(code=code, output=says)
            return
        script = self.directory / "scripts" / name
        script.write_text(f"#!/bin/sh\necho {says}\nexit {code}\n")
        script.chmod(0o755)

    def add_bridge(self, name: str) -> None:
        if self.fake is not None:
            self.fake.bridges.add(name)
        else:
            subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True, timeout=10)

    def remove_bridge(self, name: str) -> None:
        if self.fake is None:
            subprocess.run(["ip", "link", "del", name], check=True, timeout=10)

    def tap_exists(self, name: str) -> bool:
        if self.fake is not None:
            return name in self.fake.taps or name in self.fake.plugged_taps
        return name in {each for _, each in socket.if_nameindex()}

    def bridge_of(self, tap: str) -> str | None:
        if self.fake is not None:
            return self.fake.tap_bridges.get(tap)
        master = Path("/sys/class/net") / tap / "master"
        return master.resolve().name if master.exists() else None

    def tap_is_limited(self, tap: str) -> bool:
        if self.fake is not None:
            return tap in self.fake.tap_limits
        shown = subprocess.run(["tc", "qdisc", "show", "dev", tap], check=True, timeout=10, capture_output=True)
        return b"tbf" in shown.stdout


async def launch(host: GuestHost, machine: Machine) -> ProcessIdentity:
    await host.prepare_launch(GUEST, machine)
    return await host.launch(GUEST, build_argv(machine, host.paths(GUEST, machine)), timeout_s=20)


async def open_qcow2(host: GuestHost, name: str, image: Path) -> None:
    """Has QEMU open an image, and those below it as the image itself names them."""
    file = f"{name}-file"
    await host.execute(GUEST, commands.blockdev_add({"driver": "file", "node-name": file, "filename": str(image)}))
    await host.execute(GUEST, commands.blockdev_add({"driver": "qcow2", "node-name": name, "file": file}))

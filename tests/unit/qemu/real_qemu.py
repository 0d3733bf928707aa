"""A real QEMU for one test: started from ``build_argv``, asked over QMP, ended with the test."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, QMPClient

from guestlet.pci.compare import recorded_places
from guestlet.qemu.commandline import build_argv
from guestlet.qemu.machine import FileSource, FirmwareType, HostPaths, Machine
from guestlet.qemu.replies import parse_address, parse_parent_bus
from sandbox.qemu import QemuBuild

DEADLINE_S = 30
OVMF_CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
OVMF_VARS = "/usr/share/OVMF/OVMF_VARS_4M.fd"


@dataclass(frozen=True, slots=True, kw_only=True)
class RealQemu:
    """A QEMU that was started frozen; ``ask`` sends one command."""

    machine: Machine
    argv: tuple[str, ...]
    paths: HostPaths
    process: asyncio.subprocess.Process
    client: QMPClient

    async def ask(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        return await asyncio.wait_for(self.client.execute(command, dict(arguments or {})), DEADLINE_S)

    async def places(self) -> dict[str, tuple[str, str]]:
        """Every PCI device with an id, as ``pci.compare`` wants it: asked of QOM, nothing taken from the layout."""
        places = {}
        for each in await self.ask("qom-list", {"path": "/machine/peripheral"}):
            path = f"/machine/peripheral/{each['name']}"
            if not each["type"].startswith("child<"):
                continue
            if "legacy-addr" in {one["name"] for one in await self.ask("qom-list", {"path": path})}:
                address = await self.ask("qom-get", {"path": path, "property": "legacy-addr"})
                bus = await self.ask("qom-get", {"path": path, "property": "parent_bus"})
                places[each["name"]] = (parse_address(address), parse_parent_bus(bus))
        return places

    def recorded(self) -> tuple[str, ...]:
        return tuple(recorded_places(self.machine.pci))


def make_image(folder: Path, source: FileSource, size_bytes: int) -> None:
    """The image, and the one below it, both blank."""
    names = {source.image: source.format, source.backing_image: source.backing_format}
    for name, image_format in names.items():
        if name is None:
            continue
        assert image_format is not None
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", image_format.value.lower(), folder / name, str(size_bytes)],
            check=True,
            timeout=DEADLINE_S,
        )


@asynccontextmanager
async def real_qemu(build: QemuBuild, machine: Machine) -> AsyncIterator[RealQemu]:
    folder = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
    try:
        paths = _prepare(folder, build, machine)
        argv = build_argv(machine, paths)
        process = await asyncio.create_subprocess_exec(
            *argv, env={**os.environ, **build.environment()}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            client = await _connect(process, f"{paths.runtime_dir}/qmp")
            try:
                yield RealQemu(machine=machine, argv=argv, paths=paths, process=process, client=client)
            finally:
                await client.disconnect()
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
    finally:
        shutil.rmtree(folder)


def _prepare(folder: Path, build: QemuBuild, machine: Machine) -> HostPaths:
    for each in ("state", "run", "pool"):
        (folder / each).mkdir()
    for disk in machine.disks:
        if disk.source is not None:
            make_image(folder / "pool", disk.source, disk.size_bytes)
    if machine.firmware is FirmwareType.UEFI:
        shutil.copyfile(OVMF_VARS, folder / "state" / "nvram.fd")
    return HostPaths(
        binary=str(build.binary),
        data_dirs=tuple(str(each) for each in build.data_dirs),
        state_dir=str(folder / "state"),
        runtime_dir=str(folder / "run"),
        pools={"default": str(folder / "pool")},
        firmware_code=OVMF_CODE if machine.firmware is FirmwareType.UEFI else None,
        tap_fds={},
    )


async def _connect(process: asyncio.subprocess.Process, socket: str) -> QMPClient:
    client = QMPClient("test")
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while process.returncode is None:
        assert asyncio.get_running_loop().time() < deadline, "QEMU did not open its monitor"
        try:
            await asyncio.wait_for(client.connect(socket), DEADLINE_S)
        except ConnectError:  # not there yet, or there and not yet listening
            await asyncio.sleep(0.01)
        else:
            return client
    _, errors = await process.communicate()
    raise AssertionError(f"QEMU ended with {process.returncode}: {errors.decode()}")

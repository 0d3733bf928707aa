"""Records what QEMUs of other people's command lines answer, once the firmware has run: ``python record.py [SHAPE …]``.

Run it from the repository as ``PYTHONPATH=operator:hack:tests python tests/unit/qemu/shapes/record.py``; a tap needs
root. It starts each shape under each QEMU, asks what recovery asks, and writes ``<shape>-<version>.json`` beside this
file. It must never touch a QEMU that it did not start.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, ExecuteError, QMPClient

from guestlet.qemu.commands import Command
from guestlet.qemu.questions import RECOVERY_QUERIES, follow_up
from sandbox.qemu import QemuBuild, ensure_qemu
from unit.qemu.shapes.by_hand import hand_written, open_tap
from unit.qemu.shapes.command_lines import SHAPES, Shape

_HERE = Path(__file__).parent
_DEADLINE_S = 60
_ROUNDS = 2  # of questions that answers call for
_SOCKETS = ("monitor.sock", "101.qmp", "qmp.sock", "qmp")


async def record(shape: Shape, build: QemuBuild) -> None:
    """One shape under one QEMU."""
    folder = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
    tap = open_tap(shape.tap) if shape.tap else None
    try:
        argv = hand_written(shape, build, folder=folder, tap=tap)
        process = await asyncio.create_subprocess_exec(
            *argv,
            env={**os.environ, **build.environment()},
            stdin=subprocess.DEVNULL,
            pass_fds=() if tap is None else (tap,),
        )
        try:
            replies = await _asked(process, folder, shape)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    finally:
        if tap is not None:
            os.close(tap)
        shutil.rmtree(folder)
    version = replies["version"]["qemu"]
    told = [argv[0], *argv[1 + len(build.options()) :]]  # where this machine's QEMU has its data is nobody's business
    document = {"argv": told, "taps": {str(tap): shape.tap} if tap is not None else {}, "replies": replies}
    text = _neutral(json.dumps(document, indent=None, sort_keys=True), build, folder)
    _write(_HERE / f"{shape.name}-{version['major']}.json", json.loads(text))


def _write(path: Path, document: dict[str, Any]) -> None:
    """One line a reply and one a line of QEMU's own text, so that a difference can be read."""
    replies = document["replies"]
    shown = {key: value.splitlines() for key, value in replies.items() if isinstance(value, str) and "\n" in value}
    rows = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(replies.items()) if key not in shown]
    rows += [
        f"{json.dumps(key)}: [\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]"
        for key, lines in sorted(shown.items())
    ]
    head = {key: value for key, value in document.items() if key != "replies"}
    path.write_text(json.dumps(head)[:-1] + ', "replies": {\n' + ",\n".join(rows) + "\n}}\n")
    print(f"wrote {path.name}")


def _neutral(text: str, build: QemuBuild, folder: Path) -> str:
    """The document without a place of this machine."""
    text = text.replace(str(build.binary), "/usr/bin/qemu-system-x86_64")
    return text.replace(f"{folder}/pool", "/pools/default").replace(f"{folder}/run", "/run/hand")


async def _asked(process: asyncio.subprocess.Process, folder: Path, shape: Shape) -> dict[str, Any]:
    client = await _connected(process, folder / "run")
    try:
        if "-S" in shape.arguments:
            await client.execute("cont")
        await _firmware(client)
        for command, arguments in shape.plugs:
            await client.execute(command, arguments)
        replies = await _answers(client, RECOVERY_QUERIES)
        for _ in range(_ROUNDS):
            replies |= await _answers(client, follow_up(replies))
    finally:
        await client.disconnect()
    return replies


async def _answers(client: QMPClient, questions: Mapping[str, Command]) -> dict[str, Any]:
    found = {}
    for key, command in questions.items():
        try:
            asked = client.execute(command.name, dict(command.arguments) or None)
            found[key] = await asyncio.wait_for(asked, _DEADLINE_S)
        except ExecuteError:
            continue  # this QEMU, or this device, does not know
    return found


async def _firmware(client: QMPClient) -> None:
    """Waits until the firmware has numbered the bridges and given out addresses."""
    async with asyncio.timeout(_DEADLINE_S):
        while True:
            buses: Any = await client.execute("query-pci")
            functions = [each for bus in buses for each in bus["devices"]]
            numbers = [each["pci_bridge"]["bus"]["secondary"] for each in functions if "pci_bridge" in each]
            mapped = all(region["address"] != -1 for each in functions for region in each["regions"][:1])
            if mapped and all(0 < number < 255 for number in numbers):
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # what it does after that


async def _connected(process: asyncio.subprocess.Process, run: Path) -> QMPClient:
    client = QMPClient("recorder")
    async with asyncio.timeout(_DEADLINE_S):
        while process.returncode is None:
            for name in _SOCKETS:
                try:
                    await client.connect(str(run / name))
                except ConnectError:
                    continue
                return client
            await asyncio.sleep(0.02)
    raise SystemExit(f"QEMU ended with {process.returncode}")


def main(names: list[str]) -> None:
    """Records the shapes named, or all."""
    for build in (ensure_qemu(7), ensure_qemu(10)):
        for shape in SHAPES:
            if not names or shape.name in names:
                asyncio.run(record(shape, build))


if __name__ == "__main__":
    main(sys.argv[1:])

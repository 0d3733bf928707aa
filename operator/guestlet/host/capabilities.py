"""Asks a QEMU binary what it can do, once per binary, and keeps the answer in a file.

It must never ask a guest's QEMU, and never interpret the answer (``qemu.capabilities`` does).
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Broken
from guestlet.host.files import read_if_there, write_atomically
from guestlet.host.trial import QemuProgram, Trial, start_trial
from guestlet.qemu.capabilities import (
    QUERIES,
    Capabilities,
    dump_capabilities,
    load_capabilities,
    parse_capabilities,
)

_TIMEOUT_S = 10.0


async def read_capabilities(program: QemuProgram, *, cache_dir: Path, timeout_s: float = _TIMEOUT_S) -> Capabilities:
    """What the program can do: from ``cache_dir`` when this very file (path, size, time of change) was asked before.

    Raises:
        Broken: QemuMissing, QemuExited (with the end of its output), QemuSilent after ``timeout_s`` seconds, or
            QmpRefused for an answer that cannot be read.
    """
    kept = cache_dir / f"capabilities-{await asyncio.to_thread(_key, program)}.json"
    text = await asyncio.to_thread(read_if_there, kept)
    if text is not None:
        # A damaged file costs one question; it is not worth a failure.
        with contextlib.suppress(Broken):
            return load_capabilities(text.decode(errors="replace"))
    capabilities = parse_capabilities(await ask_qemu(program, timeout_s=timeout_s))
    await asyncio.to_thread(_keep, kept, dump_capabilities(capabilities))
    return capabilities


async def ask_qemu(program: QemuProgram, *, timeout_s: float = _TIMEOUT_S) -> dict[str, object]:
    """The ``return`` values of ``QUERIES`` by their names, from a QEMU without a machine that is ended afterwards.

    Raises:
        Broken: as ``read_capabilities``.
    """
    # The second accelerator is for builds without the first; what is asked does not depend on it.
    options = ("-machine", "none", "-accel", "tcg", "-accel", "kvm", "-S", "-qmp", "stdio")
    try:
        async with asyncio.timeout(timeout_s), start_trial(program, *options) as trial:
            replies = await _converse(trial)
    except TimeoutError as error:
        raise Broken(Reason.QEMU_SILENT, f"{program.binary} did not describe itself in {timeout_s:g} s") from error
    if replies is None:
        log = await trial.log() or "it wrote nothing"
        raise Broken(Reason.QEMU_EXITED, f"{program.binary} ended while it was asked: {log}")
    return replies


async def _converse(trial: Trial) -> dict[str, object] | None:
    """Greeting, capabilities negotiation, then one command after the other; ``None``: QEMU ended."""
    if await _receive(trial) is None or await _execute(trial, "qmp_capabilities", {}) is None:
        return None
    replies: dict[str, object] = {}
    for name, command, arguments in QUERIES:
        reply = await _execute(trial, command, arguments)
        if reply is None:
            return None
        replies[name] = reply
    return replies


async def _execute(trial: Trial, command: str, arguments: Mapping[str, str]) -> object | None:
    trial.stdin.write(json.dumps({"execute": command, "arguments": dict(arguments)}).encode() + b"\n")
    # A QEMU that is gone shows at the next read.
    with contextlib.suppress(ConnectionError):
        await trial.stdin.drain()
    while (message := await _receive(trial)) is not None:
        if "return" in message:
            return message["return"]
        if "error" in message:
            raise Broken(Reason.QMP_REFUSED, f"QEMU refused {command}: {message['error']}")
    return None


async def _receive(trial: Trial) -> dict[str, object] | None:
    line = await trial.stdout.readline()
    if not line:
        return None
    try:
        message = json.loads(line)
    except ValueError as error:
        raise Broken(Reason.QMP_REFUSED, f"QEMU wrote what is no QMP: {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise Broken(Reason.QMP_REFUSED, f"QEMU wrote what is no QMP: {line[:80]!r}")
    return message


def _key(program: QemuProgram) -> str:
    """Names the binary as it lies on the disk now.

    Raises:
        Broken: QemuMissing.
    """
    try:
        binary = program.binary.resolve(strict=True)
        facts = binary.stat()
    except OSError as error:
        raise Broken(Reason.QEMU_MISSING, f"no QEMU at {program.binary}: {error}") from error
    # Modules bring devices and block drivers of their own.
    identity = [str(binary), facts.st_size, facts.st_mtime_ns, str(program.module_dir or "")]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _keep(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, text.encode(), durable=False)

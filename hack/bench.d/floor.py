"""The floor: how fast a plain script starts QEMU to running on this machine, with nothing of guestlet between.

Start with `-S`, greeting, `cont`, `running`: what guestlet does too. It must never use anything of guestlet's.
"""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from monitor import Monitor

from sandbox.qemu import QemuBuild

MEMORY_MIB = 64
ROOT_PORTS = 10


def floor_one(qemu: QemuBuild) -> float:
    """Seconds until one bare QEMU runs."""
    return _timed(qemu, 1)


def floor_parallel(qemu: QemuBuild, count: int) -> float:
    """Seconds until that many bare QEMUs, started together, all run."""
    return _timed(qemu, count)


def _timed(qemu: QemuBuild, count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="gf-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for index in range(count):
            create = [str(qemu.img), "create", "-q", "-f", "qcow2", str(folder / f"{index}.qcow2"), "8M"]
            subprocess.run(create, check=True, env={**os.environ, **qemu.environment()})
        begin = time.monotonic()
        for index in range(count):
            stack.enter_context(_started(qemu, folder, index))
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(_resume, (folder / f"{index}.sock" for index in range(count))))
        return time.monotonic() - begin


@contextlib.contextmanager
def _started(qemu: QemuBuild, folder: Path, index: int) -> Iterator[None]:
    process = subprocess.Popen(
        _argv(qemu, folder, index), stdin=subprocess.DEVNULL, env={**os.environ, **qemu.environment()}
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _argv(qemu: QemuBuild, folder: Path, index: int) -> list[str]:
    """The machine of the measurements in design/qemu-facts.md: q35, 64 MiB, TCG, 10 root ports, one qcow2 disk."""
    ports = [
        option
        for port in range(ROOT_PORTS)
        for option in ("-device", f"pcie-root-port,id=p{port},chassis={port + 1},bus=pcie.0,addr={port + 1:#x}")
    ]
    return [
        *(str(qemu.binary), *qemu.options()),
        *("-no-user-config", "-nodefaults", "-display", "none", "-S"),
        *("-machine", "q35", "-accel", "tcg,tb-size=32", "-m", str(MEMORY_MIB)),
        *("-qmp", f"unix:{folder / f'{index}.sock'},server=on,wait=off"),
        *ports,
        *("-blockdev", f"driver=qcow2,node-name=d,file.driver=file,file.filename={folder / f'{index}.qcow2'}"),
        *("-device", "virtio-blk-pci,drive=d,bus=p0"),
    ]


def _resume(path: Path) -> None:
    with Monitor(path) as monitor:
        monitor.ask("cont")
        while not monitor.ask("query-status")["running"]:
            time.sleep(0.001)

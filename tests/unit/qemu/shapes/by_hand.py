"""Starts QEMUs as other programs and people do: outside every guest's place, with their own names and sockets."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.qemu import QemuBuild
from unit.qemu.shapes.command_lines import Shape

_DEADLINE_S = 60
_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x0002 | 0x1000


def hand_written(shape: Shape, build: QemuBuild, *, folder: Path, tap: int | None) -> list[str]:
    """The command line, once its images are in ``folder/pool`` and ``folder/run`` is there for its sockets."""
    for each in ("pool", "run"):
        (folder / each).mkdir(exist_ok=True)
    for image in sorted(shape.images, key=lambda name: name != "base.qcow2"):
        kind = "qcow2" if image.endswith(".qcow2") else "raw"
        backing = ["-b", "base.qcow2", "-F", "qcow2"] if "base.qcow2" in shape.images and image == "root.qcow2" else []
        made = [str(build.img), "create", "-q", "-f", kind, *backing, image, "16M"]
        subprocess.run(made, check=True, timeout=_DEADLINE_S, cwd=folder / "pool")
    filled = [
        each.replace("{pool}", str(folder / "pool")).replace("{run}", str(folder / "run")).replace("{tap}", str(tap))
        for each in shape.arguments
    ]
    return [str(build.binary), *build.options(), *filled]


def open_tap(name: str) -> int:
    """A tap of that name, gone when the descriptor and its copies are closed."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP_NO_PI))
    return fd


@contextmanager
def by_hand(shape: Shape, build: QemuBuild, *, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The QEMU of that shape, ended with the test."""
    tap = open_tap(shape.tap) if shape.tap else None
    try:
        argv = hand_written(shape, build, folder=folder, tap=tap)
        process = subprocess.Popen(
            argv,
            env={**os.environ, **build.environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=() if tap is None else (tap,),
        )
    finally:
        if tap is not None:
            os.close(tap)
    try:
        yield process
    finally:
        process.kill()
        process.wait(_DEADLINE_S)

"""A real node in a directory of its own, for contract tests: settings, one pool, and a machine that QEMU starts."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from guestlet.host.images import init_pool
from guestlet.host.launcher_daemon import take_lock
from guestlet.pci.layout import Family
from guestlet.qemu.machine import FileSource, ImageFormat, Machine
from guestlet.settings import AgentSettings, PoolSettings
from sandbox.qemu import QemuBuild, ensure_system_qemu
from unit.qemu.sample_machines import bare, complete, disk, laid_out, memory, nic

GUEST = "6f1e1b52-7a4d-4a34-9b6e-3a5c1f0d2e11"
MIB = 1024 * 1024


@contextmanager
def short_directory() -> Iterator[Path]:
    """Short, because of sockets; open to QEMU's uid, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def settings_in(directory: Path, *, learned: Path | None = None, build: QemuBuild | None = None) -> AgentSettings:
    """One node with the pool ``default``, whose directory QEMU may enter; ``learned``: what another knows of QEMU."""
    build = build or ensure_system_qemu()
    if learned is not None:
        (directory / "state").mkdir()
        for kept in learned.glob("*.json"):
            shutil.copy(kept, directory / "state")
    pool = directory / "pool"
    init_pool(pool)
    scripts = directory / "scripts"
    scripts.mkdir(exist_ok=True)
    return AgentSettings(
        node_name="node-a",
        state_dir=directory / "state",
        runtime_dir=directory / "run",
        pools=(PoolSettings(name="default", path=pool),),
        scripts_dir=scripts,
        script_timeout_seconds=1,
        qemu_binary=build.binary,
        qemu_img=build.img,
        qemu_module_dir=build.module_dir,
        qemu_data_dirs=build.data_dirs,
    )


def source(image: str, image_format: ImageFormat = ImageFormat.QCOW2, *, backing: str | None = None) -> FileSource:
    return FileSource(
        pool="default",
        image=image,
        format=image_format,
        backing_image=backing,
        backing_format=ImageFormat.QCOW2 if backing else None,
    )


def small_machine(family: Family = Family.Q35) -> Machine:
    """No disk and one network: starts fast."""
    return laid_out(replace(bare(family), memory=memory(32 * MIB), networks=(nic("lan"),)))


def machine_with_a_disk() -> Machine:
    return laid_out(replace(complete(Family.Q35), memory=memory(32 * MIB), disks=(disk("root"),)))


def launcher_pid(directory: Path) -> int:
    return int((directory / "state" / "launcher.lock").read_text())


def launcher_has_gone(directory: Path) -> None:
    """Waits for the launcher's lock: it is free when the launcher is no more."""
    os.close(take_lock(str(directory / "state" / "launcher.lock")))

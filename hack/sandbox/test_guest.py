"""The test guest: a real Linux that tells on its serial console what machine it sees, made from Debian's packages.

It must never install anything on this machine. Only the standard library is used here.

Debian's kernel for all machines is taken, not the one for clouds: that has no drivers for SATA (ahci), E1000 and the
i6300esb watchdog. Unpacked as an ELF image it boots faster under TCG than the cloud kernel does (2 s against 3 s).
"""

import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.assets import cache_directory
from sandbox.debian import cache_entry, open_archive
from sandbox.errors import SandboxError
from sandbox.initramfs import (
    Entry,
    build_archive,
    character_device,
    directory,
    find_modules,
    modules_alias,
    modules_dep,
    regular_file,
    symbolic_link,
    uncompressed_kernel,
)

SCRIPTS = Path(__file__).resolve().parent.parent / "test-guest.d"
CMDLINE = "console=ttyS0 quiet"
_KERNEL_PACKAGE = "linux-image-amd64"
_MODULES = (
    "ahci",
    "ata_piix",
    "button",
    "e1000",
    "evdev",
    "i6300esb",
    "isofs",
    "nvme",
    "pvpanic_mmio",
    "pvpanic_pci",
    "sd_mod",
    "sr_mod",
    "virtio_balloon",
    "virtio_blk",
    "virtio_mem",
    "virtio_net",
    "virtio_pci",
    "virtio_rng",
    "virtio_scsi",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestGuest:
    """What QEMU is told to boot, with ``CMDLINE`` as the kernel's command line.

    ``kernel`` is an ELF image and needs BIOS; ``uefi_kernel`` is the same one as Debian ships it, boots with either
    firmware, and takes 4 s longer under TCG.
    """

    # The name is the guest's, not a test's: pytest must not collect it.
    __test__ = False

    kernel: Path
    uefi_kernel: Path
    initrd: Path


def ensure_test_guest(say: Callable[[str], None] = print) -> TestGuest:
    """The test guest from the cache, made when there is none for the present scripts.

    Raises: SandboxError when Debian's packages cannot be had.
    """
    folder = cache_directory() / "test-guest"
    parts = folder / f"parts-{_digest([_KERNEL_PACKAGE.encode(), *(name.encode() for name in _MODULES)])}"
    if not parts.exists():
        with cache_entry(parts, say) as partial:
            if partial is not None:
                _fetch_parts(partial, say)
    scripts = {path.name: path.read_bytes() for path in sorted(SCRIPTS.iterdir())}
    busybox = (parts / "busybox").read_bytes()
    key = _digest([parts.name.encode(), busybox, *scripts.values(), Path(__file__).read_bytes()])
    entry = folder / key
    if not entry.exists():
        with cache_entry(entry, say) as partial:
            if partial is not None:
                (partial / "initrd.img").write_bytes(build_archive(_initramfs(parts, busybox, scripts)))
    return TestGuest(kernel=parts / "vmlinux", uefi_kernel=parts / "vmlinuz", initrd=entry / "initrd.img")


def _fetch_parts(into: Path, say: Callable[[str], None]) -> None:
    """Leaves vmlinux, vmlinuz, busybox and the modules of one kernel in a folder, and nothing else."""
    say("fetching the kernel and the programs of the test guest (70 MB, about 20 s)")
    started = time.monotonic()
    unpacked = into / "packages"
    with open_archive() as archive:
        kernel_package = archive.depends_on(_KERNEL_PACKAGE, "linux-image-")
        archive.unpack((kernel_package, "busybox-static"), unpacked)
    release = kernel_package.removeprefix("linux-image-").removesuffix("-unsigned")
    image = (unpacked / "boot" / f"vmlinuz-{release}").read_bytes()
    (into / "vmlinuz").write_bytes(image)
    (into / "vmlinux").write_bytes(uncompressed_kernel(image) or image)
    busybox = next((path for name in ("bin", "usr/bin") if (path := unpacked / name / "busybox").exists()), None)
    trees = [tree for name in ("lib", "usr/lib") if (tree := unpacked / name / "modules" / release).exists()]
    if busybox is None or not trees:
        raise SandboxError(f"busybox-static or {kernel_package} is not laid out as expected")
    shutil.copy(busybox, into / "busybox")
    modules = into / "modules" / release
    modules.mkdir(parents=True)
    for name, data in find_modules(trees[0], _MODULES).items():
        (modules / f"{name}.ko").write_bytes(data)
    shutil.rmtree(unpacked)
    say(f"made the kernel {release} of the test guest in {time.monotonic() - started:.0f} s")


def _initramfs(parts: Path, busybox: bytes, scripts: Mapping[str, bytes]) -> Iterable[Entry]:
    for name in ("bin", "dev", "etc", "lib", "lib/modules", "proc", "sys", "tmp"):
        yield directory(name)
    # The kernel opens it for process 1 before any file system is mounted.
    yield character_device("dev/console", 5, 1)
    yield regular_file("bin/busybox", busybox, executable=True)
    for applet in _applets(parts / "busybox"):
        yield symbolic_link(f"bin/{applet}", "busybox")
    yield regular_file("init", scripts["init"], executable=True)
    for name in sorted(scripts.keys() - {"init"}):
        yield regular_file(f"etc/{name}", scripts[name], executable=True)
    for tree in sorted((parts / "modules").iterdir()):
        modules = {path.stem: path.read_bytes() for path in sorted(tree.glob("*.ko"))}
        yield directory(f"lib/modules/{tree.name}")
        for name, data in modules.items():
            yield regular_file(f"lib/modules/{tree.name}/{name}.ko", data)
        yield regular_file(f"lib/modules/{tree.name}/modules.dep", modules_dep(modules).encode())
        yield regular_file(f"lib/modules/{tree.name}/modules.alias", modules_alias(modules).encode())


def _applets(busybox: Path) -> tuple[str, ...]:
    listing = subprocess.run([busybox, "--list"], capture_output=True, text=True, timeout=10, check=True).stdout
    return tuple(name for name in sorted(listing.split()) if name != "busybox")


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]

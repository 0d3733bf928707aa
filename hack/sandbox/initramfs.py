"""What a test guest boots: a kernel image without its compression, and an initramfs with just the drivers it needs.

Pure file formats; it must never fetch anything. Only the standard library is used here.
"""

import lzma
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError

_TYPE_DIRECTORY = 0o040000
_TYPE_DEVICE = 0o020000
_TYPE_FILE = 0o100000
_TYPE_LINK = 0o120000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of an initramfs; ``mode`` has the type bits of stat(2), ``device`` is (major, minor)."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    """A directory that all may enter."""
    return Entry(name=name, mode=_TYPE_DIRECTORY | 0o755)


def regular_file(name: str, data: bytes, *, executable: bool = False) -> Entry:
    """A file with its content."""
    return Entry(name=name, mode=_TYPE_FILE | (0o755 if executable else 0o644), data=data)


def symbolic_link(name: str, target: str) -> Entry:
    """A link to another name."""
    return Entry(name=name, mode=_TYPE_LINK | 0o777, data=target.encode())


def character_device(name: str, major: int, minor: int) -> Entry:
    """A device node."""
    return Entry(name=name, mode=_TYPE_DEVICE | 0o600, device=(major, minor))


def build_archive(entries: Iterable[Entry]) -> bytes:
    """A cpio archive in the "newc" format, the same bytes for the same entries.

    The format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
    """
    archive = bytearray()
    for inode, entry in enumerate((*entries, Entry(name="TRAILER!!!", mode=0)), start=1):
        name = entry.name.encode() + b"\0"
        fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        archive += bytes(-len(archive) % 4)
        archive += entry.data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def uncompressed_kernel(image: bytes) -> bytes | None:
    """The ELF kernel inside a compressed one, or ``None`` when the compression is not one that Python knows.

    Under TCG the kernel's own decompressor takes longer than the rest of the boot together; QEMU starts an ELF kernel
    by its PVH entry. The payload's place: Documentation/arch/x86/boot.rst of the kernel.
    """
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if not payload.startswith(b"\xfd7zXZ\0"):
        return None
    # The last 4 bytes are the size; they lie behind the end of the xz stream.
    kernel = lzma.LZMADecompressor().decompress(payload)
    return kernel if kernel.startswith(b"\x7fELF") else None


def read_module(path: Path) -> bytes:
    """A kernel module as the kernel loads it."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def find_modules(tree: Path, wanted: Iterable[str]) -> Mapping[str, bytes]:
    """The wanted modules and all that they depend on, by name, of a tree as packages ship it (without depmod's files).

    A wanted one that is built in, or that this kernel does not have, is left out.

    Raises: SandboxError when a dependency is missing.
    """
    paths = {
        path.name.split(".ko")[0].replace("-", "_"): path for path in sorted(tree.rglob("*.ko*")) if path.is_file()
    }
    found: dict[str, bytes] = {}
    waiting = [name for name in wanted if name in paths]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in paths:
            raise SandboxError(f"{tree} lacks the module {name}")
        found[name] = read_module(paths[name])
        waiting.extend(_dependencies(found[name]))
    return dict(sorted(found.items()))


def modules_dep(modules: Mapping[str, bytes]) -> str:
    """What modprobe reads to load a module after those that it needs."""
    return "".join(
        f"{name}.ko:{''.join(f' {needed}.ko' for needed in _all_dependencies(name, modules))}\n" for name in modules
    )


def modules_alias(modules: Mapping[str, bytes]) -> str:
    """What modprobe reads to find the module for a device."""
    return "".join(
        f"alias {alias} {name}\n" for name, module in modules.items() for alias in _module_facts(module, "alias")
    )


def _all_dependencies(name: str, modules: Mapping[str, bytes]) -> tuple[str, ...]:
    # The order that depmod writes: the nearest first, so that loading goes from the last to the first.
    ordered: dict[str, None] = {}
    for needed in _dependencies(modules[name]):
        for each in (needed, *_all_dependencies(needed, modules)):
            ordered.pop(each, None)
            ordered[each] = None
    return tuple(ordered)


def _dependencies(module: bytes) -> tuple[str, ...]:
    return tuple(
        name.replace("-", "_") for text in _module_facts(module, "depends") for name in text.split(",") if name
    )


def _module_facts(module: bytes, key: str) -> tuple[str, ...]:
    pattern = rb"\0" + key.encode() + rb"=([^\0]*)(?=\0)"
    return tuple(dict.fromkeys(match[1].decode() for match in re.finditer(pattern, module)))

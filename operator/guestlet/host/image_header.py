"""What an image file says of itself, read from its first bytes; and whether QEMU has it open.

Read here instead of by ``qemu-img info``: images come from users, and the agent is root; it also runs each turn.
It must never write, and never call a raw image anything else than its first four bytes say.
Format: QEMU's docs/interop/qcow2.txt. Locks: block/file-posix.c (RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE).
"""

import fcntl
import os
import struct
from dataclasses import dataclass

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.qemu.machine import ImageFormat

_QCOW2_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQ")  # magic, version, backing offset, backing length, cluster bits, size
_INCOMPATIBLE_AT = 72
_EXTERNAL_DATA_FILE = 1 << 2
_SECTOR = 512
_FLOCK = "hhqqi4x"
_WRITE_PERMISSION = 101  # a lock here: somebody writes
_WRITE_NOT_SHARED = 201  # a lock here: somebody forbids others to write


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """``backing_image`` as the file has it: a name in the same directory, or a path or URL."""

    format: ImageFormat
    virtual_size_bytes: int
    backing_image: str | None


def read_header(fd: int, *, image: str) -> ImageHeader:
    """The image's header.

    Raises:
        Refused: ImageCorrupt, it begins as qcow2 and is none we can read; or it keeps its data in another file.
    """
    head = os.pread(fd, 104, 0)
    if not head.startswith(_QCOW2_MAGIC):
        size = os.fstat(fd).st_size
        return ImageHeader(format=ImageFormat.RAW, virtual_size_bytes=-(-size // _SECTOR) * _SECTOR, backing_image=None)
    if len(head) < _INCOMPATIBLE_AT:
        raise _corrupt(image, "its header is cut off")
    _, version, backing_at, backing_length, _, size = _HEADER.unpack_from(head)
    if version not in (2, 3) or backing_length > 1023:
        raise _corrupt(image, f"its header has version {version} and a backing name of {backing_length} bytes")
    if version == 3 and _incompatible_features(head, image=image) & _EXTERNAL_DATA_FILE:
        raise _corrupt(image, "it keeps its data in an external file, which may lie anywhere")
    backing = os.pread(fd, backing_length, backing_at) if backing_at else b""
    return ImageHeader(
        format=ImageFormat.QCOW2,
        virtual_size_bytes=size,
        backing_image=backing.decode(errors="replace") or None,
    )


def _incompatible_features(head: bytes, *, image: str) -> int:
    if len(head) < _INCOMPATIBLE_AT + 8:
        raise _corrupt(image, "its header is cut off")
    return int.from_bytes(head[_INCOMPATIBLE_AT : _INCOMPATIBLE_AT + 8], "big")


def image_is_locked(fd: int) -> bool:
    """Whether a QEMU that wants to write would find the image taken: somebody writes it, or forbids writing."""
    return any(_is_locked(fd, byte) for byte in (_WRITE_PERMISSION, _WRITE_NOT_SHARED))


def _is_locked(fd: int, byte: int) -> bool:
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    answer = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    return bool(answer[0] != fcntl.F_UNLCK)


def _corrupt(image: str, why: str) -> Refused:
    return Refused(Reason.IMAGE_CORRUPT, f"image {image[:80]!r} cannot be used as Qcow2: {why}")

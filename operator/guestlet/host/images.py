"""Pools and the images in them: found, created, grown, deleted, lent to QEMU. Blocking: call it from a thread.

It must never open anything outside a pool, follow a symbolic link, create over an existing file, shrink an image, or
leave a half-made one under its name.
"""

import errno
import os
import re
import stat
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Broken, NotNow, Refused
from guestlet.host import access
from guestlet.host.facts import ImageFacts, PoolFacts
from guestlet.host.files import read_if_there, sync_directory, write_atomically
from guestlet.host.image_header import image_is_locked, read_header
from guestlet.qemu.machine import FileSource, ImageFormat

IDENTITY_FILE = ".guestlet-pool"
FRESH_PREFIX = ".guestlet-new-"
_TOOL_TIMEOUT_S = 60.0
_ROOM_FOR_METADATA = 1024 * 1024  # an empty qcow2 image takes less; a raw one is a hole
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~@-]{0,127}")
_FORMAT_NAMES = {ImageFormat.RAW: "raw", ImageFormat.QCOW2: "qcow2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One configured pool."""

    name: str
    path: Path


def init_pool(path: Path) -> str:
    """Makes a directory a pool and returns its identity; a pool keeps the identity it has.

    A directory made here lets QEMU's uid pass and shows it nothing; one that is there keeps its mode.
    """
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(0o711)
    known = pool_identity(path)
    if known is not None:
        return known
    identity = str(uuid.uuid4())
    write_atomically(path / IDENTITY_FILE, f"{identity}\n".encode(), mode=0o644)
    return identity


def pool_identity(path: Path) -> str | None:
    """The pool's identity, or ``None`` where there is none (not set up, or its file system is not mounted)."""
    try:
        data = read_if_there(path / IDENTITY_FILE)
    except NotADirectoryError:
        return None
    text = data.decode(errors="replace").strip() if data else ""
    return text or None


class Images:
    """The node's pools and their images."""

    def __init__(self, pools: Sequence[Pool], *, qemu_img: Path, user: access.QemuUser | None) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self._qemu_img = qemu_img
        self._user = user

    @property
    def paths(self) -> dict[str, str]:
        """Directory of each pool."""
        return {name: str(pool.path) for name, pool in sorted(self._pools.items())}

    def pool(self, name: str) -> PoolFacts | None:
        """The pool, or ``None`` when the node has none of that name."""
        pool = self._pools.get(name)
        if pool is None:
            return None
        identity = pool_identity(pool.path)
        free = os.statvfs(pool.path) if identity is not None else None
        return PoolFacts(name=name, identity=identity, free_bytes=free.f_bavail * free.f_frsize if free else 0)

    def image(self, pool: str, image: str) -> ImageFacts | None:
        """The image, or ``None``.

        Raises:
            Refused: ImageNameRefused, ImageCorrupt.
        """
        try:
            with self._opened(pool, image, os.O_RDONLY) as fd:
                header = read_header(fd, image=image)
                locked = image_is_locked(fd)
        except FileNotFoundError:
            return None
        return ImageFacts(
            pool=pool,
            image=image,
            format=header.format,
            virtual_size_bytes=header.virtual_size_bytes,
            backing_image=header.backing_image,
            locked=locked,
        )

    @contextmanager
    def _opened(self, pool: str, image: str, flags: int) -> Iterator[int]:
        """A descriptor of a regular file right in the pool: one component, no link followed, nothing waited for."""
        found = self._pools.get(pool)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such pool", pool)
        require_plain_name(image)
        directory = os.open(found.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = os.open(image, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise _name_refused(image, "is a link, a directory or a device") from error
            raise
        finally:
            os.close(directory)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _name_refused(image, "is not a regular file")
            yield fd
        finally:
            os.close(fd)

    def create(self, source: FileSource, size_bytes: int | None) -> None:
        """Creates an image under a temporary name and links it to its own, which must be free.

        Raises:
            Refused: NoSuchPool, PoolNotReady, ImageExists, BackingImageMissing, NoSpace, ImageNameRefused.
        """
        directory = self._ready_directory(source.pool)
        require_plain_name(source.image)
        if os.path.lexists(directory / source.image):
            raise _exists(source)
        size_bytes = self._size_to_create(source, size_bytes)
        self._require_room(source.pool, directory)
        fresh = directory / f"{FRESH_PREFIX}{uuid.uuid4()}"
        try:
            self._make(source, size_bytes, fresh)
            fd = os.open(fresh, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                access.make_own(fd, self._user)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.link(fresh, directory / source.image)
        except FileExistsError as error:
            raise _exists(source) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_space(source.pool) from error
            raise Broken(Reason.HOST_FAILURE, f"pool {source.pool}: cannot create {source.image}: {error}") from error
        finally:
            fresh.unlink(missing_ok=True)
        sync_directory(directory)

    def _ready_directory(self, pool: str) -> Path:
        found = self._pools.get(pool)
        if found is None:
            raise Refused(Reason.NO_SUCH_POOL, f"this node has no pool {pool}: name one of {', '.join(self.paths)}")
        if pool_identity(found.path) is None:
            raise Refused(
                Reason.POOL_NOT_READY,
                f"pool {pool}: {found.path / IDENTITY_FILE} is missing; mount the pool, or set it up once with "
                f"guestlet pool init {found.path}",
            )
        return found.path

    def _size_to_create(self, source: FileSource, size_bytes: int | None) -> int:
        if source.backing_image is None:
            if size_bytes is None:
                raise Broken(Reason.HOST_FAILURE, f"image {source.image} is to be created without a size")
            return size_bytes
        backing = self.image(source.pool, source.backing_image)
        if backing is None:
            raise Refused(
                Reason.BACKING_IMAGE_MISSING,
                f"pool {source.pool} has no image {source.backing_image}, the backing image of {source.image}",
            )
        return backing.virtual_size_bytes if size_bytes is None else size_bytes

    def _require_room(self, pool: str, directory: Path) -> None:
        free = os.statvfs(directory)
        if free.f_bavail * free.f_frsize < _ROOM_FOR_METADATA or (free.f_files and not free.f_favail):
            raise _no_space(pool)

    def _make(self, source: FileSource, size_bytes: int, fresh: Path) -> None:
        if source.format is ImageFormat.RAW:
            fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, size_bytes)
            finally:
                os.close(fd)
            return
        backing: tuple[str, ...] = ()
        if source.backing_image is not None:
            backing_format = _FORMAT_NAMES[source.backing_format or ImageFormat.RAW]
            backing = ("-b", source.backing_image, "-F", backing_format)
        self._qemu_img_run(
            ("create", "-q", "-f", "qcow2", "-o", "preallocation=off", *backing, fresh.name, str(size_bytes)),
            pool=source.pool,
            directory=fresh.parent,
        )

    def grow(self, source: FileSource, size_bytes: int) -> None:
        """Makes an image larger; one of that size or more is left as it is.

        Raises:
            Refused: ImageMissing, NoSpace. NotNow: ImageInUse, a process has it open.
        """
        facts = self.image(source.pool, source.image)
        if facts is None:
            raise Refused(Reason.IMAGE_MISSING, f"pool {source.pool} has no image {source.image}")
        if facts.virtual_size_bytes >= size_bytes:
            return
        if facts.locked:
            raise NotNow(Reason.IMAGE_IN_USE, f"image {source.image} is open in some process; it cannot be grown now")
        if source.format is ImageFormat.RAW:
            with self._opened(source.pool, source.image, os.O_RDWR) as fd:
                os.ftruncate(fd, size_bytes)
                os.fsync(fd)
            return
        self._qemu_img_run(
            ("resize", "-q", "-f", "qcow2", f"./{source.image}", str(size_bytes)),
            pool=source.pool,
            directory=self._ready_directory(source.pool),
        )

    def _qemu_img_run(self, arguments: tuple[str, ...], *, pool: str, directory: Path) -> None:
        try:
            done = subprocess.run(
                (str(self._qemu_img), *arguments),
                cwd=directory,
                env={"PATH": os.defpath, "LANG": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TOOL_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NotNow(
                Reason.HOST_FAILURE, f"qemu-img took more than {_TOOL_TIMEOUT_S:g} s in pool {pool}"
            ) from error
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode == 0:
            return
        if "No space left" in said or "Disk quota exceeded" in said:
            raise _no_space(pool)
        raise Broken(Reason.HOST_FAILURE, f"qemu-img {arguments[0]} failed in pool {pool}: {said[-400:]}")

    def delete(self, pool: str, image: str) -> None:
        """Deletes an image; absent is fine.

        Raises:
            Refused: ImageNameRefused. NotNow: ImageInUse.
        """
        try:
            with self._opened(pool, image, os.O_RDONLY) as fd:
                if image_is_locked(fd):
                    raise NotNow(Reason.IMAGE_IN_USE, f"image {image} is open in some process; it is not deleted")
        except FileNotFoundError:
            return
        directory = self._pools[pool].path
        (directory / image).unlink(missing_ok=True)
        sync_directory(directory)

    def user_of(self, pool: str, image: str) -> str | None:
        """What on this node still needs the image, in words: a process that has it open, or an image that is backed by
        it. ``None``: nothing, or there is no such image.

        Raises:
            Refused: ImageNameRefused.
        """
        try:
            with self._opened(pool, image, os.O_RDONLY) as fd:
                if image_is_locked(fd):
                    return "a process has it open"
        except FileNotFoundError:
            return None
        for other in sorted(os.listdir(self._pools[pool].path)):
            if other != image and self._is_backed_by(pool, other, image):
                return f"image {other} is backed by it"
        return None

    def _is_backed_by(self, pool: str, image: str, backing: str) -> bool:
        try:
            found = self.image(pool, image)
        except Refused:
            return False  # no image: the identity file's kind, a folder, a link
        return found is not None and found.backing_image == backing

    def lend(self, pool: str, image: str, *, writable: bool, user: access.QemuUser | None) -> None:
        """Lets QEMU's uid write an image alone, or read it. ``None``: QEMU has our own rights.

        Raises:
            Refused: ImageMissing, ImageNameRefused, HostFailure (the pool's directory is closed to QEMU).
        """
        try:
            with self._opened(pool, image, os.O_RDONLY) as fd:
                if writable:
                    access.make_own(fd, user)
                else:
                    access.let_read(fd, user)
        except FileNotFoundError as error:
            raise Refused(Reason.IMAGE_MISSING, f"pool {pool} has no image {image}") from error
        access.require_passage(self._pools[pool].path, user)

    def remove_leftovers(self) -> int:
        """Deletes what a broken-off creation left in the pools; returns how many files that were."""
        count = 0
        for pool in self._pools.values():
            if pool_identity(pool.path) is None:
                continue
            for left in pool.path.glob(f"{FRESH_PREFIX}*"):
                left.unlink(missing_ok=True)
                count += 1
        return count


def require_plain_name(image: str) -> None:
    """Refuses what is not one plain component of a path, or could mean anything else to qemu-img.

    Raises:
        Refused: ImageNameRefused.
    """
    if _PLAIN_NAME.fullmatch(image) is None:
        raise _name_refused(image, "is not a plain file name")


def _name_refused(image: str, why: str) -> Refused:
    return Refused(
        Reason.IMAGE_NAME_REFUSED, f"image {image[:80]!r} {why}: give the name of a regular file right in the pool"
    )


def _exists(source: FileSource) -> Refused:
    return Refused("ImageExists", f"pool {source.pool} has an image {source.image} already; it is never overwritten")


def _no_space(pool: str) -> Refused:
    return Refused(Reason.NO_SPACE, f"pool {pool} has no space left; free some, or use another pool")

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestlet.errors import NotNow, Refused
from guestlet.host.access import QemuUser
from guestlet.host.images import FRESH_PREFIX, IDENTITY_FILE, Images, Pool, init_pool, pool_identity
from guestlet.qemu.machine import FileSource, ImageFormat

MIB = 1024 * 1024
QEMU_IMG = Path("/usr/bin/qemu-img")
USER = QemuUser(uid=64055, gid=64055)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away and mounts")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    init_pool(tmp_path / "pool")
    return tmp_path / "pool"


def images_of(pool: Path, user: QemuUser | None = None) -> Images:
    return Images((Pool(name="default", path=pool),), qemu_img=QEMU_IMG, user=user)


@pytest.fixture
def images(pool: Path) -> Images:
    return images_of(pool)


def raw(name: str = "root") -> FileSource:
    return FileSource(pool="default", image=name, format=ImageFormat.RAW, backing_image=None, backing_format=None)


def qcow2(pool: Path, name: str, *options: str, size: str = "4M") -> None:
    subprocess.run([QEMU_IMG, "create", "-q", "-f", "qcow2", *options, name, size], cwd=pool, check=True, timeout=20)


def test_a_pool_keeps_its_identity(pool: Path) -> None:
    first = pool_identity(pool)

    assert first
    assert init_pool(pool) == first


def test_a_directory_that_is_not_there_or_none_is_no_pool(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert pool_identity(tmp_path / "nothing") is None
    assert pool_identity(tmp_path / "file") is None


@pytest.mark.qemu
@pytest.mark.parametrize("options", [(), ("-o", "compat=0.10"), ("-o", "cluster_size=512"), ("-o", "extended_l2=on")])
def test_a_header_is_read_as_qemu_reads_it(pool: Path, images: Images, options: tuple[str, ...]) -> None:
    qcow2(pool, "base.qcow2")
    qcow2(pool, "root.qcow2", *options, "-b", "base.qcow2", "-F", "qcow2", size="7M")

    facts = images.image("default", "root.qcow2")

    assert facts is not None
    assert (facts.format, facts.virtual_size_bytes) == (ImageFormat.QCOW2, 7 * MIB)
    assert facts.backing_image == "base.qcow2"


@pytest.mark.qemu
def test_a_backing_image_elsewhere_is_told_in_full(pool: Path, images: Images, tmp_path: Path) -> None:
    qcow2(tmp_path, "base.qcow2")
    qcow2(pool, "root.qcow2", "-b", str(tmp_path / "base.qcow2"), "-F", "qcow2")

    facts = images.image("default", "root.qcow2")

    assert facts is not None
    assert facts.backing_image == str(tmp_path / "base.qcow2")


@pytest.mark.qemu
def test_an_external_data_file_is_refused(pool: Path, images: Images) -> None:
    qcow2(pool, "root.qcow2", "-o", "data_file=data.raw")

    with pytest.raises(Refused, match=r"ImageCorrupt: .*external file"):
        images.image("default", "root.qcow2")


@pytest.mark.parametrize("content", [b"QFI\xfb", b"QFI\xfb" + b"\0" * 100, b"QFI\xfb\0\0\0\x03" + b"\xff" * 100])
def test_half_a_header_is_corrupt(pool: Path, images: Images, content: bytes) -> None:
    (pool / "root.qcow2").write_bytes(content)

    with pytest.raises(Refused, match="ImageCorrupt"):
        images.image("default", "root.qcow2")


def test_whatever_else_is_raw_in_whole_sectors(pool: Path, images: Images) -> None:
    (pool / "root.raw").write_bytes(b"KDMV" + b"\0" * 996)

    facts = images.image("default", "root.raw")

    assert facts is not None
    assert (facts.format, facts.virtual_size_bytes) == (ImageFormat.RAW, 1024)


@pytest.mark.parametrize("make", ["link out", "link inside", "directory", "pipe"])
def test_only_regular_files_are_images(pool: Path, images: Images, make: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (pool / "other").write_text("other")
    match make:
        case "link out":
            (pool / "root").symlink_to(tmp_path / "secret")
        case "link inside":
            (pool / "root").symlink_to("other")
        case "directory":
            (pool / "root").mkdir()
        case _:
            os.mkfifo(pool / "root")

    with pytest.raises(Refused, match="ImageNameRefused"):
        images.image("default", "root")


def test_a_dangling_link_is_no_free_name(pool: Path, images: Images, tmp_path: Path) -> None:
    (pool / "root").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Refused, match="ImageExists"):
        images.create(raw(), MIB)

    assert not (tmp_path / "elsewhere").exists()


def test_a_creation_leaves_nothing_else(pool: Path, images: Images) -> None:
    images.create(raw(), MIB)

    assert {each.name for each in pool.iterdir()} == {IDENTITY_FILE, "root"}
    assert (pool / "root").stat().st_blocks == 0


def test_what_a_broken_off_creation_left_is_removed_and_nothing_else(pool: Path, images: Images) -> None:
    (pool / f"{FRESH_PREFIX}1").touch()
    (pool / "root").touch()

    assert images.remove_leftovers() == 1
    assert {each.name for each in pool.iterdir()} == {IDENTITY_FILE, "root"}


def test_leftovers_of_an_unmounted_pool_are_not_looked_for(pool: Path, images: Images) -> None:
    (pool / f"{FRESH_PREFIX}1").touch()
    (pool / IDENTITY_FILE).unlink()

    assert images.remove_leftovers() == 0


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """2 MiB in memory."""
    target = tmp_path / "small"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", target], check=True, timeout=10)
    yield target
    subprocess.run(["umount", target], check=True, timeout=10)


@as_root
def test_a_full_disk_is_refused_and_leaves_nothing(small_file_system: Path) -> None:
    init_pool(small_file_system)
    (small_file_system / "filler").write_bytes(b"x" * (MIB + 600 * 1024))
    images = images_of(small_file_system)

    with pytest.raises(Refused, match="NoSpace: pool default has no space left"):
        images.create(raw(), MIB)

    assert {each.name for each in small_file_system.iterdir()} == {IDENTITY_FILE, "filler"}


@as_root
@pytest.mark.qemu
def test_a_disk_that_fills_up_meanwhile_is_refused_and_leaves_nothing(small_file_system: Path) -> None:
    """Tables of an image this large do not fit, and only qemu-img finds out."""
    init_pool(small_file_system)
    source = FileSource(pool="default", image="root", format=ImageFormat.QCOW2, backing_image=None, backing_format=None)

    with pytest.raises(Refused, match="NoSpace"):
        images_of(small_file_system).create(source, 400 * 1024**4)

    assert {each.name for each in small_file_system.iterdir()} == {IDENTITY_FILE}


def lock(path: Path, byte: int, kind: int) -> int:
    """As QEMU does: an open-file-description lock on one byte."""
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0))
    return fd


@pytest.mark.parametrize(("byte", "taken"), [(101, True), (201, True), (100, False), (150, False)])
def test_an_image_is_locked_when_a_writer_would_be_refused(pool: Path, images: Images, byte: int, taken: bool) -> None:
    images.create(raw(), MIB)
    fd = lock(pool / "root", byte, fcntl.F_RDLCK)

    facts = images.image("default", "root")

    os.close(fd)
    assert facts is not None
    assert facts.locked is taken


def test_a_locked_image_is_neither_grown_nor_deleted(pool: Path, images: Images) -> None:
    images.create(raw(), MIB)
    fd = lock(pool / "root", 101, fcntl.F_RDLCK)

    with pytest.raises(NotNow, match="ImageInUse"):
        images.grow(raw(), 2 * MIB)
    with pytest.raises(NotNow, match="ImageInUse"):
        images.delete("default", "root")

    os.close(fd)
    assert (pool / "root").stat().st_size == MIB


@as_root
def test_a_written_image_becomes_qemus_alone(pool: Path) -> None:
    (pool / "root").touch(mode=0o644)
    images = images_of(pool, USER)

    with pytest.raises(Refused, match="cannot enter"):
        images.lend("default", "root", writable=True, user=USER)  # pytest's own directories are closed to everybody

    facts = (pool / "root").stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (USER.uid, USER.gid, 0o600)


@as_root
@pytest.mark.parametrize(
    ("mode", "owner", "group", "after"),
    [(0o644, 0, 0, (0, 0, 0o644)), (0o600, 0, 0, (0, USER.gid, 0o640)), (0o400, USER.uid, 0, (USER.uid, 0, 0o400))],
)
def test_a_read_image_keeps_its_owner(
    pool: Path, mode: int, owner: int, group: int, after: tuple[int, int, int]
) -> None:
    (pool / "base").touch()
    (pool / "base").chmod(mode)
    os.chown(pool / "base", owner, group)

    with pytest.raises(Refused, match="cannot enter"):
        images_of(pool, USER).lend("default", "base", writable=False, user=USER)

    facts = (pool / "base").stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == after

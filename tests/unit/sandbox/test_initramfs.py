"""The formats of the test guest's files, made without a kernel at hand."""

import lzma
import struct
import subprocess
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.initramfs import (
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


def module(*, depends: str = "", alias: str = "") -> bytes:
    facts = f"depends={depends}\0" + (f"alias={alias}\0" if alias else "")
    return b"\x7fELF\0" + facts.encode()


def kernel_image(payload: bytes) -> bytes:
    image = bytearray(4 * 512)
    image[0x1F1] = 2
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image[: 3 * 512 + 16]).ljust(3 * 512 + 16, b"\0") + payload


def test_an_archive_is_unpacked_by_cpio(tmp_path: Path) -> None:
    entries = (directory("etc"), regular_file("etc/odd", b"12345", executable=True), symbolic_link("link", "etc/odd"))
    archive = build_archive(entries)
    assert len(archive) % 4 == 0
    subprocess.run(["busybox", "cpio", "-i"], cwd=tmp_path, input=archive, check=True, timeout=10)
    assert (tmp_path / "link").read_bytes() == b"12345"
    assert (tmp_path / "etc/odd").stat().st_mode & 0o777 == 0o755


def test_an_archive_names_a_device_by_its_numbers() -> None:
    assert b"00000005" + b"00000001" in build_archive([character_device("dev/console", 5, 1)])


def test_equal_entries_make_equal_archives() -> None:
    assert build_archive([directory("a")]) == build_archive([directory("a")])


def test_a_kernel_is_found_in_its_image() -> None:
    payload = lzma.compress(b"\x7fELF and more") + struct.pack("<I", 13)
    assert uncompressed_kernel(kernel_image(payload)) == b"\x7fELF and more"


def test_a_kernel_of_another_compression_stays_as_it_is() -> None:
    assert uncompressed_kernel(kernel_image(b"\x28\xb5\x2f\xfd")) is None


def test_modules_come_with_all_that_they_need(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "virtio-net.ko").write_bytes(module(depends="net_failover,virtio", alias="virtio:d1"))
    (tmp_path / "net_failover.ko.xz").write_bytes(lzma.compress(module(depends="failover")))
    (tmp_path / "failover.ko").write_bytes(module())
    (tmp_path / "virtio.ko").write_bytes(module())
    (tmp_path / "other.ko").write_bytes(module())
    modules = find_modules(tmp_path, ["virtio_net", "built_in"])
    assert sorted(modules) == ["failover", "net_failover", "virtio", "virtio_net"]
    assert "virtio_net.ko: net_failover.ko failover.ko virtio.ko\n" in modules_dep(modules)
    assert modules_alias(modules) == "alias virtio:d1 virtio_net\n"


def test_a_missing_dependency_is_named(tmp_path: Path) -> None:
    (tmp_path / "ahci.ko").write_bytes(module(depends="libahci"))
    with pytest.raises(SandboxError, match="lacks the module libahci"):
        find_modules(tmp_path, ["ahci"])

"""The decision between KVM and TCG from figures, and what is kept of it."""

import asyncio
from pathlib import Path

import pytest

from guestlet.errors import Broken
from guestlet.host.accelerator import FIRMWARE, probe_accelerator
from guestlet.host.trial import QemuProgram
from guestlet.qemu.machine import Accelerator

NO_DEVICE = Path("/nonexistent/kvm")


def timed_program(folder: Path, *, tcg: str, kvm: str = "exit 1") -> QemuProgram:
    """A program that is as fast as the two given shell commands write bytes."""
    binary = folder / "qemu"
    binary.write_text(f'#!/bin/bash\necho x >>{folder}/times\ncase "$*" in *"-accel kvm"*) {kvm} ;; *) {tcg} ;; esac\n')
    binary.chmod(0o755)
    return QemuProgram(binary=binary)


def a_byte_every(seconds: str) -> str:
    return f"while printf .; do sleep {seconds}; done"


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    return path


def test_the_firmware_is_what_qemu_takes() -> None:
    assert len(FIRMWARE) == 64 * 1024
    assert FIRMWARE[0xFFF0:0xFFF5] == bytes.fromhex("ea000200f0")
    assert FIRMWARE[:2] == bytes.fromhex("fafc")


@pytest.mark.slow
async def test_kvm_is_taken_when_it_is_the_faster_one(tmp_path: Path, device: Path) -> None:
    program = timed_program(tmp_path, tcg=a_byte_every("0.1"), kvm=a_byte_every("0.01"))
    probe = await probe_accelerator(program, state_dir=tmp_path, kvm_device=device)
    assert probe.accelerator is Accelerator.KVM
    assert probe.kvm_seconds is not None
    assert probe.tcg_seconds is not None
    assert f"KVM {probe.kvm_seconds:.4f} s, TCG {probe.tcg_seconds:.4f} s" in probe.detail


@pytest.mark.slow
async def test_a_slow_kvm_is_worse_than_none(tmp_path: Path, device: Path) -> None:
    program = timed_program(tmp_path, tcg=a_byte_every("0.01"), kvm=a_byte_every("0.2"))
    probe = await probe_accelerator(program, state_dir=tmp_path, kvm_device=device)
    assert probe.accelerator is Accelerator.TCG
    assert probe.kvm_seconds is not None
    assert probe.tcg_seconds is not None
    assert probe.kvm_seconds > probe.tcg_seconds


@pytest.mark.slow
async def test_a_kvm_that_does_not_start_says_why(tmp_path: Path, device: Path) -> None:
    program = timed_program(tmp_path, tcg=a_byte_every("0.01"), kvm="echo no such ioctl >&2; exit 1")
    probe = await probe_accelerator(program, state_dir=tmp_path, kvm_device=device)
    assert probe.accelerator is Accelerator.TCG
    assert probe.kvm_seconds is None
    assert "KVM does not start (no such ioctl)" in probe.detail


@pytest.mark.slow
async def test_kvm_alone_is_enough(tmp_path: Path, device: Path) -> None:
    program = timed_program(tmp_path, tcg="exit 1", kvm=a_byte_every("0.01"))
    probe = await probe_accelerator(program, state_dir=tmp_path, kvm_device=device)
    assert probe.accelerator is Accelerator.KVM
    assert probe.tcg_seconds is None


@pytest.mark.slow
async def test_without_a_device_there_is_nothing_to_compare(tmp_path: Path) -> None:
    program = timed_program(tmp_path, tcg=a_byte_every("0.01"))
    probe = await probe_accelerator(program, state_dir=tmp_path, kvm_device=NO_DEVICE)
    assert probe.accelerator is Accelerator.TCG
    assert "no KVM device" in probe.detail
    assert (tmp_path / "times").read_text() == "x\n"


async def test_neither_is_a_defect_of_the_host(tmp_path: Path) -> None:
    program = timed_program(tmp_path, tcg="echo it is broken >&2; exit 1")
    with pytest.raises(Broken, match=r"HostFailure.*neither accelerator.*it is broken"):
        await probe_accelerator(program, state_dir=tmp_path, kvm_device=NO_DEVICE)


@pytest.mark.slow
async def test_the_answer_is_kept_until_program_or_device_change(tmp_path: Path, device: Path) -> None:
    program = timed_program(tmp_path, tcg=a_byte_every("0.01"), kvm=a_byte_every("0.1"))

    async def probes() -> int:
        await probe_accelerator(program, state_dir=tmp_path, kvm_device=device)
        return len((tmp_path / "times").read_text().split())

    assert await probes() == 2
    assert await probes() == 2
    await asyncio.to_thread(device.chmod, 0o666)
    assert await probes() == 4
    (tmp_path / "accelerator.json").write_text("{half")
    assert await probes() == 6


async def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="QemuMissing"):
        await probe_accelerator(QemuProgram(binary=tmp_path / "nowhere"), state_dir=tmp_path)

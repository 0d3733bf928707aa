"""Which accelerator runs guests faster on this node: timed with a tiny guest, once per boot, kept in a file.

It must never believe that a /dev/kvm which runs is one that is fast: with a software back end kernel code runs more
than a hundred times slower than under TCG (measured), so only the figures decide.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Broken
from guestlet.host.files import read_if_there, write_atomically
from guestlet.host.trial import QemuProgram, Trial, start_trial
from guestlet.qemu.machine import Accelerator

KVM_DEVICE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROBE_DEADLINE_S = 6.0
# Rounds are counted for this long: many of a fast accelerator, one of a useless one.
_COUNTING_S = 0.3
# Figures are told for 2 million turns.
_ROUNDS_TOLD = 10
_DEBUG_PORT = 0xE9
_SECTOR_BYTES = 512
_FIRMWARE_BYTES = 64 * 1024

# A boot sector, made for 0x7c00: goes to long mode, then for ever writes a byte to the debug port and turns a loop
# 200,000 times. Long mode, because that is where guests spend their time and where software back ends are slowest.
_BOOT_SECTOR = bytes.fromhex(
    # 16 bit: no interrupts; all segments zero.
    "fa"  # 00 cli
    "fc"  # 01 cld
    "31c0"  # 02 xor %ax,%ax
    "8ed8"  # 04 mov %ax,%ds
    "8ec0"  # 06 mov %ax,%es
    "8ed0"  # 08 mov %ax,%ss
    # Three pages of page tables, zeroed, which map the first 2 MiB on themselves.
    "bf0010"  # 0a mov $0x1000,%di
    "b9000c"  # 0d mov $0xc00,%cx
    "6631c0"  # 10 xor %eax,%eax
    "66f3ab"  # 13 rep stos %eax,%es:(%di)
    "c70600100320"  # 16 movw $0x2003,0x1000   next level, present, writable
    "c70600200330"  # 1c movw $0x3003,0x2000   next level, present, writable
    "c606003083"  # 22 movb $0x83,0x3000     page of 2 MiB, present, writable
    "66b800100000"  # 27 mov $0x1000,%eax
    "0f22d8"  # 2d mov %eax,%cr3
    # Physical address extension, long mode, paging and protection: AMD64 manual, volume 2, 14.6.
    "0f20e0"  # 30 mov %cr4,%eax
    "0c20"  # 33 or $0x20,%al
    "0f22e0"  # 35 mov %eax,%cr4
    "66b9800000c0"  # 38 mov $0xc0000080,%ecx   EFER
    "0f32"  # 3e rdmsr
    "80cc01"  # 40 or $0x1,%ah             LME
    "0f30"  # 43 wrmsr
    "0f01165b7c"  # 45 lgdt 0x7c5b
    "0f20c0"  # 4a mov %cr0,%eax
    "660d01000080"  # 4d or $0x80000001,%eax
    "0f22c0"  # 53 mov %eax,%cr0
    "ea717c0800"  # 56 ljmp $0x8,$0x7c71
    "0f00617c0000"  # 5b the table's length less one and its address, 0x7c61
    "0000000000000000"  # 61 descriptor 0: none
    "00000000009a2000"  # 69 descriptor 8: code, 64 bit
    # 64 bit.
    "b02e"  # 71 mov $0x2e,%al
    "e6e9"  # 73 out %al,$0xe9             the byte that is timed
    "b9400d0300"  # 75 mov $200000,%ecx
    "ffc9"  # 7a dec %ecx
    "75fc"  # 7c jne 7a
    "ebf3"  # 7e jmp 73
)
# A firmware that does nothing but copy the boot sector to its place: a real one takes seconds under a useless KVM.
_LOADER = bytes.fromhex(
    "fc"  # cld
    "8cc8"  # mov %cs,%ax
    "8ed8"  # mov %ax,%ds
    "31c0"  # xor %ax,%ax
    "8ec0"  # mov %ax,%es
    "31f6"  # xor %si,%si
    "bf007c"  # mov $0x7c00,%di
    "b90001"  # mov $0x100,%cx
    "f3a5"  # rep movsw %ds:(%si),%es:(%di)
    "ea007c0000"  # ljmp $0x0,$0x7c00
)
_RESET_VECTOR = bytes.fromhex("ea000200f0")  # ljmp $0xf000,$0x200
FIRMWARE = (_BOOT_SECTOR.ljust(_SECTOR_BYTES, b"\0") + _LOADER).ljust(_FIRMWARE_BYTES - 16, b"\0") + (
    _RESET_VECTOR.ljust(16, b"\0")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorProbe:
    """What ``accelerator: Auto`` means on this node.

    ``kvm_seconds`` and ``tcg_seconds`` are the times of 2 million turns of a loop in long mode; ``None``: guests
    cannot use that accelerator here. ``detail`` says for people what was found, with the figures.
    """

    accelerator: Accelerator
    kvm_seconds: float | None
    tcg_seconds: float | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timing:
    """Seconds for 2 million turns, or why there is no figure."""

    seconds: float | None
    failure: str

    def __str__(self) -> str:
        return self.failure if self.seconds is None else f"{self.seconds:.4f} s"


async def probe_accelerator(
    program: QemuProgram, *, state_dir: Path, kvm_device: Path = KVM_DEVICE
) -> AcceleratorProbe:
    """The faster accelerator for guests that run with the program's rights; kept in ``state_dir`` until the next boot.

    It is timed again when the program, its rights or the KVM device changed.

    Raises:
        Broken: QemuMissing, or HostFailure when neither accelerator runs a guest.
    """
    kept = state_dir / "accelerator.json"
    subject = await asyncio.to_thread(_subject, program, kvm_device)
    data = await asyncio.to_thread(read_if_there, kept)
    if data is not None and (known := _load(data, subject)) is not None:
        return known
    probe = await _probe(program, kvm_device)
    text = json.dumps({"subject": subject, **asdict(probe)}, indent=1)
    await asyncio.to_thread(write_atomically, kept, text.encode() + b"\n")
    return probe


async def _probe(program: QemuProgram, kvm_device: Path) -> AcceleratorProbe:
    with _firmware_file() as firmware:
        tcg = await _time(program, Accelerator.TCG, firmware)
        if not await asyncio.to_thread(kvm_device.exists):
            return _decide(tcg, _Timing(seconds=None, failure="no KVM device"), usable=False, obstacle="")
        kvm = await _time(program, Accelerator.KVM, firmware)
        if kvm.seconds is not None or program.user is None:
            return _decide(tcg, kvm, usable=kvm.seconds is not None, obstacle="")
        # Only the figure tells whether it is worth a change of rights, so it is taken with the agent's own.
        own = await _time(program.as_agent(), Accelerator.KVM, firmware)
        obstacle = f"QEMU's uid {program.user.uid} and gid {program.user.gid} cannot use {_rights(kvm_device)}"
        return _decide(tcg, own, usable=False, obstacle=obstacle)


def _decide(tcg: _Timing, kvm: _Timing, *, usable: bool, obstacle: str) -> AcceleratorProbe:
    detail = f"2 million turns of a loop: KVM {kvm}, TCG {tcg}"
    if tcg.seconds is None and not usable:
        raise Broken(Reason.HOST_FAILURE, f"neither accelerator runs a guest here; {detail}")
    faster = kvm.seconds is not None and (tcg.seconds is None or kvm.seconds < tcg.seconds)
    if obstacle:
        detail += f"; {obstacle}"
        detail += ": give the node's setting qemuGid the device's group" if faster else ""
    return AcceleratorProbe(
        accelerator=Accelerator.KVM if faster and usable else Accelerator.TCG,
        kvm_seconds=kvm.seconds if usable else None,
        tcg_seconds=tcg.seconds,
        detail=detail,
    )


async def _time(program: QemuProgram, accelerator: Accelerator, firmware: Path) -> _Timing:
    """Starts the loop and times its rounds, from outside and without the start of QEMU."""
    options = (
        *("-machine", "pc", "-m", "16"),
        *("-accel", "kvm" if accelerator is Accelerator.KVM else "tcg,tb-size=16"),
        *("-bios", str(firmware)),
        *("-chardev", "stdio,id=rounds,signal=off"),
        *("-device", f"isa-debugcon,chardev=rounds,iobase={_DEBUG_PORT:#x}"),
    )
    seconds: float | None = None
    async with start_trial(program, *options) as trial:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_DEADLINE_S):
                seconds = await _count_rounds(trial)
        ended = trial.stdout.at_eof()
    if seconds is not None:
        return _Timing(seconds=seconds, failure="")
    log = await trial.log()
    why = f"does not start ({log[-300:]})" if ended else f"not one round in {_PROBE_DEADLINE_S:g} s"
    return _Timing(seconds=None, failure=why)


async def _count_rounds(trial: Trial) -> float | None:
    """The time of 2 million turns, from the mean of all rounds: two bytes may be read at once, so that the least time
    between two would be wrong. ``None``: QEMU ended.
    """
    if not await trial.stdout.read(1):
        return None
    begun = time.monotonic()
    rounds, elapsed_s = 0, 0.0
    while rounds == 0 or elapsed_s < _COUNTING_S:
        written = await trial.stdout.read(4096)
        if not written:
            return None
        rounds += len(written)
        elapsed_s = time.monotonic() - begun
    return elapsed_s / rounds * _ROUNDS_TOLD


@contextlib.contextmanager
def _firmware_file() -> Iterator[Path]:
    # Readable for all: it holds nothing, and QEMU's uid is not ours.
    with tempfile.TemporaryDirectory(prefix="guestlet-probe-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        firmware = folder / "firmware.bin"
        firmware.write_bytes(FIRMWARE)
        firmware.chmod(0o644)
        yield firmware


def _rights(device: Path) -> str:
    facts = device.stat()
    return f"{device} (uid {facts.st_uid}, gid {facts.st_gid}, mode {stat.S_IMODE(facts.st_mode):04o})"


def _subject(program: QemuProgram, kvm_device: Path) -> str:
    """Names all on which the outcome depends.

    Raises:
        Broken: QemuMissing.
    """
    try:
        binary = os.stat(program.binary)
    except OSError as error:
        raise Broken(Reason.QEMU_MISSING, f"no QEMU at {program.binary}: {error}") from error
    device = _rights(kvm_device) if kvm_device.exists() else ""
    facts = (_BOOT_ID.read_text(), program, binary.st_size, binary.st_mtime_ns, device)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _load(data: bytes, subject: str) -> AcceleratorProbe | None:
    """The kept probe, or ``None`` when it is of another subject or damaged: then it is simply made again."""
    try:
        fields = json.loads(data)
        if fields["subject"] != subject:
            return None
        kvm, tcg = fields["kvm_seconds"], fields["tcg_seconds"]
        return AcceleratorProbe(
            accelerator=Accelerator(fields["accelerator"]),
            kvm_seconds=None if kvm is None else float(kvm),
            tcg_seconds=None if tcg is None else float(tcg),
            detail=str(fields["detail"]),
        )
    except (ValueError, KeyError, TypeError):
        return None

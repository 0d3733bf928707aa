"""Processors, memory, firmware and kernel of a running QEMU. Pure.

It must never round: memory that does not add up is refused, not corrected.
"""

import posixpath
import re

from guestlet.api.quantity import format_bytes, parse_quantity
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.recovery.command_line import CommandLine
from guestlet.guest.recovery.description import Hints
from guestlet.qemu.found import FoundQemu
from guestlet.qemu.machine import Cpu, Dimm, FirmwareType, KernelBoot, Memory, VirtioMem, WatchdogAction
from guestlet.qemu.sections.memory import BOOT_MEMORY, SLOTS

_MODEL_SUFFIX = "-x86_64-cpu"
_KNOWN_LEVELS = ("sockets", "cores", "threads")
_SIZE = re.compile(r"(\d+)([kKmMgGtT]?)[bB]?")
_WATCHDOG = {
    "reset": WatchdogAction.RESET,
    "poweroff": WatchdogAction.POWEROFF,
    "pause": WatchdogAction.PAUSE,
    "none": WatchdogAction.NONE,
}


def read_cpu(found: FoundQemu, hints: Hints, line: CommandLine) -> tuple[Cpu, tuple[str, ...]]:
    """The virtual CPUs, and what of them is not certain.

    Raises:
        Refused: RecordLost, QEMU tells no CPU, or the guest sees them arranged in dies or clusters.
    """
    slots, topology = found.cpu_slots, found.topology
    deeper = {level: many for level, many in topology.items() if level not in (*_KNOWN_LEVELS, "cpus", "maxcpus")}
    odd = sorted(level for level, many in deeper.items() if many > 1)
    if not slots or odd:
        raise Refused(Reason.RECORD_LOST, f"its CPUs are arranged in {', '.join(odd)}" if odd else "it tells no CPU")
    doubts = []
    there = [each.path is not None for each in slots]
    count = sum(there)
    if not all(there[:count]):
        doubts.append("the virtual CPUs there are not the first ones: after the next start others of them are")
    given = slots[0].driver.removesuffix(_MODEL_SUFFIX)
    if "," in line.options.get("-cpu", ""):
        flags = line.options["-cpu"].partition(",")[2]
        doubts.append(f"the CPU has the flags {flags} beside its model: they are not part of the next start")
    sockets, cores, threads = (topology.get(level, 1) for level in _KNOWN_LEVELS)
    cpu = Cpu(
        count=count,
        max_count=len(slots),
        sockets=sockets,
        cores=cores,
        threads=threads,
        model=hints.cpu_aliases.get(given, given),
    )
    return cpu, tuple(doubts)


def read_memory(found: FoundQemu, line: CommandLine) -> tuple[Memory, tuple[str, ...]]:
    """The guest's memory: what is plugged are slots, the base is the rest.

    Raises:
        Refused: RecordLost, the parts do not make the sums that QEMU tells, or there is memory of another kind.
    """
    dimms = tuple(
        sorted((each for each in found.memory_devices if each.kind == "dimm"), key=lambda each: each.slot or 0)
    )
    blocks = [each for each in found.memory_devices if each.kind == "virtio-mem"]
    if len(blocks) > 1 or len(dimms) + len(blocks) != len(found.memory_devices):
        kinds = ", ".join(sorted(each.kind for each in found.memory_devices))
        raise Refused(Reason.RECORD_LOST, f"its memory devices ({kinds}) are not DIMMs and one virtio-mem at most")
    plugged = sum(each.size_bytes for each in found.memory_devices)
    if plugged != found.plugged_memory_bytes:
        raise Refused(
            Reason.RECORD_LOST,
            f"its memory devices have {format_bytes(plugged)} in all and QEMU says "
            f"{format_bytes(found.plugged_memory_bytes)}: which is true cannot be told",
        )
    virtio_mem = None
    if blocks:
        one = blocks[0]
        virtio_mem = VirtioMem(
            max_bytes=one.max_bytes, block_bytes=one.block_bytes, requested_bytes=one.requested_bytes
        )
    least = found.base_memory_bytes + sum(each.max_bytes for each in found.memory_devices)
    memory = Memory(
        boot_bytes=found.base_memory_bytes,
        max_bytes=max(_most(found, line), least),
        virtio_mem=virtio_mem,
        dimms=tuple(Dimm(slot=each.slot or 0, size_bytes=each.size_bytes) for each in dimms),
    )
    return memory, _objects_agree(found)


def _objects_agree(found: FoundQemu) -> tuple[str, ...]:
    """Whether the memory objects are as much as base and slots: what a virtio-mem may have counts as a whole."""
    total = sum(found.memory_objects.values())
    slots = sum(each.max_bytes for each in found.memory_devices)
    if total - slots == found.base_memory_bytes:
        return ()
    return (
        f"the memory objects are {format_bytes(total)}, of which {format_bytes(slots)} are slots, but the base is "
        f"{format_bytes(found.base_memory_bytes)}: something else has memory too",
    )


def _most(found: FoundQemu, line: CommandLine) -> int:
    """What the guest may have in all: of a QEMU of ours, whose command line keeps addresses for twice what may come."""
    said = found.max_memory_bytes or _told_max(line) or 0
    if found.memory_slots == SLOTS and BOOT_MEMORY in found.memory_objects:
        return found.base_memory_bytes + (said - found.base_memory_bytes) // 2
    return said


def _told_max(line: CommandLine) -> int | None:
    """``-m maxmem=``: the one number of the machine that QEMU tells only if it has slots."""
    match = _SIZE.fullmatch(line.setting("-m", "maxmem") or "")
    if match is None:
        return None
    unit = {"": "Mi", "k": "Ki", "m": "Mi", "g": "Gi", "t": "Ti"}[match[2].lower()]
    return int(match[1]) if match[0].endswith(("B", "b")) and not match[2] else parse_quantity(f"{match[1]}{unit}")


def read_firmware(found: FoundQemu, line: CommandLine) -> tuple[FirmwareType, str | None, tuple[str, ...]]:
    """The firmware, the file name of its UEFI code image, and what of it is not certain."""
    flash = [str(found.settings.get(f"/machine pflash{number}", "")) for number in (0, 1)]
    if not flash[0]:
        own = line.options.get("-bios")
        return FirmwareType.BIOS, None, (f"its firmware is {own}: the next start has QEMU's own BIOS",) if own else ()
    files = {each.backend: each.layers[0].file for each in found.drives if each.layers} | dict(found.files)
    code = files.get(flash[0], "")
    doubts = []
    if not code:
        doubts.append("the file of its UEFI code cannot be told: the node's own is taken at the next start")
    variables = files.get(flash[1], "")
    if not variables.endswith("/nvram.fd"):
        where = f" in {variables}" if variables else ""
        doubts.append(
            f"its UEFI variables{where} are not where guestlet keeps them: the next start has new ones, unless "
            "they are copied to nvram.fd in the guest's state directory before"
        )
    return FirmwareType.UEFI, posixpath.basename(code) or None, tuple(doubts)


def read_kernel(found: FoundQemu, hints: Hints) -> tuple[KernelBoot | None, tuple[str, ...]]:
    """The kernel that QEMU loaded itself, if its files are in one pool."""
    kernel, initrd, append = (
        str(found.settings.get(f"/machine {each}", "")) for each in ("kernel", "initrd", "append")
    )
    if not kernel:
        return None, ()
    places = [hints.image(file) for file in (kernel, initrd) if file]
    known = [each for each in places if each is not None]
    if len(known) != len(places) or len({pool for pool, _ in known}) > 1:
        return None, (f"its kernel {kernel} or initrd {initrd} is in no pool: the next start boots from disk",)
    return KernelBoot(pool=known[0][0], image=known[0][1], initrd=known[1][1] if initrd else None, cmdline=append), ()


def watchdog_action(line: CommandLine) -> tuple[WatchdogAction, tuple[str, ...]]:
    """What happens when the watchdog fires, which QEMU cannot be asked."""
    told = line.setting("-action", "watchdog") or line.options.get("-watchdog-action", "reset")
    if told in _WATCHDOG:
        return _WATCHDOG[told], ()
    return WatchdogAction.RESET, (f"its watchdog action {told} is none that guestlet has: Reset is taken",)

"""Memory: what the guest has at start, the virtio-mem device by which it grows, and modules plugged since.

It must never decide how much memory there is; it only writes the live description in QEMU's words.
"""

from guestlet.pci.layout import Layout
from guestlet.qemu.machine import Dimm, Machine, Memory, VirtioMem
from guestlet.qemu.names import MEMORY_DEVICE, VIRTIO_MEMORY, dimm_device, dimm_memory
from guestlet.qemu.options import OptionValue, json_option, key_values
from guestlet.qemu.sections.buses import placement

Option = dict[str, OptionValue]

BOOT_MEMORY = "ram"
SLOTS = 8
"""Modules that a machine whose memory may grow has room for."""


def memory_args(machine: Machine) -> list[str]:
    """The memory at start and the room for more; a machine that cannot grow is given no room at all."""
    memory = machine.memory
    backend = json_option({"qom-type": "memory-backend-ram", "id": BOOT_MEMORY, "size": memory.boot_bytes})
    size = f"{memory.boot_bytes}B"
    if not may_grow(memory):
        return ["-object", backend, "-m", key_values(size=size)]
    return ["-object", backend, "-m", key_values(size=size, slots=SLOTS, maxmem=f"{address_bytes(memory)}B")]


def grown_memory_args(machine: Machine) -> list[str]:
    """Each memory object before the device that names it."""
    args: list[str] = []
    memory = machine.memory
    if memory.virtio_mem is not None:
        args += ["-object", json_option(virtio_mem_object(memory.virtio_mem))]
        args += ["-device", json_option(virtio_mem_option(machine.pci, memory.virtio_mem))]
    for each in memory.dimms:
        args += ["-object", json_option(dimm_object(each)), "-device", json_option(dimm_option(each))]
    return args


def may_grow(memory: Memory) -> bool:
    """Whether QEMU must keep guest addresses for more than the memory at start."""
    return memory.max_bytes > memory.boot_bytes or bool(memory.dimms)


def address_bytes(memory: Memory) -> int:
    """``maxmem``: guest addresses for the memory at start and twice for all that may come.

    Twice, because a virtio-mem device takes the addresses of all that it might give, and a guest without its driver is
    given modules beside it. It follows from what is fixed at start, so that it is the same on both sides of a
    migration; only a QEMU that somebody else started can have more than it says.
    """
    modules = sum(each.size_bytes for each in memory.dimms)
    device = memory.virtio_mem.max_bytes if memory.virtio_mem else 0
    return memory.boot_bytes + 2 * max(memory.max_bytes - memory.boot_bytes, modules, device)


def virtio_mem_object(memory: VirtioMem) -> Option:
    """The object behind the virtio-mem device; nothing is reserved on the host for what is not given yet."""
    return {
        "qom-type": "memory-backend-ram",
        "id": VIRTIO_MEMORY,
        "size": memory.max_bytes,
        "reserve": False,
    }


def virtio_mem_option(layout: Layout, memory: VirtioMem) -> Option:
    """The virtio-mem ``-device`` at its recorded place."""
    return {
        "driver": "virtio-mem-pci",
        "id": MEMORY_DEVICE,
        "memdev": VIRTIO_MEMORY,
        "block-size": memory.block_bytes,
        "requested-size": memory.requested_bytes,
        **placement(layout, MEMORY_DEVICE),
    }


def dimm_object(dimm: Dimm) -> Option:
    """The object behind a module; ``object-add`` takes the same."""
    return {"qom-type": "memory-backend-ram", "id": dimm_memory(dimm.slot), "size": dimm.size_bytes}


def dimm_option(dimm: Dimm) -> Option:
    """The module's ``-device``; ``device_add`` takes the same."""
    return {
        "driver": "pc-dimm",
        "id": dimm_device(dimm.slot),
        "memdev": dimm_memory(dimm.slot),
        "slot": dimm.slot,
    }

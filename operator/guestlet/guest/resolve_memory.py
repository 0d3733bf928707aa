"""Memory of the next start, and how it may grow from there. Pure.

A machine starts with all of its size; only what is asked for later comes by virtio-mem or by modules.
"""

from guestlet.api.guest_spec import MemorySpec
from guestlet.api.quantity import format_bytes, parse_quantity
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.observed import ObservedGuest
from guestlet.qemu.machine import Memory, VirtioMem
from guestlet.qemu.sections.memory import address_bytes

MIB = 1024 * 1024
# virtio-mem gives memory in blocks of a huge page, so that none is broken up (QEMU hw/virtio/virtio-mem.c).
BLOCK_BYTES = 2 * MIB
# A module must be whole memory blocks of the guest's Linux, else it is not put online (arch/x86/mm/init_64.c).
MODULE_BYTES = 128 * MIB
# CPU models have 40 physical address bits unless told otherwise. With QEMU 7.2 and 10.0 a q35 of 1Gi starts with room
# for 2 x 490Gi more and not with 2 x 491Gi: what is missing of 1Ti are eight slots' alignment and the PCI windows.
ADDRESSES_MAX_BYTES = 960 * 1024 * MIB


def resolve_memory(spec: MemorySpec, observed: ObservedGuest) -> Memory:
    """The memory that the next start gives: all of ``size``, and room up to ``maxSize``.

    Raises:
        Refused: not whole blocks, more than the node has left, or more than the guest has addresses for.
    """
    size = _size(spec, observed)
    most = size if spec.max_size is None else parse_quantity(spec.max_size)
    if most < size:
        raise Refused(
            Reason.INVALID_SPEC,
            f"spec.memory.maxSize: {spec.max_size} is less than the size {spec.size}; raise it, or remove it",
        )
    if most == size:
        return Memory(boot_bytes=size, max_bytes=size, virtio_mem=None, dimms=())
    refuse_unaligned("spec.memory.size", size, BLOCK_BYTES)
    refuse_unaligned("spec.memory.maxSize", most, BLOCK_BYTES)
    virtio_mem = None
    if "virtio-mem-pci" in observed.capabilities.devices:
        virtio_mem = VirtioMem(max_bytes=most - size, block_bytes=BLOCK_BYTES, requested_bytes=0)
    memory = Memory(boot_bytes=size, max_bytes=most, virtio_mem=virtio_mem, dimms=())
    if address_bytes(memory) > ADDRESSES_MAX_BYTES:
        most_bytes = size + max(ADDRESSES_MAX_BYTES - size, 0) // 2
        raise Refused(
            Reason.INSUFFICIENT_MEMORY,
            f"spec.memory.maxSize: {spec.max_size} beside the size {spec.size} is more than the machine has addresses "
            f"for; use at most {most_bytes // (1024 * MIB)}Gi, or start with a larger size",
        )
    return memory


def refuse_unaligned(field: str, size_bytes: int, block_bytes: int) -> None:
    """Nothing when the size is a whole number of blocks.

    Raises:
        Refused: ``MemoryNotAligned``, with the next size that is.
    """
    if size_bytes % block_bytes:
        following = -(-size_bytes // block_bytes) * block_bytes
        raise Refused(
            Reason.MEMORY_NOT_ALIGNED,
            f"{field}: {format_bytes(size_bytes)} is not a whole number of blocks of {format_bytes(block_bytes)}, in "
            f"which memory is plugged; use {format_bytes(following)}",
        )


def refuse_beyond_node(field: str, size_bytes: int, observed: ObservedGuest) -> None:
    """Nothing when the node can give the guest that much memory in all.

    Raises:
        Refused: ``InsufficientMemory``, with what the node has left.
    """
    node = observed.node
    free = node.memory_bytes - node.memory_reserved_bytes - observed.committed_memory_bytes
    if size_bytes > free:
        raise Refused(
            Reason.INSUFFICIENT_MEMORY,
            f"{field}: {format_bytes(size_bytes)} on node {node.name}, which has {format_bytes(max(free, 0))} "
            "free for guests; ask for less, stop another guest, or use another node",
        )


def _size(spec: MemorySpec, observed: ObservedGuest) -> int:
    size = parse_quantity(spec.size)
    if size % MIB:
        raise Refused(
            Reason.INVALID_SPEC,
            f"spec.memory.size: {spec.size} is not a whole number of MiB; use {size // MIB + 1}Mi",
        )
    if observed.process.running is None:
        refuse_beyond_node("spec.memory.size", size, observed)
    return size

"""More or fewer virtual CPUs, and more memory, of a running machine: how such a change begins. Pure.

The source description follows only when all of it is there, so that what is missing is still seen as a difference.
"""

from dataclasses import replace

from guestlet.api.quantity import format_bytes, parse_quantity
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.actions import SaveRecord
from guestlet.guest.change.difference import Change, accepted
from guestlet.guest.change.edit import begun, with_cpus, with_requested
from guestlet.guest.change.look import Answer, Look, Work, cold
from guestlet.guest.change.parts import cpu_steps, making
from guestlet.guest.record import Pending, PendingKind, Record
from guestlet.guest.resolve_memory import MODULE_BYTES, refuse_beyond_node, refuse_unaligned
from guestlet.qemu.machine import Accelerator, Dimm, Machine
from guestlet.qemu.names import MEMORY_DEVICE, cpu_device, dimm_device
from guestlet.qemu.sections.memory import SLOTS

# Of TCG's translation cache: what is left must hold what the guest translates until the CPU is there, and its region.
CACHE_USED_MAX = 0.8


def begin_cpus(change: Change, look: Look) -> Answer:
    """One CPU more or less, always the last of QEMU's own order, until there are as many as asked for.

    Raises:
        Refused: InsufficientCpus, the node has fewer.
    """
    wanted, there = look.guest.spec.cpu.count, look.machine.cpu.count
    if wanted > look.machine.cpu.max_count or wanted > len(look.inventory.cpus):
        most = min(look.machine.cpu.max_count, len(look.inventory.cpus))
        return cold(change.field, f"{change.field}: the running machine has room for {most} CPUs")
    node = look.observed.node
    if wanted > max(there, node.cpus):
        raise Refused(
            Reason.INSUFFICIENT_CPUS,
            f"spec.cpu.count: {wanted} virtual CPUs on node {node.name} with {node.cpus} CPUs; use at most "
            f"{node.cpus}, or a larger node",
        )
    if wanted == there:
        return _accept(change, look)
    if wanted < there and look.machine.accelerator is Accelerator.TCG:
        # Measured with QEMU 7.2 and 10.0: contexts of TCG threads are counted up to maxcpus and never down, so that the
        # next CPU that is plugged after one was unplugged aborts QEMU.
        return cold(change.field, f"{change.field}: under TCG, QEMU cannot take a CPU away from a running machine")
    if wanted < there:
        part = _pending(cpu_device(there - 1), PendingKind.UNPLUG, look)
        leaving = begun(look.record, look.machine, look.record.source, part)
        return Work(field=change.field, actions=(SaveRecord(record=leaving, why=f"{part.part} is to be unplugged"),))
    if _cache_is_full(look):
        # Measured: a CPU that finds no free region in TCG's translation cache aborts QEMU (tcg_region_initial_alloc).
        return cold(change.field, f"{change.field}: QEMU's translation cache is nearly full")
    part = _pending(cpu_device(there), PendingKind.PLUG, look)
    coming = begun(look.record, with_cpus(look.machine, there + 1), look.record.source, part)
    steps = cpu_steps(there, look.inventory.cpus[there])
    saved = SaveRecord(record=coming, why=f"{part.part} is about to be plugged")
    return Work(field=change.field, actions=(saved, *making(steps)))


def _cache_is_full(look: Look) -> bool:
    used = look.inventory.translation_cache_used
    return look.machine.accelerator is Accelerator.TCG and (used is None or used > CACHE_USED_MAX)


def begin_memory(change: Change, look: Look) -> Answer:
    """More memory, offered by the virtio-mem device, or plugged as a module where there is none.

    Raises:
        Refused: MemoryNotAligned, InsufficientMemory.
    """
    memory, wanted = look.machine.memory, parse_quantity(look.guest.spec.memory.size)
    more = wanted - memory.asked_bytes
    if wanted > memory.max_bytes:
        return cold(change.field, f"{change.field}: the running machine has room for {format_bytes(memory.max_bytes)}")
    if more < 0:
        return cold(change.field, f"{change.field}: a running guest keeps the memory that it has")
    if more == 0:
        return _accept(change, look)
    refuse_beyond_node("spec.memory.size", wanted, look.observed)
    if memory.virtio_mem is None:
        return Work(field=change.field, actions=plug_module(look.record, look.machine, more, look))
    refuse_unaligned("spec.memory.size", wanted, memory.virtio_mem.block_bytes)
    asked = with_requested(look.machine, memory.virtio_mem.requested_bytes + more)
    offered = begun(look.record, asked, look.record.source, _pending(MEMORY_DEVICE, PendingKind.RESIZE, look))
    return Work(field=change.field, actions=(SaveRecord(record=offered, why="memory is about to be offered"),))


def plug_module(record: Record, machine: Machine, size_bytes: int, look: Look) -> tuple[SaveRecord, ...]:
    """The record of a module of that size in the first free slot, which the next look then plugs.

    Raises:
        Refused: MemoryNotAligned, or InsufficientMemory when no slot is free.
    """
    refuse_unaligned("spec.memory.size", size_bytes, MODULE_BYTES)
    taken = {each.slot for each in machine.memory.dimms}
    slot = next((each for each in range(SLOTS) if each not in taken), None)
    if slot is None:
        raise Refused(
            Reason.INSUFFICIENT_MEMORY,
            f"spec.memory.size: all {SLOTS} slots for memory modules are in use; restart the guest to have it all",
        )
    dimm = Dimm(slot=slot, size_bytes=size_bytes)
    after = replace(machine, memory=replace(machine.memory, dimms=(*machine.memory.dimms, dimm)))
    part = _pending(dimm_device(slot), PendingKind.PLUG, look)
    return (SaveRecord(record=begun(record, after, record.source, part), why=f"{part.part} is about to be plugged"),)


def _accept(change: Change, look: Look) -> Answer:
    source = accepted(look.record.source, look.guest.spec, change.place)
    return Work(field=change.field, actions=(SaveRecord(record=replace(look.record, source=source), why="it is so"),))


def _pending(part: str, kind: PendingKind, look: Look) -> Pending:
    return Pending(part=part, kind=kind, since=look.now, asked=0, asked_at=0.0)

"""Edits of the live description: one part more, one part less, one value changed. Pure values in, values out.

It must never decide that something is to change, nor forget an address: what leaves is reused last.
"""

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum

from guestlet.guest.change.difference import Place, disk_place, network_place
from guestlet.guest.record import Aliases, Pending, PendingKind, Record, Run
from guestlet.pci.plug import unplug
from guestlet.qemu.machine import Cpu, Dimm, Disk, Machine, Nic
from guestlet.qemu.names import MEMORY_DEVICE, backing_node, disk_node, net_backend, protocol_node

CPU_PLACE = Place(group="cpu", item=None, leaf=("count",))
MEMORY_PLACE = Place(group="memory", item=None, leaf=("size",))


class PartKind(StrEnum):
    """What a part of the machine is; the first word of its qdev id."""

    DISK = "disk"
    NIC = "nic"
    CPU = "cpu"
    DIMM = "dimm"
    MEMORY = "memory"  # the virtio-mem device


def part_of(device: str) -> tuple[PartKind, str]:
    """Kind and name of the part with this qdev id: ``disk-data`` is (DISK, data), ``cpu-1`` is (CPU, 1)."""
    if device == MEMORY_DEVICE:
        return PartKind.MEMORY, ""
    kind, _, name = device.partition("-")
    return PartKind(kind), name


def place_of(device: str) -> Place:
    """The place of the spec that asks for the part."""
    kind, name = part_of(device)
    match kind:
        case PartKind.DISK:
            return disk_place(name)
        case PartKind.NIC:
            return network_place(name)
        case PartKind.CPU:
            return CPU_PLACE
        case PartKind.DIMM | PartKind.MEMORY:
            return MEMORY_PLACE


def disk_named(machine: Machine, name: str) -> Disk | None:
    """The disk of that name."""
    return next((each for each in machine.disks if each.name == name), None)


def nic_named(machine: Machine, name: str) -> Nic | None:
    """The network interface of that name."""
    return next((each for each in machine.networks if each.name == name), None)


def dimm_in(machine: Machine, slot: str) -> Dimm | None:
    """The memory module in that slot."""
    return next((each for each in machine.memory.dimms if str(each.slot) == slot), None)


def with_disk(machine: Machine, disk: Disk) -> Machine:
    """The machine with this disk in the place of the one of its name."""
    return replace(machine, disks=tuple(disk if each.name == disk.name else each for each in machine.disks))


def with_nic(machine: Machine, nic: Nic) -> Machine:
    """The machine with this interface in the place of the one of its name."""
    return replace(machine, networks=tuple(nic if each.name == nic.name else each for each in machine.networks))


def with_cpus(machine: Machine, count: int) -> Machine:
    """The machine with that many virtual CPUs."""
    cpu: Cpu = replace(machine.cpu, count=count)
    return replace(machine, cpu=cpu)


def with_requested(machine: Machine, requested_bytes: int) -> Machine:
    """The machine whose virtio-mem device is asked to give that much."""
    device = machine.memory.virtio_mem
    if device is None:
        return machine
    asked = replace(device, requested_bytes=requested_bytes)
    return replace(machine, memory=replace(machine.memory, virtio_mem=asked))


def never_plugged(machine: Machine, device: str) -> Machine:
    """The machine without a part that no guest has seen: its address was never used."""
    layout = machine.pci
    return replace(without_part(machine, device), pci=replace(unplug(layout, device), freed=layout.freed))


def without_part(machine: Machine, device: str) -> Machine:
    """The machine without the part; its address, if it had one, is free from now on, and reused last."""
    kind, name = part_of(device)
    layout = unplug(machine.pci, device)
    match kind:
        case PartKind.DISK:
            return replace(machine, disks=tuple(each for each in machine.disks if each.name != name), pci=layout)
        case PartKind.NIC:
            return replace(machine, networks=tuple(each for each in machine.networks if each.name != name), pci=layout)
        case PartKind.CPU:
            return with_cpus(machine, int(name))
        case PartKind.DIMM:
            kept = tuple(each for each in machine.memory.dimms if str(each.slot) != name)
            return replace(machine, memory=replace(machine.memory, dimms=kept))
        case PartKind.MEMORY:
            return machine


def without_aliases(run: Run, device: str) -> Run:
    """The run that remembers no foreign name of the part: what comes in its place has ours."""
    kind, name = part_of(device)
    ours = {device}
    if kind is PartKind.DISK:
        tops = (disk_node(name), backing_node(name))
        ours |= {each for top in tops for each in (top, protocol_node(top))}
    elif kind is PartKind.NIC:
        ours.add(net_backend(name))
    known = run.aliases
    kept = Aliases(
        devices={each: its for each, its in known.devices.items() if each not in ours},
        nodes={each: its for each, its in known.nodes.items() if each not in ours},
        netdevs={each: its for each, its in known.netdevs.items() if each not in ours},
    )
    return run if kept == known else replace(run, aliases=kept)


def settled_machine(record: Record) -> Machine | None:
    """The machine without what is only being plugged: what QEMU is known to have."""
    machine = record.machine
    for each in record.pending:
        if machine is not None and each.kind is PendingKind.PLUG:
            machine = never_plugged(machine, each.part)
    return machine


def begun(record: Record, machine: Machine, source: str, *pending: Pending) -> Record:
    """The record of a change that begins."""
    fresh = {each.part for each in pending}
    kept = tuple(each for each in record.pending if each.part not in fresh)
    return replace(record, machine=machine, source=source, pending=(*kept, *pending))


def updated(record: Record, pending: Pending) -> Record:
    """The record in which this pending change stands so."""
    return replace(record, pending=tuple(pending if each.part == pending.part else each for each in record.pending))


def done(record: Record, part: str) -> Record:
    """The record in which nothing is pending for the part any more."""
    return replace(record, pending=_but(record.pending, part))


def _but(pending: Iterable[Pending], part: str) -> tuple[Pending, ...]:
    return tuple(each for each in pending if each.part != part)

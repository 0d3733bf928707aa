"""How a change of the running machine begins: checked against the node, recorded, and then the first actions. Pure.

What gets an address or a slot is recorded before QEMU hears of it. What only sets a value, and can be set again, is
done first and recorded after. It must never begin what the node cannot finish, nor take anything away by guess.
"""

from dataclasses import replace

from guestlet.api.disk_spec import DiskSpec
from guestlet.api.network_spec import NetworkSpec
from guestlet.api.quantity import format_bytes, parse_quantity
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.actions import Action, CreateImage, MoveTap, SaveRecord, ShapeTap, Tell
from guestlet.guest.change.board import begin_cpus, begin_memory
from guestlet.guest.change.difference import Change, ChangeKind, accepted
from guestlet.guest.change.edit import begun, disk_named, nic_named, with_disk, with_nic
from guestlet.guest.change.look import Answer, Look, Work, cold, working
from guestlet.guest.change.parts import disk_steps, making, network_steps, throttle_told
from guestlet.guest.images import announced, check_image, growth_of, images_had, launched_images
from guestlet.guest.record import Pending, PendingKind
from guestlet.guest.resolve_disks import resolve_disk
from guestlet.guest.resolve_networks import refuse_unserved, resolve_network
from guestlet.guest.resolve_pci import disk_address, network_address
from guestlet.host.facts import ImageFacts
from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import Family, reserved_for, root_bus
from guestlet.pci.layout import Layout
from guestlet.pci.plug import plug
from guestlet.pci.venues import can_hotplug, occupied, slots
from guestlet.qemu import commands
from guestlet.qemu.machine import BridgeNet, Disk, DiskBus, Machine, Nic
from guestlet.qemu.names import SCSI_CONTROLLER, disk_device, disk_node, nic_device
from guestlet.qemu.pci_requests import disk_request, nic_request, scsi_request


def begin(change: Change, look: Look) -> Answer:
    """What to do about a change that nothing was done about yet.

    Raises:
        Refused: it cannot be had; reason and message are for the guest's owner.
    """
    match change.kind:
        case ChangeKind.ADD_DISK:
            return _add_disk(change, look)
        case ChangeKind.ADD_NETWORK:
            return _add_network(change, look)
        case ChangeKind.REMOVE_DISK | ChangeKind.REMOVE_NETWORK:
            return _remove(change, look)
        case ChangeKind.SET_CPUS:
            return begin_cpus(change, look)
        case ChangeKind.SET_MEMORY:
            return begin_memory(change, look)
        case _:
            return _set_value(change, look)


def _set_value(change: Change, look: Look) -> Answer:
    disk, nic = disk_named(look.machine, change.name), nic_named(look.machine, change.name)
    if change.place.group == "disks" and disk is not None:
        return _set_disk(change, look, disk)
    if change.place.group == "networks" and nic is not None:
        return _set_network(change, look, nic)
    return cold(change.field, f"{change.field}: the running machine does not have it")


def _set_disk(change: Change, look: Look, disk: Disk) -> Answer:
    spec = _disk_spec(look, change)
    match change.kind:
        case ChangeKind.THROTTLE_DISK:
            wanted = _resolved(look, spec)
            limited = replace(disk, throttle=wanted.throttle)
            tell = throttle_told(limited, look.aliases.devices.get(disk_device(disk.name)))
            # A drive without a medium has no limits to set; they come with the medium.
            return _set(change, look, with_disk(look.machine, limited), *((tell,) if disk.source else ()))
        case ChangeKind.GROW_DISK:
            return _grow(change, look, disk, spec)
        case _:
            return _exchange(change, look, spec)


def _grow(change: Change, look: Look, disk: Disk, spec: DiskSpec) -> Answer:
    wanted = parse_quantity(spec.size or "0")
    node = look.aliases.nodes.get(disk_node(disk.name), disk_node(disk.name))
    found = look.inventory.nodes.get(node)
    there = found.size_bytes if found is not None else disk.size_bytes
    if wanted < there:
        raise Refused(
            Reason.IMAGE_SIZE_MISMATCH,
            f"spec.{change.field}: {spec.size} is less than the {format_bytes(there)} that the disk has; disks are "
            "never shrunk: ask for at least that",
        )
    if disk.read_only or disk.bus is DiskBus.NVME:
        why = "QEMU cannot resize an NVMe disk that is open" if disk.bus is DiskBus.NVME else "the disk is read-only"
        return cold(change.field, f"{change.field}: {why}")
    if node in look.inventory.busy_nodes:
        message = f"{change.field}: a block job uses the disk; it grows when that has ended"
        return working(change.field, Reason.IMAGE_BUSY, message, wait_s=5.0)
    tell = Tell(command=commands.block_resize(node, wanted), what=f"grows {node}")
    after = with_disk(look.machine, replace(disk, size_bytes=wanted))
    return _set(change, look, after, *((tell,) if wanted > there else ()))


def _exchange(change: Change, look: Look, spec: DiskSpec) -> Answer:
    wanted = _resolved(look, spec)
    _check(look, spec, wanted)
    pending = _pending(disk_device(spec.name), PendingKind.EXCHANGE, look)
    after = begun(look.record, with_disk(look.machine, wanted), _accepted(change, look), pending)
    return Work(field=change.field, actions=(SaveRecord(record=after, why=f"{change.field} is exchanged"),))


def _set_network(change: Change, look: Look, nic: Nic) -> Answer:
    spec = _network_spec(look, change)
    match change.kind:
        case ChangeKind.SET_LINK:
            device = look.device(nic_device(nic.name))
            tell = Tell(command=commands.set_link(device, up=spec.link_up), what=f"sets the link of {device}")
            return _set(change, look, with_nic(look.machine, replace(nic, link_up=spec.link_up)), tell)
        case ChangeKind.MOVE_NETWORK if nic.tap is not None and spec.bridge is not None:
            refuse_unserved(spec, look.observed.node, look.network)
            after = with_nic(look.machine, replace(nic, backend=BridgeNet(bridge=spec.bridge.name)))
            return _set(change, look, after, MoveTap(tap=nic.tap, bridge=spec.bridge.name))
        case ChangeKind.SHAPE_NETWORK if nic.tap is not None:
            wanted = _resolved_network(look, spec)
            after = with_nic(look.machine, replace(nic, bandwidth=wanted.bandwidth))
            return _set(change, look, after, ShapeTap(tap=nic.tap, bandwidth=wanted.bandwidth))
        case _:
            return cold(change.field, f"{change.field}: the interface has no tap")


def _set(change: Change, look: Look, machine: Machine, *actions: Action) -> Work:
    """The effect first: it can be repeated, and until it is recorded the spec still differs."""
    after = replace(look.record, machine=machine, source=_accepted(change, look))
    return Work(field=change.field, actions=(*actions, SaveRecord(record=after, why=f"{change.field} is set")))


# Disks


def _add_disk(change: Change, look: Look) -> Answer:
    spec = _disk_spec(look, change)
    if spec.bus is DiskBus.SATA:
        return cold(change.field, f"{change.field}: a SATA controller takes disks only at a cold start")
    disk = _resolved(look, spec)
    _check(look, spec, disk)
    _refuse_twin_serial(look, disk)
    device = disk_device(disk.name)
    address = disk_address(spec)
    if address is not None and _only_cold(look.machine.pci, address):
        return cold(change.field, f"{change.field}: {address.bus} takes devices only at a cold start")
    if _needs_another_controller(look, disk):
        return cold(change.field, f"{change.field}: the SCSI controller was made without an iothread")
    shared = disk.bus is DiskBus.SCSI
    request = replace(scsi_request() if shared else disk_request(disk), explicit=address)
    disks = (*look.machine.disks, disk)
    machine = replace(look.machine, disks=disks, pci=plug(look.machine.pci, request, closed=look.closed_buses))
    images = _images(look, spec, disk)
    noted = announced(look.record, (disk,)) if any(isinstance(each, CreateImage) for each in images) else look.record
    record = replace(noted, created_images=launched_images(look.guest, noted, now=look.now))
    after = begun(record, machine, _accepted(change, look), _pending(device, PendingKind.PLUG, look))
    steps = disk_steps(machine, disk, look.inventory, look.aliases)
    saved = SaveRecord(record=after, why=f"{device} is about to be plugged")
    return Work(field=change.field, actions=(*images, saved, *making(steps)))


def _needs_another_controller(look: Look, disk: Disk) -> bool:
    if disk.bus is not DiskBus.SCSI or not disk.io_thread or not look.has_device(SCSI_CONTROLLER):
        return False
    return not any(each.io_thread for each in look.machine.disks if each.bus is DiskBus.SCSI)


def _images(look: Look, spec: DiskSpec, disk: Disk) -> tuple[Action, ...]:
    """What the disk's image needs before QEMU may open it."""
    source = disk.source
    if source is None:
        return ()
    found = look.storage.images.get((source.pool, source.image))
    if isinstance(found, ImageFacts):
        return growth_of(spec, disk, found)
    note = announced(look.record, (disk,))
    return (
        SaveRecord(record=note, why="an image is about to be created"),
        CreateImage(disk=disk.name, source=source, size_bytes=disk.size_bytes),
    )


def _check(look: Look, spec: DiskSpec, disk: Disk) -> None:
    check_image(f"spec.disks[{disk.name}]", spec, disk, look.storage, had=images_had(look.guest, look.record))
    holder = next((e.name for e in look.machine.disks if e.source == disk.source and e.name != disk.name), None)
    if holder is not None and disk.source is not None and not disk.read_only:
        raise Refused(
            Reason.IMAGE_IN_USE,
            f"spec.disks[{disk.name}].source: {disk.source.image!r} is open as disk {holder}; name another image",
        )


def _refuse_twin_serial(look: Look, disk: Disk) -> None:
    twin = next((each for each in look.machine.disks if each.serial == disk.serial), None)
    if twin is not None:
        raise Refused(
            Reason.INVALID_SPEC,
            f"spec.disks[{disk.name}].serial: {disk.serial!r} is also that of disk {twin.name}, which the guest still "
            "has; give another, or wait until that one is gone",
        )


def _resolved(look: Look, spec: DiskSpec) -> Disk:
    earlier = tuple(each for each in look.guest.spec.disks if each.name != spec.name)
    return resolve_disk(spec, earlier=earlier, storage=look.storage, live=look.machine.disks)


def _disk_spec(look: Look, change: Change) -> DiskSpec:
    return next(each for each in look.guest.spec.disks if each.name == change.name)


# Networks


def _add_network(change: Change, look: Look) -> Answer:
    spec = _network_spec(look, change)
    refuse_unserved(spec, look.observed.node, look.network)
    nic = _resolved_network(look, spec)
    _refuse_twin_mac(look, nic)
    device = nic_device(nic.name)
    address = network_address(spec)
    if address is not None and _only_cold(look.machine.pci, address):
        return cold(change.field, f"{change.field}: {address.bus} takes devices only at a cold start")
    layout = plug(look.machine.pci, replace(nic_request(nic), explicit=address), closed=look.closed_buses)
    machine = replace(look.machine, networks=(*look.machine.networks, nic), pci=layout)
    after = begun(look.record, machine, _accepted(change, look), _pending(device, PendingKind.PLUG, look))
    steps = network_steps(machine, nic, look.inventory, look.aliases)
    saved = SaveRecord(record=after, why=f"{device} is about to be plugged")
    return Work(field=change.field, actions=(saved, *making(steps)))


def _refuse_twin_mac(look: Look, nic: Nic) -> None:
    twin = next((each for each in look.machine.networks if each.mac == nic.mac), None)
    if twin is not None:
        raise Refused(
            Reason.INVALID_SPEC,
            f"spec.networks[{nic.name}].macAddress: {nic.mac} is also that of {twin.name}, which the guest still has; "
            "give another, or wait until that one is gone",
        )


def _resolved_network(look: Look, spec: NetworkSpec) -> Nic:
    earlier = tuple(each for each in look.guest.spec.networks if each.name != spec.name)
    return resolve_network(spec, earlier=earlier, uuid=look.machine.uuid, live=look.machine.networks)


def _network_spec(look: Look, change: Change) -> NetworkSpec:
    return next(each for each in look.guest.spec.networks if each.name == change.name)


# Both


def _remove(change: Change, look: Look) -> Answer:
    disk = change.kind is ChangeKind.REMOVE_DISK
    device = disk_device(change.name) if disk else nic_device(change.name)
    known = (disk_named(look.machine, change.name) if disk else nic_named(look.machine, change.name)) is not None
    if not known:
        forgotten = replace(look.record, source=_accepted(change, look))
        return Work(field=change.field, actions=(SaveRecord(record=forgotten, why=f"{device} is not there"),))
    place = next((each.address for each in look.machine.pci.devices if each.id == device), None)
    on_sata = disk and any(e.bus is DiskBus.SATA for e in look.machine.disks if e.name == change.name)
    if on_sata or (place is not None and not can_hotplug(look.machine.pci, place)):
        where = "SATA" if place is None else str(place)
        return cold(change.field, f"{change.field}: what is at {where} leaves only when the guest is stopped")
    pending = _pending(device, PendingKind.UNPLUG, look)
    after = begun(look.record, look.machine, look.record.source, pending)
    return Work(field=change.field, actions=(SaveRecord(record=after, why=f"{device} is to be unplugged"),))


def _only_cold(layout: Layout, address: PciAddress) -> bool:
    """Whether a free address is one that is filled only at a cold start: slots of pcie.0."""
    if layout.family is not Family.Q35 or address.bus != root_bus(layout.family):
        return False
    free = (address.bus, address.slot) not in slots(occupied(layout))
    return free and reserved_for(layout.family, address) is None


def _pending(part: str, kind: PendingKind, look: Look) -> Pending:
    return Pending(part=part, kind=kind, since=look.now, asked=0, asked_at=0.0)


def _accepted(change: Change, look: Look) -> str:
    return accepted(look.record.source, look.guest.spec, change.place)

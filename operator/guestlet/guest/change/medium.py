"""Another medium for the cdrom drive of a running machine: the old one out, then the new one in. Pure.

Both have the same node-names, so the first half is noted as done before the second begins: a node of that name is then
the new one.
"""

from dataclasses import replace

from guestlet.guest.actions import Action, SaveRecord, Tell
from guestlet.guest.change.edit import disk_named, done, part_of, place_of, updated
from guestlet.guest.change.look import Answer, Look, Work
from guestlet.guest.change.parts import making, node_steps, throttle_told, unmaking
from guestlet.guest.record import Pending
from guestlet.qemu import commands
from guestlet.qemu.inventory import Drive
from guestlet.qemu.machine import Disk
from guestlet.qemu.names import backing_node, disk_node, protocol_node


def follow_exchange(pending: Pending, look: Look) -> Answer:
    """What to do about a medium that is being exchanged."""
    _, name = part_of(pending.part)
    field = f"{place_of(pending.part)}.source"
    disk = disk_named(look.machine, name)
    drive = look.inventory.drive_of(look.device(pending.part))
    if disk is None or drive is None:
        return Work(field=field, actions=(SaveRecord(record=done(look.record, pending.part), why="there is no drive"),))
    if pending.asked == 0:
        return Work(field=field, actions=_out(pending, look, disk, drive))
    return Work(field=field, actions=_in(pending, look, disk, drive))


def _out(pending: Pending, look: Look, disk: Disk, drive: Drive) -> tuple[Action, ...]:
    device = look.device(pending.part)
    actions: list[Action] = []
    if drive.node and not drive.tray_open:
        # With force: the spec says that the medium goes, and a guest can lock the door for ever.
        actions.append(Tell(command=commands.blockdev_open_tray(device, force=True), what=f"opens {device}"))
    if drive.node:
        actions.append(Tell(command=commands.blockdev_remove_medium(device), what=f"empties {device}"))
    actions += [
        Tell(command=commands.blockdev_del(each), what=f"closes {each}")
        for each in _old_nodes(disk, drive, look)
        if each in look.inventory.nodes
    ]
    noted = updated(look.record, replace(pending, asked=1, asked_at=look.now))
    return (*actions, SaveRecord(record=noted, why=f"{device} is empty"))


def _old_nodes(disk: Disk, drive: Drive, look: Look) -> tuple[str, ...]:
    """Upper nodes first, whatever the old medium was."""
    top, below = disk_node(disk.name), backing_node(disk.name)
    ours = (top, protocol_node(top), below, protocol_node(below))
    known = (look.aliases.nodes.get(each, each) for each in ours)
    return tuple(dict.fromkeys((*((drive.node,) if drive.node else ()), *known)))


def _in(pending: Pending, look: Look, disk: Disk, drive: Drive) -> tuple[Action, ...]:
    device, node = look.device(pending.part), disk_node(disk.name)
    settled = SaveRecord(record=done(look.record, pending.part), why=f"the medium of {device} is exchanged")
    if look.failure(f"{place_of(pending.part)}.source") is not None:
        empty = replace(disk, source=None)
        disks = tuple(empty if each.name == disk.name else each for each in look.machine.disks)
        emptied = replace(done(look.record, pending.part), machine=replace(look.machine, disks=disks))
        left = unmaking(node_steps(look.machine, disk, look.inventory, look.aliases)) if drive.node != node else ()
        return (*left, SaveRecord(record=emptied, why=f"{device} stays empty"))
    actions = list(making(node_steps(look.machine, disk, look.inventory, look.aliases)))
    if disk.source is not None and drive.node != node:
        if not drive.tray_open:
            actions.append(Tell(command=commands.blockdev_open_tray(device, force=True), what=f"opens {device}"))
        actions.append(Tell(command=commands.blockdev_insert_medium(device, node), what=f"fills {device}"))
        if disk.throttle is not None:
            actions.append(throttle_told(disk, look.aliases.devices.get(pending.part)))
    if drive.tray_open or actions:
        actions.append(Tell(command=commands.blockdev_close_tray(device), what=f"closes {device}"))
    return (*actions, settled)

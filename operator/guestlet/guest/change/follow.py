"""How a change of the running machine that was begun goes on: completed, undone, or waited for. Pure.

Every answer rests on what QEMU has now, so it does not matter where the last agent was interrupted. A device that the
guest must let go of is waited for; its parts are taken away only when QEMU has let go of it, and never before.
"""

from dataclasses import replace

from guestlet.api.reasons import Reason
from guestlet.guest.actions import Action, AskUnplug, SaveRecord, Tell
from guestlet.guest.change.difference import accepted, withdrawn
from guestlet.guest.change.edit import (
    PartKind,
    dimm_in,
    disk_named,
    done,
    never_plugged,
    nic_named,
    part_of,
    place_of,
    updated,
    without_aliases,
    without_part,
)
from guestlet.guest.change.look import Answer, Look, Work, stuck, working
from guestlet.guest.change.medium import follow_exchange
from guestlet.guest.change.memory import follow_resize
from guestlet.guest.change.parts import (
    Step,
    cpu_steps,
    dimm_steps,
    disk_steps,
    lower_tap,
    making,
    network_steps,
    throttle_told,
    unmaking,
)
from guestlet.guest.record import Pending, PendingKind, Record
from guestlet.qemu import commands
from guestlet.qemu.machine import Machine
from guestlet.qemu.names import disk_device, nic_device

# How long after each request the guest is asked again. Linux takes a second attention within 5 s as a cancellation
# (drivers/pci/hotplug/pciehp_ctrl.c), and a guest that is booting hears nothing for a while.
ASK_AGAIN_S = (10.0, 20.0, 40.0, 80.0)
# From here on a person should know: a guest that answers at all does so within seconds.
_PATIENT_ASKS = 2


def follow(pending: Pending, look: Look) -> Answer:
    """What to do about a pending change.

    Raises:
        Refused: it cannot go on as it is.
    """
    match pending.kind:
        case PendingKind.PLUG:
            return _plug(pending, look)
        case PendingKind.UNPLUG:
            return _unplug(pending, look)
        case PendingKind.EXCHANGE:
            return follow_exchange(pending, look)
        case PendingKind.RESIZE:
            return follow_resize(pending, look)


def _steps(part: str, look: Look) -> tuple[Step, ...]:
    """The parts of the device as QEMU has or lacks them; none when the live description does not know it."""
    kind, name = part_of(part)
    match kind:
        case PartKind.DISK:
            disk = disk_named(look.machine, name)
            return disk_steps(look.machine, disk, look.inventory, look.aliases) if disk else ()
        case PartKind.NIC:
            nic = nic_named(look.machine, name)
            return network_steps(look.machine, nic, look.inventory, look.aliases) if nic else ()
        case PartKind.CPU:
            index = int(name)
            return cpu_steps(index, look.inventory.cpus[index]) if index < len(look.inventory.cpus) else ()
        case PartKind.DIMM:
            dimm = dimm_in(look.machine, name)
            return dimm_steps(dimm, look.inventory) if dimm else ()
        case PartKind.MEMORY:
            return ()


def _present(part: str, look: Look) -> bool:
    """Whether QEMU has the device itself, or still holds what was behind it: some tens of milliseconds after a device
    is gone from the machine its node or back end is still in use (measured).
    """
    kind, name = part_of(part)
    if kind is PartKind.DISK and look.inventory.drive_of(look.device(part)) is not None:
        return True
    if kind is PartKind.NIC and look.device(part) in look.inventory.interfaces:
        return True
    if kind is PartKind.CPU:
        index = int(name)
        return index < len(look.inventory.cpus) and look.inventory.cpus[index].path is not None
    return look.has_device(part)


# Plugging


def _plug(pending: Pending, look: Look) -> Answer:
    field = str(place_of(pending.part))
    if look.failure(field) is not None:
        return _undo(pending, look, field)
    missing = making(_steps(pending.part, look))
    if missing:
        return Work(field=field, actions=missing)
    settled = _confirmed(pending, look)
    saved = SaveRecord(record=settled, why=f"{pending.part} is plugged")
    return Work(field=field, actions=(*_last_touches(pending.part, look), saved))


def _last_touches(part: str, look: Look) -> tuple[Action, ...]:
    """What QEMU takes only from a device that is there, and what can be said twice."""
    kind, name = part_of(part)
    if kind is PartKind.DISK and (disk := disk_named(look.machine, name)) is not None and disk.throttle is not None:
        return (throttle_told(disk),)
    if kind is PartKind.NIC and (nic := nic_named(look.machine, name)) is not None and not nic.link_up:
        return (Tell(command=commands.set_link(part, up=False), what=f"takes the link of {part} down"),)
    return ()


def _confirmed(pending: Pending, look: Look) -> Record:
    """CPUs and memory modules count as asked for only when all of them are there."""
    settled = done(look.record, pending.part)
    kind, _ = part_of(pending.part)
    place, spec, machine = place_of(pending.part), look.guest.spec, look.machine
    if kind is PartKind.CPU and machine.cpu.count == spec.cpu.count:
        return replace(settled, source=accepted(settled.source, spec, place))
    return settled


def _undo(pending: Pending, look: Look, field: str) -> Answer:
    """Takes away what was made of a part that could not be made whole."""
    if _present(pending.part, look):
        leaving = replace(pending, kind=PendingKind.UNPLUG, since=look.now, asked=0, asked_at=0.0)
        saved = SaveRecord(record=updated(look.record, leaving), why=f"{pending.part} could not be plugged")
        return Work(field=field, actions=(saved,))
    machine = never_plugged(look.machine, pending.part)
    return Work(field=field, actions=(*_back(pending.part, look), _gone(pending, look, machine)))


# Unplugging


def _unplug(pending: Pending, look: Look) -> Answer:
    place = place_of(pending.part)
    field, present = str(place), _present(pending.part, look)
    if _wanted_again(pending, look) and look.failure(field) is None:
        kept = done(look.record, pending.part) if present else updated(look.record, _as_plug(pending, look))
        saved = SaveRecord(record=kept, why=f"{pending.part} is wanted again")
        return Work(field=field, actions=(saved,))
    if present and part_of(pending.part)[0] is not PartKind.CPU and not look.has_device(pending.part):
        return working(field, Reason.UNPLUGGING, f"QEMU is letting go of {pending.part}", wait_s=0.05)
    if not present:
        machine = without_part(look.machine, pending.part)
        return Work(field=field, actions=(*_back(pending.part, look), _gone(pending, look, machine)))
    return _ask(pending, look, field)


def _as_plug(pending: Pending, look: Look) -> Pending:
    return replace(pending, kind=PendingKind.PLUG, since=look.now, asked=0, asked_at=0.0)


def _wanted_again(pending: Pending, look: Look) -> bool:
    kind, name = part_of(pending.part)
    spec = look.guest.spec
    if kind is PartKind.CPU:
        return spec.cpu.count > int(name)
    names = [each.name for each in (spec.disks if kind is PartKind.DISK else spec.networks)]
    return name in names


def _ask(pending: Pending, look: Look, field: str) -> Answer:
    device = look.device(pending.part)
    if not look.cpus_run:
        return working(field, Reason.UNPLUGGING, f"{pending.part} is unplugged when the guest runs again")
    failure = look.failure(field)
    if failure is not None:
        return stuck(field, Reason.UNPLUG_REFUSED, f"{pending.part} cannot be unplugged: {failure.message}")
    rebooted = look.monitor.heard.reset_at is not None and look.monitor.heard.reset_at > pending.asked_at
    asked = 0 if rebooted else pending.asked
    refusal = look.monitor.heard.unplug_refusals.get(pending.part) or look.monitor.heard.unplug_refusals.get(device)
    if asked and refusal is not None and refusal[0] >= pending.asked_at:
        message = f"the guest does not let go of {pending.part}: {refusal[1]}; stop its use inside, or reboot the guest"
        return stuck(field, Reason.UNPLUG_REFUSED, message)
    waits_s = 0.0 if asked == 0 else _due_s(asked, look.now - pending.asked_at)
    if waits_s is not None and waits_s <= 0:
        noted = replace(pending, asked=asked + 1, asked_at=look.now)
        saved = SaveRecord(record=updated(look.record, noted), why=f"the guest is asked to let go of {pending.part}")
        return Work(field=field, actions=(saved, AskUnplug(device=_address_of(pending.part, device, look))))
    if asked > _PATIENT_ASKS:
        message = (
            f"the guest does not answer the request to let go of {pending.part}; it is asked again when it reboots "
            "(spec.restart)"
        )
        return stuck(field, Reason.UNPLUG_IGNORED, message, wait_s=waits_s)
    message = f"the guest was asked to let go of {pending.part}"
    return working(field, Reason.UNPLUGGING, message, wait_s=waits_s)


def _due_s(asked: int, since_s: float) -> float | None:
    """Seconds until the guest is asked again; ``None``: only when it reboots."""
    return ASK_AGAIN_S[asked - 1] - since_s if asked <= len(ASK_AGAIN_S) else None


def _address_of(part: str, device: str, look: Look) -> str:
    """The id QEMU takes; a CPU of the start has none and is named by its path."""
    kind, name = part_of(part)
    path = look.inventory.cpus[int(name)].path if kind is PartKind.CPU else None
    return path if path is not None and part not in look.inventory.devices else device


# What is left when QEMU has let go


def _back(part: str, look: Look) -> tuple[Action, ...]:
    left = unmaking(_steps(part, look))
    kind, name = part_of(part)
    nic = nic_named(look.machine, name) if kind is PartKind.NIC else None
    return left if nic is None else (*left, *lower_tap(look.machine, nic))


def _gone(pending: Pending, look: Look, machine: Machine) -> SaveRecord:
    record = replace(done(look.record, pending.part), run=without_aliases(look.run, pending.part))
    after = replace(record, machine=machine, source=_source_without(pending, look))
    return SaveRecord(record=after, why=f"{pending.part} is not there any more")


def _source_without(pending: Pending, look: Look) -> str:
    """The source without a disk or network; of CPUs it is as asked for when the last one is gone."""
    kind, name = part_of(pending.part)
    place, source, spec = place_of(pending.part), look.record.source, look.guest.spec
    if kind in (PartKind.DISK, PartKind.NIC):
        return withdrawn(source, place)
    if kind is PartKind.CPU and int(name) == spec.cpu.count:
        return accepted(source, spec, place)
    return source


def lost_parts(look: Look) -> tuple[str, ...]:
    """Disks and networks that the guest let go of although nobody asked it to: they are plugged again."""
    numbered = look.monitor.numbered
    if numbered is None:
        return ()
    known = {disk_device(each.name) for each in look.machine.disks} | {
        nic_device(e.name) for e in look.machine.networks
    }
    busy = {each.part for each in look.record.pending}
    return tuple(each for each in numbered.missing if each in known - busy and not look.has_device(each))

"""Memory that was offered by virtio-mem: taken by the guest, or given by modules to one that has no driver. Pure."""

from dataclasses import replace

from guestlet.api.quantity import format_bytes
from guestlet.api.reasons import Reason
from guestlet.guest.actions import Action, SaveRecord, Tell
from guestlet.guest.change.board import plug_module
from guestlet.guest.change.difference import accepted
from guestlet.guest.change.edit import MEMORY_PLACE, done, with_requested
from guestlet.guest.change.look import Answer, Look, Work, stuck, working
from guestlet.guest.record import Pending
from guestlet.qemu import commands
from guestlet.qemu.inventory import MemoryDevice
from guestlet.qemu.names import MEMORY_DEVICE

_FIELD = str(MEMORY_PLACE)
_PATH = f"/machine/peripheral/{MEMORY_DEVICE}"
# A guest with the driver takes its first blocks within a second of being asked, also under TCG (measured); one that is
# still booting takes them when its driver loads.
TAKE_S = 30.0


def follow_resize(pending: Pending, look: Look) -> Answer:
    """What to do about memory that was offered.

    Raises:
        Refused: a module cannot give what the guest did not take.
    """
    device = next((each for each in look.inventory.memory_devices if each.id == MEMORY_DEVICE), None)
    wanted = look.machine.memory.virtio_mem
    if device is None or wanted is None:
        gone = SaveRecord(record=done(look.record, pending.part), why="there is no virtio-mem device")
        return Work(field=_FIELD, actions=(gone,))
    failure = look.failure(_FIELD)
    if failure is not None:
        return _take_back(pending, look, device)
    if device.requested_bytes != wanted.requested_bytes:
        return Work(field=_FIELD, actions=(_ask(wanted.requested_bytes),))
    if device.size_bytes >= wanted.requested_bytes:
        return Work(field=_FIELD, actions=(_settled(pending, look),))
    return _not_taken(pending, look, device, wanted.requested_bytes)


def _ask(requested_bytes: int) -> Tell:
    command = commands.qom_set(_PATH, "requested-size", requested_bytes)
    return Tell(command=command, what=f"offers {format_bytes(requested_bytes)} by virtio-mem")


def _settled(pending: Pending, look: Look) -> SaveRecord:
    record = done(look.record, pending.part)
    source = accepted(record.source, look.guest.spec, MEMORY_PLACE)
    return SaveRecord(record=replace(record, source=source), why="the guest has the memory")


def _not_taken(pending: Pending, look: Look, device: MemoryDevice, wanted_bytes: int) -> Answer:
    left_s = TAKE_S - (look.now - pending.since)
    if left_s > 0 or not look.cpus_run:
        message = f"the guest was offered {format_bytes(wanted_bytes)} by virtio-mem and takes it"
        return working(_FIELD, Reason.PLUGGING, message, wait_s=max(left_s, 1.0))
    if device.size_bytes > 0:
        message = (
            f"the guest took {format_bytes(device.size_bytes)} of the {format_bytes(wanted_bytes)} that it was "
            "offered by virtio-mem; see its kernel's log, or restart it to have all of it at start"
        )
        return stuck(_FIELD, Reason.MEMORY_NOT_TAKEN, message, wait_s=60.0)
    return Work(field=_FIELD, actions=_by_module(pending, look, device, wanted_bytes))


def _by_module(pending: Pending, look: Look, device: MemoryDevice, wanted_bytes: int) -> tuple[Action, ...]:
    """It has no driver for virtio-mem: what it was offered comes as a module."""
    machine = with_requested(look.machine, device.size_bytes)
    record = done(look.record, pending.part)
    return (_ask(device.size_bytes), *plug_module(record, machine, wanted_bytes - device.size_bytes, look))


def _take_back(pending: Pending, look: Look, device: MemoryDevice) -> Answer:
    """QEMU refused the offer: the live description is as QEMU has it."""
    machine = with_requested(look.machine, device.requested_bytes)
    record = replace(done(look.record, pending.part), machine=machine)
    return Work(field=_FIELD, actions=(SaveRecord(record=record, why="QEMU refused to offer the memory"),))

"""What the errors of actions say about a guest, and which transitions are worth an Event. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from guestlet.api.base import Condition
from guestlet.api.guest_status import DiskStatus, Phase, VirtualGuestStatus
from guestlet.api.reasons import ConditionType, Reason
from guestlet.errors import Broken, GuestletError, NotNow, Refused, Unknown
from guestlet.guest.verdict import Verdict, verdict


def verdict_of(error: GuestletError, *, running: bool) -> Verdict:
    """How the guest stands after an action failed with ``error``; ``running``: its QEMU runs all the same."""
    phase = Phase.UNKNOWN if running else Phase.PENDING
    match error:
        case Refused():
            return verdict(phase, _reason(error), error.message, stalled=True)
        case Broken():
            return verdict(phase, _reason(error), f"{error.message}; it is tried again", stalled=True)
        case Unknown() | NotNow():
            return verdict(phase, _reason(error), f"{error.message}; the node is looked at again")
        case _:
            return verdict(phase, Reason.HOST_FAILURE, str(error), stalled=True)


def _reason(error: GuestletError) -> Reason:
    try:
        return Reason(error.reason)
    except ValueError:
        return Reason.HOST_FAILURE


def retry_s(error: GuestletError) -> float:
    """When to try again after ``error``, in seconds."""
    match error:
        case Unknown() | NotNow():
            return 0.5
        case Broken():
            return 10.0
        case _:
            return 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change that people want to read in the Events of the object."""

    reason: str
    message: str
    warning: bool


def transitions(before: VirtualGuestStatus, after: VirtualGuestStatus) -> tuple[Transition, ...]:
    """What changed between two published statuses: readiness, standing still, fields that wait."""
    old = {each.type: each for each in before.conditions}
    found: list[Transition] = list(_devices(before, after))
    ready = any(each.type == ConditionType.READY and each.status == "True" for each in after.conditions)
    for new in after.conditions:
        was = old.get(new.type)
        changed = was is None or (was.status, was.reason) != (new.status, new.reason)
        if not changed:
            continue
        if new.type == ConditionType.READY and not _told_by_pause(new, after):
            stalled = any(each.type == ConditionType.STALLED and each.status == "True" for each in after.conditions)
            found.append(Transition(reason=new.reason, message=new.message, warning=stalled))
        elif new.type in (ConditionType.PAUSED, ConditionType.RESTART_REQUIRED) and new.status == "True":
            found.append(Transition(reason=f"{new.type}", message=new.message, warning=False))
        elif new.type == ConditionType.STALLED and new.status == "True" and ready:
            found.append(Transition(reason=new.reason, message=new.message, warning=True))
    return tuple(found)


def _devices(before: VirtualGuestStatus, after: VirtualGuestStatus) -> Iterator[Transition]:
    """What came to and left a machine that ran on: one Event for all that came, one for all that left."""
    if before.qemu is None or after.qemu is None or before.qemu != after.qemu or after.qemu.pid is None:
        return
    if before.pci is None or after.pci is None:
        return
    had = {each.id: each for each in before.pci.devices}
    has = {each.id: each for each in after.pci.devices}
    came = [f"{each.id} at {each.bus}:{each.address}" for each in after.pci.devices if each.id not in had]
    came += _units(before, after)
    left = [each.id for each in before.pci.devices if each.id not in has] + _units(after, before)
    if came:
        yield Transition(reason="Plugged", message=f"plugged into the running guest: {', '.join(came)}", warning=False)
    if left:
        gone = {disk.name for disk in before.disks} - {disk.name for disk in after.disks}
        boot = _boot_disk(before)
        booted = boot in gone
        note = f"; {boot} is the disk that the guest boots from" if booted else ""
        message = f"unplugged from the running guest: {', '.join(left)}{note}"
        yield Transition(reason="Unplugged", message=message, warning=booted)


def _boot_disk(status: VirtualGuestStatus) -> str | None:
    """The disk that the firmware tries first: by order, else the first one; none when QEMU loads the kernel."""
    if status.boot is not None and status.boot.kernel is not None:
        return None
    ordered = sorted((each for each in status.disks if each.boot_order), key=_boot_order)
    return next((each.name for each in (*ordered, *status.disks)), None)


def _boot_order(disk: DiskStatus) -> int:
    return disk.boot_order or 0


def _units(before: VirtualGuestStatus, after: VirtualGuestStatus) -> list[str]:
    """Disks without an address of their own that only ``after`` has."""
    had = {disk.name for disk in before.disks}
    return [f"disk-{each.name}" for each in after.disks if each.name not in had and each.unit is not None]


def _told_by_pause(ready: Condition, after: VirtualGuestStatus) -> bool:
    """Whether the Paused condition says the same, so that one Event is enough."""
    return any(
        each.type == ConditionType.PAUSED and each.status == "True" and each.reason == ready.reason
        for each in after.conditions
    )

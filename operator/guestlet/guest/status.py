"""What is published of a guest: desired, observed, record and the plan's outcome → status values. Pure.

Transition times are carried over by the writer; nothing here looks at a clock except through ``now``.
"""

from dataclasses import dataclass

from guestlet.api.base import Condition
from guestlet.api.guest_spec import AcceleratorChoice
from guestlet.api.guest_status import LastExit as LastExitStatus
from guestlet.api.guest_status import Phase, QemuStatus, VirtualGuestStatus
from guestlet.api.reasons import ConditionType, Reason
from guestlet.errors import Refused
from guestlet.guest.change.difference import live_changes
from guestlet.guest.change.edit import settled_machine
from guestlet.guest.describe import publish_machine
from guestlet.guest.desired import Guest
from guestlet.guest.observed import ObservedGuest
from guestlet.guest.record import LastExit, Record
from guestlet.guest.resolve import resolve_machine
from guestlet.guest.source import waiting_fields
from guestlet.guest.times import rfc3339
from guestlet.guest.verdict import Statement, Verdict
from guestlet.host.accelerator import AcceleratorProbe
from guestlet.pci.observed import Numbered, Seen
from guestlet.qemu.machine import Accelerator, Machine
from guestlet.qemu.replies import RunState

_STANDING = {
    RunState.IO_ERROR: Reason.IO_ERROR,
    RunState.GUEST_PANICKED: Reason.GUEST_PANICKED,
    RunState.WATCHDOG: Reason.WATCHDOG,
}
_DONE = (Phase.RUNNING, Phase.PAUSED, Phase.STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a turn knows at its end; ``observed`` and ``record`` may be missing when it failed early."""

    verdict: Verdict
    observed: ObservedGuest | None
    record: Record | None


def build_status(*, guest: Guest, outcome: Outcome, now: float) -> VirtualGuestStatus:
    """The whole status of the guest, without nodeName and placementEpoch (those are never applied)."""
    base = _described(guest, outcome)
    return base.model_copy(
        update={
            "observed_generation": guest.generation,
            "phase": outcome.verdict.phase,
            "conditions": _conditions(guest, outcome, now),
            "uuid": outcome.record.uuid if outcome.record else guest.published.uuid,
        }
    )


def _described(guest: Guest, outcome: Outcome) -> VirtualGuestStatus:
    """Everything but phase and conditions; what was published stays when the host could not be read."""
    record = outcome.record
    if record is None:
        return guest.published.model_copy(update={"node_name": None, "placement_epoch": None})
    exit_ = record.last_exit
    common = {
        "restarts": record.restarts,
        "last_exit": _exit_status(exit_) if exit_ else guest.published.last_exit,
        "restart_token": record.restart_token,
    }
    machine = settled_machine(record)
    if machine is None:
        return VirtualGuestStatus().model_copy(update=common)
    published = publish_machine(
        machine,
        numbered=_numbered(guest, outcome),
        created_at=_created_at(record),
        memory_now_bytes=_memory_now(outcome, machine),
        aliases=record.run.aliases.devices if record.run else None,
    )
    qemu = _qemu(outcome, record, sandbox=machine.sandbox)
    return published.model_copy(update={**common, "qemu": qemu})


def _memory_now(outcome: Outcome, machine: Machine) -> int:
    """QEMU's own word; it is asked while anything is changed, and after that the guest has all that it was offered."""
    monitor = outcome.observed.monitor if outcome.observed else None
    if monitor is not None and monitor.inventory is not None:
        return monitor.inventory.base_memory_bytes + monitor.inventory.plugged_memory_bytes
    return machine.memory.asked_bytes


def _qemu(outcome: Outcome, record: Record, *, sandbox: bool) -> QemuStatus:
    run = record.run
    if run is None or run.identity is None:
        version = outcome.observed.capabilities.version if outcome.observed else None
        return QemuStatus(version=version, sandbox=sandbox)
    return QemuStatus(
        version=run.qemu_version or None,
        pid=run.identity.pid,
        started_at=rfc3339(run.started_at) if run.started_at else None,
        sandbox=sandbox,
    )


def _created_at(record: Record) -> dict[str, str]:
    images = {
        (made.pool, made.image): rfc3339(made.created_at) for made in record.created_images if made.created_at > 0
    }
    disks = record.machine.disks if record.machine else ()
    keys = {disk.name: (disk.source.pool, disk.source.image) for disk in disks if disk.source is not None}
    return {name: images[key] for name, key in keys.items() if key in images}


def _numbered(guest: Guest, outcome: Outcome) -> Numbered | None:
    """Guest addresses: as seen now, else as published before (a bridge not numbered yet is unknown, never a change)."""
    monitor = outcome.observed.monitor if outcome.observed else None
    if monitor is not None and monitor.numbered is not None:
        return monitor.numbered
    pci, record = guest.published.pci, outcome.record
    if pci is None or record is None or record.machine is None or not same_run(guest, record):
        return None
    recorded = {device.id: device.address for device in record.machine.pci.devices}
    known = {
        each.id: Seen(guest_address=each.guest_address, vendor=each.vendor, device=each.device)
        for each in pci.devices
        if each.guest_address
        and each.vendor
        and each.device
        and each.id in recorded
        and str(recorded[each.id]) == f"{each.bus}:{each.address}"
    }
    return Numbered(seen=known, missing=(), strangers=()) if known else None


def same_run(guest: Guest, record: Record) -> bool:
    """Whether what was published speaks of the QEMU that the record speaks of."""
    run, qemu = record.run, guest.published.qemu
    if run is None or run.identity is None or qemu is None:
        return False
    return qemu.pid == run.identity.pid and qemu.started_at == rfc3339(run.started_at)


def _exit_status(last: LastExit) -> LastExitStatus:
    code = last.code if last.code is not None else (-last.signal if last.signal is not None else None)
    return LastExitStatus(reason=last.reason.value, code=code, at=rfc3339(last.at), log_tail=last.log_tail)


def _conditions(guest: Guest, outcome: Outcome, now: float) -> tuple[Condition, ...]:
    verdict = outcome.verdict
    ready = verdict.phase is Phase.RUNNING and not verdict.stalled
    said = [
        _condition(ConditionType.READY, ready, verdict.reason, verdict.message),
        _reconciling(verdict),
        _stalled(verdict),
        _paused(guest, outcome),
        _restart_required(guest, outcome),
    ]
    if outcome.observed is not None:
        said.append(_emulation(guest, outcome, outcome.observed.accelerator))
    else:
        said += [each for each in guest.published.conditions if each.type == ConditionType.SOFTWARE_EMULATION]
    stamp = rfc3339(now)
    return tuple(
        each.model_copy(update={"observed_generation": guest.generation, "last_transition_time": stamp})
        for each in said
    )


def _reconciling(verdict: Verdict) -> Condition:
    """The guest itself is being worked on, or a change of its running machine is."""
    kind, changes = ConditionType.RECONCILING, verdict.changes.working
    if not verdict.stalled and verdict.phase not in _DONE:
        return _condition(kind, True, verdict.reason, verdict.message)
    if changes and not verdict.stalled:
        return _condition(kind, True, changes[0].reason, _told(changes))
    return _condition(kind, False, verdict.reason, "")


def _stalled(verdict: Verdict) -> Condition:
    kind, changes = ConditionType.STALLED, verdict.changes.stuck
    if verdict.stalled:
        return _condition(kind, True, verdict.reason, verdict.message)
    if changes:
        return _condition(kind, True, changes[0].reason, _told(changes))
    return _condition(kind, False, verdict.reason, "")


def _told(statements: tuple[Statement, ...]) -> str:
    """Each field once, in its own words."""
    said = (each.message if each.field in each.message else f"{each.field}: {each.message}" for each in statements)
    return "; ".join(said)


def _condition(kind: ConditionType, status: bool, reason: Reason, message: str) -> Condition:
    return Condition(
        type=kind.value,
        status="True" if status else "False",
        reason=reason.value,
        message=message,
        last_transition_time="1970-01-01T00:00:00Z",
        observed_generation=0,
    )


def _paused(guest: Guest, outcome: Outcome) -> Condition:
    monitor = outcome.observed.monitor if outcome.observed else None
    verdict = outcome.verdict
    if monitor is not None and monitor.run_state in _STANDING and verdict.phase is Phase.PAUSED:
        return _condition(ConditionType.PAUSED, True, _STANDING[monitor.run_state], verdict.message)
    if verdict.phase is Phase.PAUSED:
        return _condition(ConditionType.PAUSED, True, verdict.reason, verdict.message)
    return _condition(ConditionType.PAUSED, False, Reason.NOT_PAUSED, "")


def _restart_required(guest: Guest, outcome: Outcome) -> Condition:
    record = outcome.record
    fields: tuple[str, ...] = ()
    if record is not None and record.run is not None:
        if not record.source:
            return _known_to_wait(guest)
        fields = _waiting(guest, outcome, record)
    if not fields:
        return _condition(ConditionType.RESTART_REQUIRED, False, Reason.UP_TO_DATE, "")
    message = f"these fields take effect at the next start: {', '.join(fields)}; change spec.restart.token to restart"
    why = "; ".join(each.message for each in outcome.verdict.changes.waiting)
    message += f" ({why})" if why else ""
    refusal = _next_refusal(guest, outcome)
    if refusal is not None:
        message += f"; as they stand, the next start would be refused: {refusal}"
    return _condition(ConditionType.RESTART_REQUIRED, True, Reason.FIELDS_WAITING, message)


def _waiting(guest: Guest, outcome: Outcome, record: Record) -> tuple[str, ...]:
    """Fields that differ and are not changed in the running machine, nor are about to be."""
    live = [each.field for each in live_changes(guest.spec, record.source)]
    cold = {each.field for each in outcome.verdict.changes.waiting}
    handled = [each for each in live if each not in cold]
    return tuple(
        each
        for each in waiting_fields(guest.spec, record.source)
        if not any(each == field or each.startswith(f"{field}.") for field in handled)
    )


def _known_to_wait(guest: Guest) -> Condition:
    """What was said before the record was lost: which fields wait can no longer be compared."""
    for each in guest.published.conditions:
        if each.type == ConditionType.RESTART_REQUIRED and each.status == "True":
            return each
    return _condition(ConditionType.RESTART_REQUIRED, False, Reason.UP_TO_DATE, "")


def _next_refusal(guest: Guest, outcome: Outcome) -> str | None:
    """Why the next start would be refused; asked once a generation, while storage and network were looked at."""
    observed, record = outcome.observed, outcome.record
    if observed is None or record is None or observed.storage is None:
        return None  # this generation was accepted
    try:
        resolve_machine(guest=guest, observed=observed, previous=record.machine, uuid=record.uuid)
    except Refused as refusal:
        return str(refusal)
    return None


def _emulation(guest: Guest, outcome: Outcome, probe: AcceleratorProbe) -> Condition:
    machine = outcome.record.machine if outcome.record else None
    used = machine.accelerator if machine else probe.accelerator
    kind = ConditionType.SOFTWARE_EMULATION
    if used is Accelerator.KVM:
        return _condition(kind, False, Reason.HARDWARE_ACCELERATED, probe.detail)
    if guest.spec.accelerator is AcceleratorChoice.TCG:
        return _condition(kind, True, Reason.TCG_REQUESTED, "spec.accelerator is TCG")
    reason = Reason.KVM_MISSING if probe.kvm_seconds is None else Reason.TCG_FASTER
    return _condition(kind, True, reason, probe.detail)

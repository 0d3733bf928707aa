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
from guestlet.guest.describe import publish_machine
from guestlet.guest.desired import Guest
from guestlet.guest.observed import ObservedGuest
from guestlet.guest.record import LastExit, Record
from guestlet.guest.resolve import resolve_machine
from guestlet.guest.source import waiting_fields
from guestlet.guest.times import rfc3339
from guestlet.guest.verdict import Verdict
from guestlet.host.accelerator import AcceleratorProbe
from guestlet.pci.observed import Numbered, Seen
from guestlet.qemu.machine import Accelerator
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
    if record.machine is None:
        return VirtualGuestStatus().model_copy(update=common)
    published = publish_machine(record.machine, numbered=_numbered(guest, outcome), created_at=_created_at(record))
    qemu = _qemu(outcome, record, sandbox=record.machine.sandbox)
    return published.model_copy(update={**common, "qemu": qemu})


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
    keys = {disk.name: (disk.source.pool, disk.source.image) for disk in disks}
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
    working = not verdict.stalled and verdict.phase not in _DONE
    said = [
        _condition(ConditionType.READY, ready, verdict.reason, verdict.message),
        _condition(ConditionType.RECONCILING, working, verdict.reason, verdict.message if working else ""),
        _condition(ConditionType.STALLED, verdict.stalled, verdict.reason, verdict.message if verdict.stalled else ""),
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
        fields = waiting_fields(guest.spec, record.source)
    if not fields:
        return _condition(ConditionType.RESTART_REQUIRED, False, Reason.UP_TO_DATE, "")
    message = f"these fields take effect at the next start: {', '.join(fields)}; change spec.restart.token to restart"
    refusal = _next_refusal(guest, outcome)
    if refusal is not None:
        message += f"; as they stand, the next start would be refused: {refusal}"
    return _condition(ConditionType.RESTART_REQUIRED, True, Reason.FIELDS_WAITING, message)


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

"""What to do about a guest that does not run: leave it, wait, or the one sequence that starts it. Pure."""

from dataclasses import replace

from guestlet.api.guest_spec import RunStrategy
from guestlet.api.guest_status import Phase
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.actions import (
    Action,
    AddFinalizer,
    CreateImage,
    Launch,
    SaveRecord,
    WriteDescription,
)
from guestlet.guest.desired import Guest
from guestlet.guest.images import announced, check_image, growth_of, images_had, launched_images
from guestlet.guest.life import start_wish
from guestlet.guest.observed import ObservedGuest, StorageFacts
from guestlet.guest.record import ExitReason, LastExit, Record, new_run
from guestlet.guest.resolve import resolve_machine
from guestlet.guest.source import source_text
from guestlet.guest.taps import raise_taps, take_down
from guestlet.guest.verdict import Plan, Verdict, plan_of, verdict
from guestlet.host.facts import ImageFacts
from guestlet.qemu.machine import FileSource, Machine

# Ends that we asked for: the start after one is no restart that status.restarts counts.
_ASKED = (ExitReason.STOPPED, ExitReason.RESTARTED)


def plan_start(*, guest: Guest, observed: ObservedGuest, record: Record, now: float) -> Plan:
    """What to do about a guest without a QEMU."""
    wish = start_wish(guest, record)
    if not wish.wanted:
        return _stay_off(guest, observed, record)
    if now < wish.not_before:
        return plan_of(_back_off(record), wait_s=wish.not_before - now)
    try:
        machine = resolve_machine(guest=guest, observed=observed, previous=record.machine, uuid=record.uuid)
        _check_images(machine, guest, observed, record)
    except Refused as refusal:
        return plan_of(_refused(refusal), wait_s=30.0)
    return _start(guest, observed, record, machine, now)


def _stay_off(guest: Guest, observed: ObservedGuest, record: Record) -> Plan:
    if record.run is not None:
        forsaken = SaveRecord(record=replace(record, run=None), why="the start that was announced is not wanted")
        return plan_of(_rest(guest, record), *take_down(record), forsaken)
    beside = next_description(guest, observed, record)
    # What is left on the node must be forgotten with the object.
    finalizer = (AddFinalizer(),) if beside and not guest.has_finalizer else ()
    return plan_of(_rest(guest, record), housekeeping=(*finalizer, *beside))


def _rest(guest: Guest, record: Record) -> Verdict:
    strategy = guest.spec.run_strategy
    if strategy is RunStrategy.HALTED:
        return verdict(Phase.STOPPED, Reason.HALTED, "runStrategy is Halted")
    if strategy is RunStrategy.MANUAL and record.last_exit is None:
        return verdict(
            Phase.STOPPED, Reason.HALTED, "runStrategy is Manual; change spec.restart.token to start the guest"
        )
    last = record.last_exit
    again = "change spec.restart.token to start it again"
    if last is not None and last.reason is ExitReason.POWERED_OFF:
        return verdict(Phase.STOPPED, Reason.POWERED_OFF, f"the guest powered itself off; {again}")
    how = f" ({described(last)})" if last else ""
    return verdict(Phase.STOPPED, Reason.COMPLETED, f"runStrategy is {strategy.value} and it has run{how}; {again}")


def described(last: LastExit) -> str:
    """How QEMU ended, in words."""
    if last.signal is not None:
        how = f"ended by signal {last.signal}"
    elif last.code is not None:
        how = f"exited with code {last.code}"
    else:
        how = "ended while nobody watched"
    lines = [line for line in last.log_tail.strip().splitlines() if line.strip()]
    return f"QEMU {how}" + (f": {lines[-1][:300]}" if lines else "")


def _back_off(record: Record) -> Verdict:
    last = record.last_exit
    how = described(last) if last else "QEMU ended"
    # After the third crash in a row it is no longer likely to mend itself: a person is told, the attempts go on.
    return verdict(
        Phase.FAILED,
        Reason.BACK_OFF,
        f"{how}; failure {record.failures} in a row, started again after a growing pause (status.lastExit has the log)",
        stalled=record.failures >= 3 or (last is not None and last.reason is ExitReason.SILENT),
    )


def _refused(refusal: Refused) -> Verdict:
    return verdict(Phase.PENDING, Reason(refusal.reason), refusal.message, stalled=True)


def _check_images(machine: Machine, guest: Guest, observed: ObservedGuest, record: Record) -> None:
    storage, had = _storage(observed), images_had(guest, record)
    for spec, disk in zip(guest.spec.disks, machine.disks, strict=True):
        check_image(f"spec.disks[{spec.name}]", spec, disk, storage, had=had)


def _storage(observed: ObservedGuest) -> StorageFacts:
    if observed.storage is None:
        raise ValueError("a start is planned only after storage was looked at")
    return observed.storage


def _start(guest: Guest, observed: ObservedGuest, record: Record, machine: Machine, now: float) -> Plan:
    """Finalizer, images, record, taps, scripts, launch: in the order in which each can be repaired."""
    storage = _storage(observed)
    missing = tuple(d for d in machine.disks if d.source and storage.images.get(_key(d.source)) is None)
    noted = announced(record, missing)
    launching = _launching(guest, observed, noted, machine, now)
    actions: list[Action] = [] if guest.has_finalizer else [AddFinalizer()]
    if missing:
        actions.append(SaveRecord(record=noted, why="images are about to be created"))
        actions += [CreateImage(disk=d.name, source=d.source, size_bytes=d.size_bytes) for d in missing if d.source]
    actions += _growth(guest, machine, storage)
    if record.run is not None:
        # A start that was announced and came to nothing: its taps may be open and its scripts may have run.
        actions += take_down(record)
    actions.append(SaveRecord(record=launching, why="about to start"))
    actions += raise_taps(machine)
    actions.append(Launch(record=launching, machine=machine))
    return plan_of(verdict(Phase.STARTING, Reason.STARTING, "QEMU is being started"), *actions)


def _key(source: FileSource) -> tuple[str, str]:
    return source.pool, source.image


def _growth(guest: Guest, machine: Machine, storage: StorageFacts) -> list[Action]:
    grown: list[Action] = []
    for spec, disk in zip(guest.spec.disks, machine.disks, strict=True):
        found = storage.images.get((disk.source.pool, disk.source.image)) if disk.source else None
        if isinstance(found, ImageFacts):
            grown += growth_of(spec, disk, found)
    return grown


def _launching(guest: Guest, observed: ObservedGuest, record: Record, machine: Machine, now: float) -> Record:
    again = record.run is None and record.last_exit is not None and record.last_exit.reason not in _ASKED
    return replace(
        record,
        source=source_text(guest.spec),
        machine=machine,
        run=new_run(now=now, qemu_version=observed.capabilities.version),
        pending=(),
        paused=False,
        stop=None,
        ended=False,
        restart_token=guest.spec.restart.token if guest.spec.restart else None,
        restarts=record.restarts + (1 if again else 0),
        created_images=launched_images(guest, record, now=now),
    )


def next_description(guest: Guest, observed: ObservedGuest, record: Record) -> tuple[Action, ...]:
    """The next start's description, once per accepted generation; a spec that cannot be had has none."""
    if record.generation == guest.generation or observed.storage is None or observed.network is None:
        return ()
    try:
        machine = resolve_machine(guest=guest, observed=observed, previous=record.machine, uuid=record.uuid)
    except Refused:
        return ()
    return (WriteDescription(record=replace(record, generation=guest.generation), machine=machine),)

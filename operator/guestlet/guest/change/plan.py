"""What to do next about the changes of a running machine: those that were begun, then those that are wanted. Pure.

One change at a time has actions; what the others wait for is told. None blocks another: what failed is left aside for
a while, and what the guest must answer is asked and waited for beside the rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.actions import SaveRecord
from guestlet.guest.change.begin import begin
from guestlet.guest.change.difference import Change, ChangeKind, live_changes
from guestlet.guest.change.edit import CPU_PLACE, MEMORY_PLACE, PartKind, begun, part_of, place_of
from guestlet.guest.change.follow import follow, lost_parts
from guestlet.guest.change.look import (
    RETRY_S,
    Answer,
    Cold,
    Look,
    Stuck,
    Work,
    Working,
    stuck,
    working,
)
from guestlet.guest.desired import Guest
from guestlet.guest.observed import ObservedGuest
from guestlet.guest.record import Pending, PendingKind, Record
from guestlet.guest.verdict import NO_CHANGES, ChangeReport

_MIGRATION_LOOK_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePlan:
    """``work`` to do now, if there is any; how the changes stand; when to look again."""

    work: Work | None
    report: ChangeReport
    wait_s: float | None


NOTHING = ChangePlan(work=None, report=NO_CHANGES, wait_s=None)


def wants_changes(guest: Guest, record: Record) -> bool:
    """Whether a change of the running machine was begun or is wanted: what must be asked of QEMU rests on it."""
    return bool(record.pending) or bool(live_changes(guest.spec, record.source))


def questions_of(guest: Guest, record: Record) -> frozenset[str]:
    """The questions of an inventory (by ``qemu.inventory_replies.INVENTORY_QUERIES``) that only some changes need."""
    kinds = {each.kind for each in _wanted(guest, record)}
    parts = {part_of(each.part)[0] for each in record.pending}
    needed: set[str] = set()
    if ChangeKind.SET_CPUS in kinds or PartKind.CPU in parts:
        needed |= {"cpus", "translation"}
    if ChangeKind.SET_MEMORY in kinds or parts & {PartKind.DIMM, PartKind.MEMORY}:
        needed.add("memory_devices")
    if ChangeKind.GROW_DISK in kinds:
        needed.add("graph")
    return frozenset(needed)


def plan_changes(*, guest: Guest, observed: ObservedGuest, record: Record, now: float) -> ChangePlan:
    """The next step of the running machine's changes."""
    look = _look(guest, observed, record, now)
    if look is None:
        return _blind(guest, observed, record)
    if look.inventory.migrating:
        return _held(look)
    answers: list[Answer] = []
    for answer in _answers(look):
        if isinstance(answer, Work):
            return ChangePlan(work=answer, report=_report(answers), wait_s=None)
        answers.append(answer)
    waits = [each.wait_s for each in answers if isinstance(each, Working | Stuck) and each.wait_s is not None]
    return ChangePlan(work=None, report=_report(answers), wait_s=min(waits, default=None))


def _blind(guest: Guest, observed: ObservedGuest, record: Record) -> ChangePlan:
    """Nothing is known of what QEMU has, so nothing is changed; if it refused to tell, a person should know."""
    error = observed.monitor.inventory_error if observed.monitor else None
    if error is None:
        return NOTHING
    said = [
        stuck(field, Reason.HOST_FAILURE, f"{field}: QEMU does not tell what it has ({error})", wait_s=RETRY_S)
        for field in _fields(guest, record)
    ]
    return ChangePlan(work=None, report=_report(said), wait_s=RETRY_S)


def _fields(guest: Guest, record: Record) -> tuple[str, ...]:
    """The fields whose changes were begun or are wanted."""
    begun_fields = (str(place_of(each.part)) for each in record.pending)
    return tuple(dict.fromkeys((*begun_fields, *(each.field for each in _wanted(guest, record)))))


def held_changes(guest: Guest, record: Record, why: str) -> ChangeReport:
    """The report while no change can be made at all; ``why`` in words."""
    return _report([working(each, Reason.PLUGGING, f"{each}: {why}") for each in _fields(guest, record)])


def _wanted(guest: Guest, record: Record) -> tuple[Change, ...]:
    return live_changes(guest.spec, record.source)


def _look(guest: Guest, observed: ObservedGuest, record: Record, now: float) -> Look | None:
    monitor, machine, run = observed.monitor, record.machine, record.run
    if monitor is None or machine is None or run is None or monitor.inventory is None:
        return None
    return Look(
        guest=guest,
        observed=observed,
        monitor=monitor,
        inventory=monitor.inventory,
        record=record,
        run=run,
        machine=machine,
        changes=_wanted(guest, record),
        now=now,
    )


def _held(look: Look) -> ChangePlan:
    said = [
        working(each, Reason.MIGRATING, f"{each} is changed when the guest's migration has ended")
        for each in _fields(look.guest, look.record)
    ]
    return ChangePlan(work=None, report=_report(said), wait_s=_MIGRATION_LOOK_S)


def _answers(look: Look) -> Iterator[Answer]:
    """An answer for each change, in order: what was begun, what was lost, what is wanted."""
    for pending in look.record.pending:
        yield _followed(pending, look)
    for part in lost_parts(look):
        yield _lost(part, look)
    for change in look.changes:
        if not _under_way(change, look):
            yield _begun(change, look)


def _followed(pending: Pending, look: Look) -> Answer:
    try:
        return follow(pending, look)
    except Refused as refusal:
        return _refused(str(place_of(pending.part)), refusal)


def _begun(change: Change, look: Look) -> Answer:
    failure = look.failure(change.field)
    if failure is not None:
        left_s = max(RETRY_S - (look.now - failure.at), 1.0)
        return stuck(change.field, reason_of(failure.reason), failure.message, wait_s=left_s)
    try:
        return begin(change, look)
    except Refused as refusal:
        return _refused(change.field, refusal)


def _refused(field: str, refusal: Refused) -> Stuck:
    return stuck(field, reason_of(refusal.reason), refusal.message, wait_s=RETRY_S)


def reason_of(word: str) -> Reason:
    """The reason as conditions say it; what QEMU or the node said in its own words is a failed plug."""
    try:
        found = Reason(word)
    except ValueError:
        return Reason.PLUG_FAILED
    return Reason.PLUG_FAILED if found is Reason.QMP_REFUSED else found


def _lost(part: str, look: Look) -> Work:
    pending = Pending(part=part, kind=PendingKind.PLUG, since=look.now, asked=0, asked_at=0.0)
    again = begun(look.record, look.machine, look.record.source, pending)
    saved = SaveRecord(record=again, why=f"the guest let go of {part}, which is still wanted")
    return Work(field=str(place_of(part)), actions=(saved,))


def _under_way(change: Change, look: Look) -> bool:
    """Whether the change, or one of the same part, was begun."""
    for each in look.record.pending:
        place = place_of(each.part)
        if place in (CPU_PLACE, MEMORY_PLACE):
            if place == change.place:
                return True
        elif (place.group, place.item) == (change.place.group, change.place.item):
            return True
    return False


def _report(answers: Sequence[Answer]) -> ChangeReport:
    return ChangeReport(
        working=tuple(each.statement for each in answers if isinstance(each, Working)),
        stuck=tuple(each.statement for each in answers if isinstance(each, Stuck)),
        waiting=tuple(each.statement for each in answers if isinstance(each, Cold)),
    )

"""The decision about one guest: desired, observed, record, now → actions. Pure; the clock is an argument.

The order of questions is the order of danger: may we act at all, has a life ended, must it end, does it run well,
may it start. Starting stands in ``plan_start``, what runs in ``plan_run``.
"""

from dataclasses import replace

from guestlet.api.guest_status import Phase
from guestlet.api.reasons import Reason
from guestlet.guest.actions import (
    Action,
    AddFinalizer,
    Forget,
    RemoveFinalizer,
    SaveRecord,
)
from guestlet.guest.desired import Guest
from guestlet.guest.images import doomed_images, ends_of_images
from guestlet.guest.life import after_exit, follow_strategy, has_ended
from guestlet.guest.observed import ObservedGuest
from guestlet.guest.plan_run import plan_run, plan_stop
from guestlet.guest.plan_start import plan_start
from guestlet.guest.record import Record, StopCause
from guestlet.guest.taps import take_down
from guestlet.guest.verdict import Plan, Verdict, plan_of, verdict


def plan_guest(*, guest: Guest, observed: ObservedGuest, record: Record, now: float) -> Plan:
    """What to do next about a guest that ``status.nodeName`` gives to this node.

    ``record`` is what the host remembers, a recovered or a new one; ``now`` in seconds since the epoch.
    """
    if record.given_away_epoch is not None and guest.epoch <= record.given_away_epoch:
        return _rolled_back(guest, record)
    if has_ended(record, observed.process):
        return _acknowledge_end(observed, record, now)
    if guest.deleting:
        return _plan_delete(guest, observed, record, now)
    followed = _follow(guest, record)
    if followed != record:
        record_saved = SaveRecord(record=followed, why="the object moved on")
        return plan_of(_looking(), record_saved)
    if observed.process.running is not None and not guest.has_finalizer:
        # Taken over from an object that is gone, or taken off by hand: without it a deletion would leave an orphan.
        return plan_of(_looking(), AddFinalizer())
    if observed.process.running is not None:
        return plan_run(guest=guest, observed=observed, record=record, now=now)
    return plan_start(guest=guest, observed=observed, record=record, now=now)


def _looking() -> Verdict:
    return verdict(Phase.PENDING, Reason.STARTING, "the node's agent is looking at the guest")


def _rolled_back(guest: Guest, record: Record) -> Plan:
    return plan_of(
        verdict(
            Phase.UNKNOWN,
            Reason.PLACEMENT_ROLLED_BACK,
            f"status.placementEpoch is {guest.epoch}, but this node gave the guest away at {record.given_away_epoch}: "
            "the object is older than the node's record (a restored etcd?); find where the guest runs and correct "
            "status.nodeName",
            stalled=True,
        )
    )


def _follow(guest: Guest, record: Record) -> Record:
    """The record with what the object tells about itself: identity (a new object of that name takes over), epoch,
    strategy.
    """
    record = follow_strategy(guest, record)
    if record.object_uid != guest.uid or guest.epoch > record.epoch:
        record = replace(record, object_uid=guest.uid, epoch=max(record.epoch, guest.epoch))
    return record


def _acknowledge_end(observed: ObservedGuest, record: Record, now: float) -> Plan:
    ended = after_exit(record, observed.process, exit_note=observed.exit_note, now=now)
    actions: tuple[Action, ...] = (*take_down(record), SaveRecord(record=ended, why="QEMU ended"))
    return plan_of(verdict(Phase.STOPPED, Reason.QEMU_EXITED, "QEMU ended"), *actions)


def _plan_delete(guest: Guest, observed: ObservedGuest, record: Record, now: float) -> Plan:
    gone = verdict(Phase.STOPPING, Reason.TERMINATING, "the guest is stopped and its finalizer comes off")
    if observed.process.running is not None:
        return plan_stop(guest=guest, observed=observed, record=record, cause=StopCause.DELETED, now=now)
    if not guest.has_finalizer:
        return plan_of(gone, Forget())
    # A run that was announced and never began may have left its taps.
    left = take_down(record) if record.run is not None else ()
    return plan_of(gone, *left, *ends_of_images(doomed_images(guest, record), observed), Forget(), RemoveFinalizer())

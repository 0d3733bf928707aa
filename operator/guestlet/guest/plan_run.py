"""What to do about a guest whose QEMU runs: adopt it, resume it, pause it, restart it, end it. Pure."""

from dataclasses import replace

from guestlet.api.guest_spec import RestartMode, RunStrategy
from guestlet.api.guest_status import Phase
from guestlet.api.reasons import Reason
from guestlet.guest.actions import (
    Action,
    Kill,
    Pause,
    PowerDown,
    Reset,
    Resume,
    SaveRecord,
    SetLink,
    TrimLogs,
)
from guestlet.guest.change.parts import throttle_told
from guestlet.guest.change.plan import held_changes, plan_changes, wants_changes
from guestlet.guest.desired import Guest
from guestlet.guest.images import ends_of_images, left_behind, without_images
from guestlet.guest.observed import MonitorFacts, ObservedGuest
from guestlet.guest.plan_start import next_description
from guestlet.guest.record import Record, Run, StopCause, StopIntent, new_run
from guestlet.guest.status import same_run
from guestlet.guest.verdict import NO_CHANGES, Plan, plan_of, verdict
from guestlet.qemu.machine import Machine
from guestlet.qemu.replies import RunState

# A guest takes some seconds to power down; one that was still booting needs the button once more.
PRESS_AGAIN_S = 5.0
# SeaBIOS numbers the PCI buses some tens of milliseconds after ``cont``, UEFI under TCG 5 to 14 s and more (measured).
NUMBERING_DEADLINE_S = 120.0


def plan_run(*, guest: Guest, observed: ObservedGuest, record: Record, now: float) -> Plan:
    """What to do about a running QEMU that is ours and not being deleted."""
    run = record.run
    if run is None or run.identity != observed.process.running:
        return _adopt(observed, record, now)
    if guest.spec.run_strategy is RunStrategy.HALTED:
        return plan_stop(guest=guest, observed=observed, record=record, cause=StopCause.HALTED, now=now)
    if record.stop is not None:
        return plan_stop(guest=guest, observed=observed, record=record, cause=record.stop.cause, now=now)
    request = guest.spec.restart
    asked = request is not None and request.token != record.restart_token
    if request is not None and asked and (observed.monitor is not None or request.mode is RestartMode.GRACEFUL):
        return _restart(guest, observed, record, now)
    if observed.monitor is None:
        return _silent(observed, record, run, now)
    return _by_run_state(guest, observed, observed.monitor, record, now)


def _adopt(observed: ObservedGuest, record: Record, now: float) -> Plan:
    """A QEMU whose start was never recorded, found by the lock on its pidfile: it is the one we wanted."""
    identity = observed.process.running
    run = record.run or new_run(now=now, qemu_version=observed.capabilities.version)
    resumed = run.resumed or record.run is None
    found = replace(record, run=replace(run, identity=identity, resumed=resumed))
    return plan_of(
        verdict(Phase.STARTING, Reason.STARTING, "a running QEMU of this guest was found and adopted"),
        SaveRecord(record=found, why="adopted a running QEMU"),
    )


def _silent(observed: ObservedGuest, record: Record, run: Run, now: float) -> Plan:
    waited_s, patience_s = now - run.started_at, observed.node.greeting_timeout_s
    error = observed.monitor_error or "its monitor does not answer"
    if run.resumed or run.argv:
        # It once answered (argv is recorded when the monitor has greeted): a busy or wedged QEMU may hold a guest that
        # works. Nobody ends it by guess.
        return plan_of(
            verdict(
                Phase.UNKNOWN,
                Reason.QEMU_UNKNOWN,
                f"QEMU runs but does not answer ({error}); it is asked again. To end it: restart.token or "
                "runStrategy: Halted",
                stalled=True,
            ),
            wait_s=5.0,
        )
    if waited_s < patience_s or run.identity is None:
        return plan_of(
            verdict(Phase.STARTING, Reason.STARTING, f"waiting for QEMU's monitor: {error}"),
            wait_s=max(0.2, min(1.0, patience_s - waited_s)),
        )
    stop = StopIntent(cause=StopCause.SILENT, since=now, grace_s=0.0, pressed_at=now, token=None)
    return plan_of(
        verdict(Phase.FAILED, Reason.QEMU_SILENT, f"QEMU opened no monitor in {patience_s:.0f} s", stalled=True),
        SaveRecord(record=replace(record, stop=stop), why="QEMU is silent"),
        Kill(identity=run.identity, why="it never opened its monitor"),
        wait_s=1.0,
    )


def plan_stop(*, guest: Guest, observed: ObservedGuest, record: Record, cause: StopCause, now: float) -> Plan:
    """Ends a running QEMU: the power button first, SIGKILL when the grace period is over.

    A guest that never ran an instruction has nothing to lose and is killed at once.
    """
    identity = observed.process.running
    if identity is None:
        raise ValueError("only a running QEMU can be stopped")
    reason = Reason.TERMINATING if cause is StopCause.DELETED else Reason.STOPPING
    if record.run is None or record.run.identity != identity:
        return _adopt(observed, record, now)
    if record.stop is None or record.stop.cause is not cause:
        stop = StopIntent(
            cause=cause,
            since=record.stop.since if record.stop else now,
            grace_s=float(guest.spec.termination_grace_period_seconds),
            pressed_at=now,
            token=guest.spec.restart.token if guest.spec.restart else None,
        )
        saved = SaveRecord(record=replace(record, stop=stop), why=f"stopping: {cause.value}")
        return plan_of(verdict(Phase.STOPPING, reason, "the guest is asked to power down"), saved, *_button(observed))
    end = record.stop.since + record.stop.grace_s
    frozen = observed.monitor is not None and observed.monitor.run_state is RunState.PRELAUNCH
    if frozen or now >= end:
        why = "it never ran" if frozen else f"it did not power down in {record.stop.grace_s:.0f} s"
        return plan_of(
            verdict(Phase.STOPPING, reason, f"QEMU is killed: {why}"), Kill(identity=identity, why=why), wait_s=0.5
        )
    left_s = end - now
    return plan_of(
        verdict(
            Phase.STOPPING,
            reason,
            f"{_asked(observed)}; it is killed {record.stop.grace_s:.0f} s after the first time",
        ),
        *_press_again(observed, record, record.stop, now),
        wait_s=min(left_s, 2.0),
    )


def _asked(observed: ObservedGuest) -> str:
    if observed.monitor is not None:
        return "the guest was asked to power down"
    error = observed.monitor_error or "its monitor does not answer"
    return f"the guest cannot be asked to power down ({error})"


def _press_again(observed: ObservedGuest, record: Record, stop: StopIntent, now: float) -> tuple[Action, ...]:
    """A guest that was still booting missed the first press: press again now and then."""
    button = _button(observed)
    if not button or now - stop.pressed_at < PRESS_AGAIN_S:
        return ()
    pressed = replace(record, stop=replace(stop, pressed_at=now))
    return (SaveRecord(record=pressed, why="the power button is pressed again"), *button)


def _button(observed: ObservedGuest) -> tuple[Action, ...]:
    ready = observed.monitor is not None and observed.monitor.run_state is not RunState.PRELAUNCH
    return (PowerDown(),) if ready else ()


def _restart(guest: Guest, observed: ObservedGuest, record: Record, now: float) -> Plan:
    request = guest.spec.restart
    if request is None:
        raise ValueError("no restart was asked for")
    if request.mode is RestartMode.GRACEFUL:
        return plan_stop(guest=guest, observed=observed, record=record, cause=StopCause.RESTART, now=now)
    return plan_of(
        verdict(Phase.RUNNING, Reason.RESTARTING, "the reset button is pressed"),
        Reset(),
        SaveRecord(record=replace(record, restart_token=request.token), why="reset was pressed"),
    )


def _by_run_state(guest: Guest, observed: ObservedGuest, monitor: MonitorFacts, record: Record, now: float) -> Plan:
    plan = _by_state(guest, observed, monitor, record, now)
    if plan.verdict.changes is NO_CHANGES and not plan.actions and wants_changes(guest, record):
        held = held_changes(guest, record, "it is changed when the guest runs, or is paused by spec.paused")
        return replace(plan, verdict=replace(plan.verdict, changes=held))
    return plan


def _by_state(guest: Guest, observed: ObservedGuest, monitor: MonitorFacts, record: Record, now: float) -> Plan:
    match monitor.run_state:
        case RunState.PRELAUNCH:
            return _frozen(guest, observed, monitor, record, now)
        case RunState.RUNNING:
            return _running(guest, observed, monitor, record, now)
        case RunState.PAUSED:
            return _paused(guest, observed, record, now)
        case RunState.IO_ERROR:
            return _stands(
                Reason.IO_ERROR,
                "a disk reported an error or is full; mend it, then set spec.paused true and false again to resume",
                guest,
                record,
            )
        case RunState.GUEST_PANICKED:
            return _stands(
                Reason.GUEST_PANICKED,
                "the guest's kernel panicked; change spec.restart.token to restart it",
                guest,
                record,
            )
        case RunState.WATCHDOG:
            return _stands(
                Reason.WATCHDOG, "the guest's watchdog fired; change spec.restart.token to restart it", guest, record
            )
        case _:
            return plan_of(
                verdict(Phase.UNKNOWN, Reason.QEMU_UNKNOWN, f"QEMU says {monitor.run_state.value}; it is asked again"),
                wait_s=1.0,
            )


def _frozen(guest: Guest, observed: ObservedGuest, monitor: MonitorFacts, record: Record, now: float) -> Plan:
    if monitor.mismatches:
        return plan_of(
            verdict(
                Phase.FAILED,
                Reason.PCI_MISMATCH,
                "QEMU's devices are not where they were recorded, so it is not resumed: "
                + "; ".join(monitor.mismatches),
                stalled=True,
            ),
        )
    machine = record.machine
    values = _first_values(machine) if machine else ()
    if guest.spec.paused:
        what = verdict(Phase.PAUSED, Reason.USER, "spec.paused is true; the guest has not run yet")
        if record.paused:
            resting = plan_of(what, housekeeping=next_description(guest, observed, record))
            return _with_changes(resting, guest=guest, observed=observed, record=record, now=now)
        return plan_of(what, *values, SaveRecord(record=replace(record, paused=True), why="starts paused"))
    return plan_of(
        verdict(Phase.STARTING, Reason.STARTING, "QEMU is resumed"), *values, *_before_resume(record), Resume()
    )


def _first_values(machine: Machine) -> tuple[Action, ...]:
    """What no command line can say: links that are down, and limits of disks."""
    links = tuple(SetLink(nic=nic.name, up=False) for nic in machine.networks if not nic.link_up)
    limits = tuple(throttle_told(disk) for disk in machine.disks if disk.throttle and disk.source)
    return (*links, *limits)


def _with_changes(plan: Plan, *, guest: Guest, observed: ObservedGuest, record: Record, now: float) -> Plan:
    """The plan, or the next step of a change of the running machine that comes before it."""
    changes = plan_changes(guest=guest, observed=observed, record=record, now=now)
    said = replace(plan.verdict, changes=changes.report)
    if changes.work is not None:
        return plan_of(said, *changes.work.actions, change=changes.work.field)
    waits = [each for each in (plan.wait_s, changes.wait_s) if each is not None]
    return replace(plan, verdict=said, wait_s=min(waits, default=None))


def _before_resume(record: Record) -> tuple[Action, ...]:
    """What must be remembered before the first instruction: little, because it stands in every guest's start.

    A QEMU that was adopted (no argv recorded) is noted as one that answered, else its silence could look like a start
    that never came.
    """
    run = record.run
    noted = replace(record, paused=False)
    if run is not None and not run.argv:
        noted = replace(noted, run=replace(run, resumed=True))
    return (SaveRecord(record=noted, why="about to be resumed"),) if noted != record else ()


def _running(guest: Guest, observed: ObservedGuest, monitor: MonitorFacts, record: Record, now: float) -> Plan:
    if guest.spec.paused:
        return plan_of(
            verdict(Phase.PAUSED, Reason.USER, "spec.paused is true"),
            SaveRecord(record=replace(record, paused=True), why="paused by the user"),
            Pause(),
        )
    fewer = _without_gone(record, monitor)
    if fewer != record:
        gone = SaveRecord(record=fewer, why="devices that nobody knew are there no more")
        return plan_of(verdict(Phase.RUNNING, Reason.RUNNING, "the guest runs"), gone)
    run = record.run
    uptime_s = now - run.started_at if run else 0.0
    message, wait_s = "the guest runs", None
    if monitor.numbered is None and not _published_addresses(guest, record):
        if uptime_s < NUMBERING_DEADLINE_S:
            message, wait_s = (
                "the guest runs; its firmware has not numbered the PCI buses yet",
                _numbering_wait(uptime_s),
            )
        else:
            message = (
                f"the guest runs; {Reason.LAYOUT_UNKNOWN.value}: its firmware had not numbered the PCI buses after "
                f"{NUMBERING_DEADLINE_S:.0f} s, so status.pci has no guestAddress"
            )
            wait_s = 60.0
    resting = plan_of(
        verdict(Phase.RUNNING, Reason.RUNNING, message),
        wait_s=wait_s,
        housekeeping=(*_housekeeping(guest, observed, record), TrimLogs()),
    )
    return _with_changes(resting, guest=guest, observed=observed, record=record, now=now)


def _housekeeping(guest: Guest, observed: ObservedGuest, record: Record) -> tuple[Action, ...]:
    """What is noted of a guest that runs; images of disks that are gone end only now that it runs without them."""
    noted = _noted(record)
    left = left_behind(guest, record) if observed.storage is not None else frozenset()
    kept = without_images(noted, left)
    ends = ends_of_images(left, observed)
    notes = (SaveRecord(record=kept, why="it runs"),) if kept != record else ()
    return (*ends, *(next_description(guest, observed, kept) or notes))


def _without_gone(record: Record, monitor: MonitorFacts) -> Record:
    """Places of devices that nobody here knew stay reserved only while those are there."""
    machine = record.machine
    if machine is None or not monitor.gone:
        return record
    there = tuple(each for each in machine.pci.anonymous if each.address not in monitor.gone)
    return replace(record, machine=replace(machine, pci=replace(machine.pci, anonymous=there)))


def _published_addresses(guest: Guest, record: Record) -> bool:
    pci = guest.published.pci
    return pci is not None and same_run(guest, record) and all(device.guest_address for device in pci.devices)


def _numbering_wait(uptime_s: float) -> float:
    return 0.25 if uptime_s < 2.0 else 1.0 if uptime_s < 10.0 else 5.0


def _noted(record: Record) -> Record:
    """The record of a guest that was seen running."""
    run = record.run
    if run is None or (run.resumed and not record.paused):
        return record
    return replace(record, run=replace(run, resumed=True), paused=False)


def _paused(guest: Guest, observed: ObservedGuest, record: Record, now: float) -> Plan:
    if guest.spec.paused:
        what = verdict(Phase.PAUSED, Reason.USER, "spec.paused is true")
        if record.paused:
            resting = plan_of(what, housekeeping=next_description(guest, observed, record))
            return _with_changes(resting, guest=guest, observed=observed, record=record, now=now)
        return plan_of(what, SaveRecord(record=replace(record, paused=True), why="paused by the user"))
    if record.paused:
        return plan_of(verdict(Phase.PAUSED, Reason.USER, "spec.paused is false; the guest is resumed"), Resume())
    return plan_of(
        verdict(
            Phase.PAUSED,
            Reason.QEMU_UNKNOWN,
            "the guest was paused by somebody else through a monitor; to resume it set spec.paused true, then false",
            stalled=True,
        ),
    )


def _stands(reason: Reason, message: str, guest: Guest, record: Record) -> Plan:
    """A guest that QEMU stopped. A user's pause is remembered; taking it back is the word to try again."""
    what = verdict(Phase.PAUSED, reason, message, stalled=True)
    if guest.spec.paused and not record.paused:
        return plan_of(what, SaveRecord(record=replace(record, paused=True), why="paused by the user"))
    if not guest.spec.paused and record.paused:
        # In this order: a resume that was not noted is tried again, a note without the resume would be the end of it.
        return plan_of(
            what, Resume(), SaveRecord(record=replace(record, paused=False), why="the user lets it run again")
        )
    return plan_of(what)

"""The life of a guest between its starts: what an end of QEMU means, when the next start may come. Pure."""

from dataclasses import dataclass, replace

from guestlet.api.guest_spec import RunStrategy
from guestlet.guest.desired import Guest
from guestlet.guest.record import ExitReason, LastExit, Record, StopCause
from guestlet.host.facts import ExitFacts, ProcessFacts

FIRST_BACK_OFF_S = 10.0
LONGEST_BACK_OFF_S = 300.0
HEALTHY_AFTER_S = 600.0
# A guest that powers itself off this soon and is to run Always would otherwise be started in a tight circle.
SHORT_LIFE_S = 10.0
_TAIL_CHARS = 2000

_BY_CAUSE = {
    StopCause.HALTED: ExitReason.STOPPED,
    StopCause.DELETED: ExitReason.STOPPED,
    StopCause.RESTART: ExitReason.RESTARTED,
    StopCause.SILENT: ExitReason.SILENT,
}
_FAILURES = (ExitReason.CRASHED, ExitReason.SILENT, ExitReason.LOST)


def has_ended(record: Record, process: ProcessFacts) -> bool:
    """Whether a recorded life of QEMU is over and not yet acknowledged.

    A life without identity was only announced: it ended if the launcher saw an exit since that is not the one before,
    else it never began.
    """
    run = record.run
    if run is None or process.running is not None:
        return False
    if run.identity is not None:
        return True
    exit_ = process.last_exit
    before = record.last_exit.identity if record.last_exit else None
    return exit_ is not None and exit_.at >= run.started_at and exit_.identity != before


def after_exit(record: Record, process: ProcessFacts, *, exit_note: str | None, now: float) -> Record:
    """The record once the end of its run is acknowledged."""
    run = record.run
    if run is None:
        raise ValueError("only a recorded run can end")
    facts = process.last_exit
    if facts is not None and run.identity is not None and facts.identity != run.identity:
        facts = None
    last = _last_exit(record, facts, exit_note=exit_note, now=now)
    lived_s = last.at - run.started_at
    failed = last.reason in _FAILURES or (last.reason is ExitReason.POWERED_OFF and lived_s < SHORT_LIFE_S)
    counted = 1 if lived_s >= HEALTHY_AFTER_S else record.failures + 1
    token = record.restart_token
    if record.stop is not None and record.stop.cause is StopCause.RESTART:
        token = record.stop.token
    return replace(
        record,
        run=None,
        stop=None,
        paused=False,
        restart_token=token,
        last_exit=last,
        failures=counted if failed else 0,
        ended=_is_over(record, last.reason),
    )


def _last_exit(record: Record, facts: ExitFacts | None, *, exit_note: str | None, now: float) -> LastExit:
    code = facts.code if facts else None
    signal = facts.signal if facts else None
    if record.stop is not None:
        reason = _BY_CAUSE[record.stop.cause]
    elif _powered_off(facts, exit_note):
        reason = ExitReason.POWERED_OFF
    elif code is None and signal is None:
        reason = ExitReason.LOST
    else:
        reason = ExitReason.CRASHED
    run = record.run
    return LastExit(
        identity=facts.identity if facts else run.identity if run else None,
        reason=reason,
        code=code,
        signal=signal,
        at=facts.at if facts else now,
        log_tail=facts.log_tail[-_TAIL_CHARS:] if facts else "",
    )


def _powered_off(facts: ExitFacts | None, exit_note: str | None) -> bool:
    """Whether the guest ended itself: QEMU exits with 0 also when somebody on the node ends it by SIGTERM or ``quit``.

    Source: QEMU's ShutdownCause (qapi/run-state.json), and what qemu_kill_report() prints.
    """
    if exit_note is not None:
        return exit_note == "guest-shutdown"
    return facts is not None and facts.code == 0 and "terminating on signal" not in facts.log_tail


def _is_over(record: Record, reason: ExitReason) -> bool:
    if reason is ExitReason.RESTARTED:
        return False
    match RunStrategy(record.strategy):
        case RunStrategy.RERUN_ON_FAILURE:
            return reason is ExitReason.POWERED_OFF
        case RunStrategy.ONCE | RunStrategy.MANUAL:
            return reason is not ExitReason.STOPPED
        case RunStrategy.ALWAYS | RunStrategy.HALTED:
            return False


def back_off_s(failures: int) -> float:
    """Pause after that many failures in a row: 10 s, doubling to 5 min; none without a failure."""
    if failures == 0:
        return 0.0
    return float(min(FIRST_BACK_OFF_S * 2 ** (failures - 1), LONGEST_BACK_OFF_S))


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWish:
    """Whether the guest is to be started now: ``wanted``, and if so not before ``not_before`` (epoch seconds)."""

    wanted: bool
    not_before: float


def start_wish(guest: Guest, record: Record) -> StartWish:
    """What the run strategy says about a guest that does not run."""
    strategy = guest.spec.run_strategy
    token = guest.spec.restart.token if guest.spec.restart else None
    asked = token is not None and token != record.restart_token
    pause = back_off_s(record.failures)
    not_before = record.last_exit.at + pause if record.last_exit and pause else 0.0
    match strategy:
        case RunStrategy.HALTED:
            wanted = False
        case RunStrategy.ALWAYS:
            wanted = True
        case RunStrategy.RERUN_ON_FAILURE | RunStrategy.ONCE:
            wanted = asked or not record.ended
        case RunStrategy.MANUAL:
            wanted = asked or (record.last_exit is not None and record.last_exit.reason is ExitReason.RESTARTED)
    return StartWish(wanted=wanted, not_before=0.0 if asked else not_before)


def follow_strategy(guest: Guest, record: Record) -> Record:
    """The record after a look at the run strategy: turning Halted, or to another strategy, forgets that it ended."""
    strategy = guest.spec.run_strategy
    if strategy.value == record.strategy:
        return record
    halted = strategy is RunStrategy.HALTED
    return replace(record, strategy=strategy.value, ended=False, failures=0 if halted else record.failures)

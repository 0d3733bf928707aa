"""The life of a guest between its starts: what ends mean, and when the next start may come."""

from dataclasses import replace

import pytest

from guestlet.api.guest_spec import RunStrategy
from guestlet.guest.life import after_exit, back_off_s, follow_strategy, has_ended, start_wish
from guestlet.guest.record import ExitReason, LastExit, Record, StopCause, StopIntent
from guestlet.host.facts import ProcessFacts, ProcessIdentity
from unit.guest.guest_samples import NOW, QEMU, exit_facts, guest, record, run, running_record

ENDED = (ExitReason.POWERED_OFF, ExitReason.CRASHED, ExitReason.SILENT, ExitReason.LOST)
ASKED = (ExitReason.STOPPED, ExitReason.RESTARTED)


def last(reason: ExitReason, at: float = NOW) -> LastExit:
    return LastExit(identity=QEMU, reason=reason, code=None, signal=None, at=at, log_tail="")


def stop(cause: StopCause, token: str | None = None) -> StopIntent:
    return StopIntent(cause=cause, since=NOW - 5, grace_s=30, pressed_at=NOW - 5, token=token)


# (strategy, how the QEMU ended) → whether the guest is started again
STARTED_AGAIN = {
    **{(RunStrategy.ALWAYS, reason): True for reason in ExitReason},
    **{(RunStrategy.HALTED, reason): False for reason in ExitReason},
    **{(RunStrategy.RERUN_ON_FAILURE, reason): reason is not ExitReason.POWERED_OFF for reason in ExitReason},
    **{(RunStrategy.ONCE, reason): reason in ASKED for reason in ExitReason},
    **{(RunStrategy.MANUAL, reason): reason is ExitReason.RESTARTED for reason in ExitReason},
}
CAUSE_OF = {ExitReason.STOPPED: StopCause.HALTED, ExitReason.RESTARTED: StopCause.RESTART}


@pytest.mark.parametrize(("strategy", "reason"), STARTED_AGAIN)
def test_a_run_strategy_decides_who_is_started_again(strategy: RunStrategy, reason: ExitReason) -> None:
    spec = {"runStrategy": strategy.value}
    asked = stop(CAUSE_OF[reason]) if reason in CAUSE_OF else None
    silent = stop(StopCause.SILENT) if reason is ExitReason.SILENT else asked
    code = {ExitReason.POWERED_OFF: 0, ExitReason.CRASHED: 1}.get(reason)
    before = running_record(spec, stop=silent)
    seen = exit_facts(code=code) if reason is not ExitReason.LOST else None

    ended = after_exit(before, ProcessFacts(running=None, last_exit=seen), exit_note=None, now=NOW)

    assert ended.last_exit is not None
    assert ended.last_exit.reason is reason
    assert start_wish(guest(spec), ended).wanted is STARTED_AGAIN[strategy, reason]


@pytest.mark.parametrize(
    ("failures", "pause_s"), [(0, 0), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 300), (7, 300), (60, 300)]
)
def test_the_pause_doubles_from_ten_seconds_to_five_minutes(failures: int, pause_s: float) -> None:
    assert back_off_s(failures) == pause_s


@pytest.mark.parametrize(
    ("lived_s", "failures_before", "failures_after"),
    [(0, 0, 1), (30, 1, 2), (30, 6, 7), (599, 6, 7), (600, 6, 1), (86_400, 6, 1)],
)
def test_ten_minutes_of_health_end_a_row_of_failures(lived_s: float, failures_before: int, failures_after: int) -> None:
    before = running_record(run=run(started_at=NOW - lived_s), failures=failures_before)

    ended = after_exit(before, ProcessFacts(running=None, last_exit=exit_facts(signal=9)), exit_note=None, now=NOW)

    assert ended.failures == failures_after


@pytest.mark.parametrize(("lived_s", "failures"), [(1, 1), (9.9, 1), (10, 0), (3600, 0)])
def test_a_guest_that_powers_off_at_once_is_not_started_in_a_tight_circle(lived_s: float, failures: int) -> None:
    before = running_record(run=run(started_at=NOW - lived_s))

    ended = after_exit(before, ProcessFacts(running=None, last_exit=exit_facts(code=0)), exit_note=None, now=NOW)

    assert ended.failures == failures


@pytest.mark.parametrize("cause", [StopCause.HALTED, StopCause.DELETED, StopCause.RESTART])
def test_an_end_that_we_asked_for_is_no_failure_whatever_the_code(cause: StopCause) -> None:
    before = running_record(stop=stop(cause), failures=3)

    ended = after_exit(before, ProcessFacts(running=None, last_exit=exit_facts(signal=9)), exit_note=None, now=NOW)

    assert ended.failures == 0
    assert ended.stop is None


def test_a_restart_honours_the_token_it_was_asked_by() -> None:
    before = running_record(stop=stop(StopCause.RESTART, token="two"), restart_token="one")

    ended = after_exit(before, ProcessFacts(running=None, last_exit=exit_facts(code=0)), exit_note=None, now=NOW)

    assert ended.restart_token == "two"


def test_a_new_token_starts_at_once_whatever_the_pause() -> None:
    crashed = record(failures=6, last_exit=last(ExitReason.CRASHED), restart_token="one")

    patient = start_wish(guest({"restart": {"token": "one"}}), crashed)
    asked = start_wish(guest({"restart": {"token": "two"}}), crashed)

    assert patient.not_before == NOW + 300
    assert asked.not_before == 0


@pytest.mark.parametrize("strategy", [RunStrategy.ONCE, RunStrategy.MANUAL, RunStrategy.RERUN_ON_FAILURE])
def test_a_new_token_starts_a_guest_that_has_had_its_run(strategy: RunStrategy) -> None:
    spec = {"runStrategy": strategy.value, "restart": {"token": "again"}}
    had = record(spec, ended=True, last_exit=last(ExitReason.POWERED_OFF))

    assert start_wish(guest(spec), had).wanted


def test_a_manual_guest_waits_for_its_first_token() -> None:
    assert not start_wish(guest({"runStrategy": "Manual"}), record({"runStrategy": "Manual"})).wanted


def test_turning_a_guest_off_and_on_forgets_that_it_had_its_run() -> None:
    had = record({"runStrategy": "Once"}, ended=True, failures=4, last_exit=last(ExitReason.POWERED_OFF))

    halted = follow_strategy(guest({"runStrategy": "Halted"}), had)
    again = follow_strategy(guest({"runStrategy": "Once"}), halted)

    assert halted.failures == 0
    assert start_wish(guest({"runStrategy": "Once"}), again).wanted


def test_the_same_strategy_changes_nothing() -> None:
    had = record({"runStrategy": "Once"}, ended=True)

    assert follow_strategy(guest({"runStrategy": "Once"}), had) is had


OTHER = ProcessIdentity(pid=12, start_ticks=3)
ANNOUNCED = run(identity=None, argv=())


@pytest.mark.parametrize(
    ("remembered", "process", "ended"),
    [
        (record(), ProcessFacts(running=None, last_exit=None), False),
        (record(run=run()), ProcessFacts(running=QEMU, last_exit=None), False),
        (record(run=run()), ProcessFacts(running=None, last_exit=None), True),
        (record(run=ANNOUNCED), ProcessFacts(running=None, last_exit=None), False),
        (record(run=ANNOUNCED), ProcessFacts(running=None, last_exit=exit_facts(code=1, at=NOW)), True),
        (record(run=ANNOUNCED), ProcessFacts(running=None, last_exit=exit_facts(at=NOW - 200)), False),
        (
            record(run=ANNOUNCED, last_exit=last(ExitReason.CRASHED)),
            ProcessFacts(running=None, last_exit=exit_facts(at=NOW)),
            False,
        ),
    ],
)
def test_a_life_ended_only_if_it_began(remembered: Record, process: ProcessFacts, ended: bool) -> None:
    assert has_ended(remembered, process) is ended


def test_the_end_of_another_process_is_not_taken_for_ours() -> None:
    before = running_record(run=run(identity=OTHER))

    ended = after_exit(before, ProcessFacts(running=None, last_exit=exit_facts(code=0)), exit_note=None, now=NOW)

    assert ended.last_exit == replace(last(ExitReason.LOST), identity=OTHER)


def test_a_power_off_is_known_by_what_qemu_said_even_when_its_code_was_lost() -> None:
    ended = after_exit(
        running_record(), ProcessFacts(running=None, last_exit=None), exit_note="guest-shutdown", now=NOW
    )

    assert ended.last_exit is not None
    assert ended.last_exit.reason is ExitReason.POWERED_OFF


def test_the_log_is_kept_to_its_end() -> None:
    facts = exit_facts(code=1, tail="x" * 5000 + "the cause")

    ended = after_exit(running_record(), ProcessFacts(running=None, last_exit=facts), exit_note=None, now=NOW)

    assert ended.last_exit is not None
    assert len(ended.last_exit.log_tail) == 2000
    assert ended.last_exit.log_tail.endswith("the cause")


def test_only_a_recorded_run_can_end() -> None:
    with pytest.raises(ValueError, match="recorded run"):
        after_exit(record(), ProcessFacts(running=None, last_exit=None), exit_note=None, now=NOW)


@pytest.mark.parametrize(
    ("note", "tail", "reason"),
    [
        (None, "", ExitReason.POWERED_OFF),
        ("guest-shutdown", "", ExitReason.POWERED_OFF),
        ("host-signal", "", ExitReason.CRASHED),
        ("host-qmp-quit", "", ExitReason.CRASHED),
        (None, "qemu-system-x86_64: terminating on signal 15 from pid 1 (init)", ExitReason.CRASHED),
    ],
)
def test_a_qemu_ended_by_the_node_did_not_power_off(note: str | None, tail: str, reason: ExitReason) -> None:
    process = ProcessFacts(running=None, last_exit=exit_facts(code=0, tail=tail))

    ended = after_exit(running_record(), process, exit_note=note, now=NOW)

    assert ended.last_exit is not None
    assert ended.last_exit.reason is reason

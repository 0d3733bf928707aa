"""What is published: conditions as kstatus reads them, and nothing that was true and is not any more."""

import pytest

from guestlet.api.guest_status import Phase, VirtualGuestStatus
from guestlet.api.reasons import Reason
from guestlet.guest.record import ExitReason, LastExit
from guestlet.guest.status import Outcome, build_status
from guestlet.guest.verdict import Verdict, verdict
from guestlet.qemu.replies import RunState
from unit.guest.guest_samples import NOW, QEMU, UUID, disk, guest, machine, observed, record, run, running_record

RUNS = verdict(Phase.RUNNING, Reason.RUNNING, "the guest runs")
LOOK = observed(running=QEMU, run_state=RunState.RUNNING)


def conditions(what: Verdict) -> dict[str, str]:
    found = build_status(guest=guest(), outcome=Outcome(verdict=what, observed=LOOK, record=running_record()), now=NOW)
    return {each.type: each.status for each in found.conditions}


@pytest.mark.parametrize(
    ("what", "ready", "reconciling", "stalled"),
    [
        (RUNS, "True", "False", "False"),
        (verdict(Phase.RUNNING, Reason.RESTARTING, "reset"), "True", "False", "False"),
        (verdict(Phase.STARTING, Reason.STARTING, "…"), "False", "True", "False"),
        (verdict(Phase.STOPPING, Reason.STOPPING, "…"), "False", "True", "False"),
        (verdict(Phase.STOPPED, Reason.HALTED, "…"), "False", "False", "False"),
        (verdict(Phase.STOPPED, Reason.QEMU_EXITED, "…"), "False", "False", "False"),
        (verdict(Phase.PAUSED, Reason.USER, "…"), "False", "False", "False"),
        (verdict(Phase.FAILED, Reason.BACK_OFF, "…"), "False", "True", "False"),
        (verdict(Phase.PENDING, Reason.NO_SPACE, "…", stalled=True), "False", "False", "True"),
        (verdict(Phase.FAILED, Reason.PCI_MISMATCH, "…", stalled=True), "False", "False", "True"),
    ],
)
def test_a_verdict_is_ready_working_stalled_or_at_rest(
    what: Verdict, ready: str, reconciling: str, stalled: str
) -> None:
    found = conditions(what)

    assert (found["Ready"], found["Reconciling"], found["Stalled"]) == (ready, reconciling, stalled)


def test_every_condition_speaks_of_the_generation_it_was_made_from() -> None:
    status = build_status(
        guest=guest(generation=7), outcome=Outcome(verdict=RUNS, observed=LOOK, record=running_record()), now=NOW
    )

    assert status.observed_generation == 7
    assert {each.observed_generation for each in status.conditions} == {7}


def test_the_placement_is_never_published() -> None:
    for known in (None, running_record()):
        status = build_status(guest=guest(), outcome=Outcome(verdict=RUNS, observed=None, record=known), now=NOW)
        assert (status.node_name, status.placement_epoch) == (None, None)


def test_what_was_published_stays_while_the_node_cannot_be_read() -> None:
    before = VirtualGuestStatus(uuid=UUID, machine_type="pc-q35-7.2", restarts=4)

    status = build_status(
        guest=guest(status=before), outcome=Outcome(verdict=RUNS, observed=None, record=None), now=NOW
    )

    assert (status.uuid, status.machine_type, status.restarts) == (UUID, "pc-q35-7.2", 4)


def test_a_process_that_is_gone_is_not_published_any_more() -> None:
    spec = {"disks": [disk(size="1Gi")]}
    runs = Outcome(verdict=RUNS, observed=LOOK, record=running_record(spec))
    ended = Outcome(verdict=RUNS, observed=observed(), record=record(spec, machine=machine(spec)))

    with_process = build_status(guest=guest(spec), outcome=runs, now=NOW).qemu
    without = build_status(guest=guest(spec), outcome=ended, now=NOW).qemu

    assert with_process is not None
    assert (with_process.pid, with_process.version) == (QEMU.pid, "7.2.22")
    assert without is not None
    assert (without.pid, without.started_at) == (None, None)


@pytest.mark.parametrize(("code", "signal", "published"), [(3, None, 3), (None, 11, -11), (None, None, None)])
def test_the_last_exit_tells_code_or_signal(code: int | None, signal: int | None, published: int | None) -> None:
    last = LastExit(identity=QEMU, reason=ExitReason.CRASHED, code=code, signal=signal, at=NOW, log_tail="why")

    status = build_status(
        guest=guest(), outcome=Outcome(verdict=RUNS, observed=observed(), record=record(last_exit=last)), now=NOW
    )

    assert status.last_exit is not None
    assert (status.last_exit.code, status.last_exit.log_tail) == (published, "why")
    assert status.last_exit.at == "2023-11-14T22:13:20Z"


def test_a_run_that_was_only_announced_has_no_process() -> None:
    outcome = Outcome(
        verdict=RUNS, observed=observed(), record=running_record(run=run(identity=None, argv=(), resumed=False))
    )

    status = build_status(guest=guest(), outcome=outcome, now=NOW)

    assert status.qemu is not None
    assert status.qemu.pid is None

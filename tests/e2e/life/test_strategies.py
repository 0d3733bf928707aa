"""The run strategies: what each makes of a crash and of a guest that powers itself off."""

import os
import signal
from collections.abc import Mapping

from e2e.life.witness import TINY, kill_qemu, life_of, type_line
from e2e.stage import Guest, Stage, eventually

STRATEGIES = ("Always", "RerunOnFailure", "Once", "Manual")


def run_each(stage: Stage, spec: Mapping[str, object], *, boot: bool) -> dict[str, Guest]:
    """A running guest of each strategy, by its strategy."""
    guests = {
        each: stage.guest(each.lower(), {"nodeName": "node-a", **spec, "runStrategy": each}, boot=boot)
        for each in STRATEGIES
    }
    guests["Manual"].wait_for(".status.phase", "Stopped")
    assert guests["Manual"].condition("Ready")["reason"] == "Halted"
    assert guests["Manual"].pid() is None
    guests["Manual"].edit({"restart": {"token": "start"}})
    for guest in guests.values():
        guest.wait()
    return guests


def test_a_crash_is_followed_by_a_pause_and_a_start_where_the_strategy_has_one(stage: Stage) -> None:
    guests = run_each(stage, TINY, boot=False)
    before = {each: life_of(guest) for each, guest in guests.items()}
    for guest in guests.values():
        kill_qemu(guest)

    for each in ("Once", "Manual"):
        told = guests[each].wait_for_reason("Ready", "Completed")
        assert "ended by signal 9" in told["message"]
    for each in ("Always", "RerunOnFailure"):
        guest = guests[each]
        told = guest.wait_for_reason("Ready", "BackOff")
        assert "failure 1 in a row" in told["message"]
        assert (guest.field(".status.lastExit.reason"), guest.field(".status.lastExit.code")) == ("Crashed", "-9")
        assert guest.pid() is None
    for each in ("Always", "RerunOnFailure"):
        guests[each].wait(timeout_s=30)
        assert life_of(guests[each]) != before[each]
        assert guests[each].field(".status.restarts") == "1"

    # The pause grows, and a person need not wait for its end.
    kill_qemu(guests["Always"])
    told = guests["Always"].wait_for_reason("Ready", "BackOff")
    assert "failure 2 in a row" in told["message"]
    guests["Always"].edit({"restart": {"token": "at-once"}})
    guests["Always"].wait(timeout_s=8)
    for each in ("Once", "Manual"):
        assert guests[each].pid() is None
        guests[each].edit({"restart": {"token": "once-more"}})
        guests[each].wait()


def test_the_end_of_qemus_log_is_in_status(stage: Stage) -> None:
    guest = stage.guest(spec={**TINY, "runStrategy": "Once"}, boot=False)
    guest.wait()
    pid = guest.pid()
    assert pid is not None

    # QEMU says who ended it, and exits with 0: that is not the guest's own power-off.
    os.kill(pid, signal.SIGTERM)

    guest.wait_for(".status.lastExit.reason", "Crashed")
    assert "terminating on signal 15" in guest.field(".status.lastExit.logTail")


def test_a_guest_that_powers_itself_off_stays_off_unless_it_is_to_run_always(stage: Stage) -> None:
    guests = run_each(stage, {}, boot=True)
    lives = {each: life_of(guest) for each, guest in guests.items()}
    for guest in guests.values():
        type_line(guest, "poweroff")
    for guest in guests.values():
        guest.wait_for(".status.lastExit.reason", "PoweredOff")

    for each in ("RerunOnFailure", "Once", "Manual"):
        guests[each].wait_for_reason("Ready", "PoweredOff")
        assert guests[each].pid() is None
        assert guests[each].field(".status.phase") == "Stopped"
    guests["Always"].wait(timeout_s=40)
    assert life_of(guests["Always"]) != lives["Always"]


def test_a_guest_that_reboots_itself_keeps_its_qemu(stage: Stage) -> None:
    guest = stage.guest()
    guest.wait()
    life = life_of(guest)
    type_line(guest, "reboot")
    guest.wait_for_console("rebooting")
    eventually(lambda: guest.console().count("A live Linux") == 2, what="the second boot")

    guest.wait()
    assert life_of(guest) == life
    assert guest.field(".status.restarts") == "0"

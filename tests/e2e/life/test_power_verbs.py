"""What a user says to a guest's power: pause, resume, restart, reset, off; and what happens when it does not listen."""

import time

import pytest

from e2e.life.witness import TINY, assert_in_hand, life_of, qemus_of, run_state, type_line
from e2e.stage import Stage, eventually

LONG_S = 60


def test_pause_freezes_the_guest_and_resume_thaws_it(stage: Stage) -> None:
    guest = stage.guest(spec={**TINY, "paused": True}, boot=False)
    guest.wait("Paused")
    assert run_state(guest) == "prelaunch"
    assert guest.condition("Paused")["reason"] == "User"
    assert guest.condition("Ready")["status"] == "False"

    guest.edit({"paused": False})
    guest.wait()
    assert run_state(guest) == "running"
    assert_in_hand(guest)
    assert {reason for reason, _ in stage.events(guest)} >= {"Paused", "Running"}


def test_a_linux_guest_obeys_restart_reset_and_halt(stage: Stage) -> None:
    guest = stage.guest(spec={"terminationGracePeriodSeconds": LONG_S})
    guest.wait()
    guest.wait_for_console("guest# ")
    first = life_of(guest)

    guest.edit({"restart": {"token": "reset", "mode": "Reset"}})
    eventually(lambda: guest.console().count("A live Linux") == 2, what="the boot after the reset")
    guest.wait_for(".status.restartToken", "reset")
    assert life_of(guest) == first

    began = time.monotonic()
    guest.edit({"restart": {"token": "graceful", "mode": "Graceful"}})
    guest.wait_for(".status.restartToken", "graceful", timeout_s=LONG_S)
    guest.wait()
    second = life_of(guest)
    assert second != first
    assert guest.field(".status.lastExit.reason") == "Restarted"
    eventually(lambda: guest.console().count("A live Linux") == 3, what="the boot after the restart")

    guest.edit({"runStrategy": "Halted"})
    guest.wait_for(".status.phase", "Stopped", timeout_s=LONG_S)
    assert time.monotonic() - began < LONG_S, "it was not the power button that ended the guest"
    assert guest.console().count("powering off") == 2
    assert (guest.field(".status.lastExit.reason"), guest.field(".status.lastExit.code")) == ("Stopped", "0")
    assert qemus_of(guest.field(".status.uuid")) == ()
    assert guest.field(".status.restarts") == "0"

    guest.edit({"runStrategy": "Always"})
    guest.wait()


def test_a_guest_that_ignores_its_power_button_is_killed_after_its_grace_period(stage: Stage) -> None:
    guest = stage.guest(spec={**TINY, "terminationGracePeriodSeconds": 3}, boot=False)
    guest.wait()
    guest.edit({"runStrategy": "Halted"})
    began = time.monotonic()
    guest.wait_for_reason("Ready", "Stopping")
    guest.wait_for(".status.phase", "Stopped")

    assert time.monotonic() - began > 2
    assert (guest.field(".status.lastExit.reason"), guest.field(".status.lastExit.code")) == ("Stopped", "-9")


@pytest.mark.parametrize("seconds", [0, LONG_S])
def test_a_frozen_guest_that_never_ran_is_stopped_at_once(stage: Stage, seconds: int) -> None:
    guest = stage.guest(spec={**TINY, "paused": True, "terminationGracePeriodSeconds": seconds}, boot=False)
    guest.wait("Paused")
    guest.edit({"runStrategy": "Halted"})
    guest.wait_for(".status.phase", "Stopped", timeout_s=20)


def test_a_kernel_that_panics_says_so(stage: Stage) -> None:
    guest = stage.guest()
    type_line(guest, "crash")
    told = guest.wait_for_reason("Paused", "GuestPanicked")
    assert told["status"] == "True"

    assert run_state(guest) == "guest-panicked"
    assert guest.condition("Ready")["status"] == "False"
    guest.edit({"restart": {"token": "after-the-panic"}})
    guest.wait_for(".status.restartToken", "after-the-panic")
    guest.wait()

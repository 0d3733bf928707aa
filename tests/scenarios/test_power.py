"""Stories of run strategies, pause, restart and stop."""

import pytest

from guestlet.qemu.replies import RunState
from scenarios.stage import Stage, disk


async def test_a_guest_that_powers_itself_off_stays_off_or_comes_back_by_its_strategy(stage: Stage) -> None:
    for strategy in ("Always", "RerunOnFailure", "Once", "Manual"):
        name = strategy.lower()
        await stage.create(name, runStrategy=strategy, restart={"token": "first"})
        await stage.passes(60)
        assert stage.ready(name)
        await stage.guest_powers_off(name)
        await stage.passes(1)

    assert stage.runs("always")
    assert stage.status("always").restarts == 1
    for name in ("rerunonfailure", "once", "manual"):
        assert not stage.runs(name)
        assert stage.says("Ready", name) == ("False", "PoweredOff")
        assert stage.says("Stalled", name)[0] == "False"
        assert stage.phase(name) == "Stopped"
        assert "restart.token" in stage.condition("Ready", name).message
    assert stage.says("Ready", "always") == ("True", "Running")


async def test_a_guest_that_crashes_comes_back_or_not_by_its_strategy(stage: Stage) -> None:
    for strategy in ("Always", "RerunOnFailure", "Once", "Manual"):
        name = strategy.lower()
        await stage.create(name, runStrategy=strategy, restart={"token": "first"})
        await stage.qemu_crashes(name)
    await stage.passes(11)

    assert stage.runs("always")
    assert stage.runs("rerunonfailure")
    assert stage.says("Ready", "once") == ("False", "Completed")
    assert stage.says("Ready", "manual") == ("False", "Completed")
    assert "ended by signal 11" in stage.condition("Ready", "once").message


@pytest.mark.parametrize("strategy", ["RerunOnFailure", "Once", "Manual"])
async def test_a_new_token_starts_a_guest_that_has_had_its_run(stage: Stage, strategy: str) -> None:
    await stage.create(runStrategy=strategy, restart={"token": "one"})
    await stage.passes(60)
    await stage.guest_powers_off()

    await stage.edit(restart={"token": "two"})
    await stage.passes(1)

    assert stage.ready()
    assert stage.status().restart_token == "two"


async def test_a_manual_guest_waits_for_its_first_token(stage: Stage) -> None:
    await stage.create(runStrategy="Manual")
    assert not stage.runs()
    assert stage.says("Ready") == ("False", "Halted")
    assert "change spec.restart.token" in stage.condition("Ready").message

    await stage.edit(restart={"token": "now"})
    assert stage.ready()


async def test_a_halted_guest_is_described_and_not_started(stage: Stage) -> None:
    await stage.create(runStrategy="Halted", disks=[disk()])

    assert stage.launches == 0
    assert "create_image" not in stage.effects
    assert stage.says("Ready") == ("False", "Halted")
    assert (stage.uuid(), "next.sh") in stage.host.files
    before = stage.writes
    await stage.passes(900)
    assert stage.writes == before


async def test_halted_presses_the_power_button_and_always_starts_again(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    first = stage.qemu()

    await stage.edit(runStrategy="Halted")
    assert first.power_button_presses == 1
    assert not stage.runs()
    assert stage.says("Ready") == ("False", "Halted")
    assert stage.last_exit.reason == "Stopped"

    await stage.edit(runStrategy="Always")
    assert stage.ready()
    assert stage.status().restarts == 0


async def test_once_again_runs_after_it_was_halted(stage: Stage) -> None:
    await stage.create(runStrategy="Once")
    await stage.passes(60)
    await stage.guest_powers_off()
    await stage.edit(runStrategy="Halted")
    await stage.edit(runStrategy="Once")

    assert stage.ready()


async def test_a_deaf_guest_is_killed_when_its_grace_period_is_over(stage: Stage) -> None:
    await stage.create(terminationGracePeriodSeconds=60)
    guest = stage.qemu()
    guest.switches.obeys_power_button = False

    await stage.edit(runStrategy="Halted")
    assert stage.says("Ready") == ("False", "Stopping")
    assert stage.phase() == "Stopping"
    await stage.passes(59)
    assert stage.runs()
    assert guest.power_button_presses > 1

    await stage.passes(3)
    assert not stage.runs()
    assert stage.effects.count("kill") == 1
    assert stage.says("Ready") == ("False", "Halted")


async def test_stopping_is_written_once_not_every_second(stage: Stage) -> None:
    await stage.create(terminationGracePeriodSeconds=60)
    stage.qemu().switches.obeys_power_button = False
    await stage.edit(runStrategy="Halted")
    before = stage.writes

    await stage.passes(50)

    assert stage.writes == before


async def test_a_grace_period_of_nothing_kills_at_once(stage: Stage) -> None:
    await stage.create(terminationGracePeriodSeconds=0)
    stage.qemu().switches.obeys_power_button = False

    await stage.edit(runStrategy="Halted")
    await stage.passes(1)

    assert not stage.runs()


async def test_a_stop_that_was_taken_back_ends_in_a_fresh_start(stage: Stage) -> None:
    await stage.create()
    stage.qemu().switches.obeys_power_button = False
    await stage.edit(runStrategy="Halted")
    await stage.edit(runStrategy="Always")
    await stage.passes(40)

    assert stage.ready()
    assert stage.launches == 2


async def test_a_pause_freezes_and_its_end_resumes_the_same_qemu(stage: Stage) -> None:
    await stage.create()
    await stage.edit(paused=True)

    assert stage.qemu().run_state is RunState.PAUSED
    assert stage.says("Paused") == ("True", "User")
    assert stage.says("Ready") == ("False", "User")
    assert stage.phase() == "Paused"
    assert stage.says("Stalled")[0] == "False"

    await stage.edit(paused=False)
    assert stage.ready()
    assert stage.says("Paused") == ("False", "NotPaused")
    assert stage.launches == 1


async def test_a_guest_may_start_paused(stage: Stage) -> None:
    await stage.create(paused=True)
    assert stage.qemu().run_state is RunState.PRELAUNCH
    assert stage.says("Paused") == ("True", "User")
    before = stage.writes
    await stage.passes(600)
    assert stage.writes == before

    await stage.edit(paused=False)
    assert stage.ready()


async def test_a_guest_that_somebody_else_paused_is_left_so_and_said(stage: Stage) -> None:
    await stage.create()
    await stage.qemu_stops(RunState.PAUSED)

    assert stage.says("Stalled") == ("True", "QemuUnknown")
    assert "set spec.paused true, then false" in stage.condition("Stalled").message

    await stage.edit(paused=True)
    await stage.edit(paused=False)
    assert stage.ready()


async def test_a_graceful_restart_is_a_new_qemu_and_no_crash(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    first, before = stage.qemu(), stage.status().pci

    await stage.edit(restart={"token": "one"})
    await stage.passes(1)

    assert stage.ready()
    assert stage.qemu() is not first
    assert stage.status().pci == before
    assert stage.status().restarts == 0
    assert stage.last_exit.reason == "Restarted"
    assert stage.status().restart_token == "one"


async def test_a_deaf_guest_is_killed_for_a_restart(stage: Stage) -> None:
    await stage.create(terminationGracePeriodSeconds=10)
    stage.qemu().switches.obeys_power_button = False
    await stage.edit(restart={"token": "one"})
    await stage.passes(12)

    assert stage.ready()
    assert stage.launches == 2


async def test_a_reset_is_the_same_qemu(stage: Stage) -> None:
    await stage.create()
    first = stage.qemu()

    await stage.edit(restart={"token": "one", "mode": "Reset"})

    assert stage.qemu() is first
    assert first.resets == 1
    assert stage.ready()
    assert stage.status().restart_token == "one"
    stage.wake()
    await stage.passes(600)
    assert first.resets == 1


async def test_a_token_that_was_there_from_the_beginning_restarts_nothing(stage: Stage) -> None:
    await stage.create(restart={"token": "one"})
    await stage.passes(60)

    assert stage.launches == 1


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (RunState.GUEST_PANICKED, "GuestPanicked"),
        (RunState.WATCHDOG, "Watchdog"),
        (RunState.IO_ERROR, "IOError"),
    ],
)
async def test_a_guest_that_qemu_stopped_is_told_and_restarted_by_token(
    stage: Stage, state: RunState, reason: str
) -> None:
    await stage.create()
    await stage.qemu_stops(state)

    assert stage.says("Paused") == ("True", reason)
    assert stage.says("Ready") == ("False", reason)
    assert stage.says("Stalled") == ("True", reason)
    assert "Paused" in stage.reasons

    stage.qemu().switches.obeys_power_button = False
    await stage.edit(restart={"token": "one"})
    await stage.passes(40)
    assert stage.ready()


async def test_after_an_io_error_pausing_and_unpausing_lets_the_guest_go_on(stage: Stage) -> None:
    await stage.create()
    await stage.qemu_stops(RunState.IO_ERROR)

    await stage.edit(paused=True)
    await stage.edit(paused=False)

    assert stage.ready()
    assert stage.launches == 1


async def test_a_disk_that_fails_again_at_once_is_no_busy_loop(stage: Stage) -> None:
    await stage.create()
    await stage.qemu_stops(RunState.IO_ERROR)
    await stage.edit(paused=True)
    await stage.edit(paused=False)
    await stage.qemu_stops(RunState.IO_ERROR)
    before = stage.writes

    await stage.passes(600)

    assert stage.says("Paused") == ("True", "IOError")
    assert stage.writes == before


async def test_a_run_state_that_says_nothing_is_asked_again(stage: Stage) -> None:
    await stage.create()
    await stage.qemu_stops(RunState.SAVE_VM)
    assert stage.says("Ready") == ("False", "QemuUnknown")

    stage.qemu().run_state = RunState.RUNNING
    await stage.passes(2)
    assert stage.ready()

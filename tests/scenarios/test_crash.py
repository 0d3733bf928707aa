"""Stories of QEMUs that end, or never begin."""

from fakes.host import LaunchFate
from scenarios.stage import Stage, disk


async def test_a_crash_is_told_and_the_guest_comes_back_after_ten_seconds(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.passes(30)
    await stage.qemu_crashes()

    assert stage.says("Ready") == ("False", "BackOff")
    assert stage.says("Stalled")[0] == "False"
    exit_ = stage.status().last_exit
    assert exit_ is not None
    assert (exit_.reason, exit_.code, exit_.log_tail) == ("Crashed", -11, "aborted")
    assert "BackOff" in stage.reasons

    await stage.passes(9)
    assert not stage.runs()
    await stage.passes(2)
    assert stage.ready()
    assert stage.status().restarts == 1


async def test_the_pauses_of_a_crash_loop_grow_to_five_minutes_and_a_person_is_told(stage: Stage) -> None:
    await stage.create()
    for number, pause_s in enumerate((10, 20, 40, 80, 160, 300, 300)):
        await stage.qemu_crashes()
        assert stage.says("Stalled")[0] == ("True" if number >= 2 else "False")
        await stage.passes(pause_s - 1)
        assert not stage.runs(), pause_s
        await stage.passes(2)
        assert stage.runs(), pause_s

    assert stage.status().restarts == 7


async def test_nothing_is_written_while_a_crashed_guest_waits(stage: Stage) -> None:
    await stage.create()
    for _ in range(6):
        await stage.qemu_crashes()
        await stage.passes(301)
    await stage.qemu_crashes()
    before = stage.writes

    for _ in range(20):
        stage.wake()
        await stage.passes(10)

    assert stage.writes == before


async def test_ten_minutes_of_health_end_the_row(stage: Stage) -> None:
    await stage.create()
    for _ in range(4):
        await stage.qemu_crashes()
        await stage.passes(301)
    await stage.passes(600)

    await stage.qemu_crashes()
    await stage.passes(11)

    assert stage.ready()
    assert stage.record().failures == 1


async def test_a_guest_that_powers_off_at_once_is_started_no_faster_than_a_crash(stage: Stage) -> None:
    await stage.create()
    await stage.guest_powers_off()

    assert not stage.runs()
    await stage.passes(11)
    assert stage.runs()


async def test_a_new_token_ends_the_pause(stage: Stage) -> None:
    await stage.create()
    await stage.qemu_crashes()

    await stage.edit(restart={"token": "now"})

    assert stage.ready()


async def test_a_qemu_that_exits_at_once_is_a_crash_like_any_other(stage: Stage) -> None:
    stage.server.create_guest("default", "demo", {})
    uuid = stage.guest().metadata.uid
    stage.host.fates[uuid] = LaunchFate.EXITS
    stage.server.bind_guest("default", "demo", "node-a")
    await stage.passes(0)

    assert stage.says("Ready") == ("False", "BackOff")
    assert "QEMU exited with code 1: aborted" in stage.condition("Ready").message
    assert stage.launches == 1

    stage.host.fates.clear()
    await stage.passes(11)
    assert stage.ready()


async def test_a_qemu_that_never_opens_its_monitor_is_ended_and_tried_again(stage: Stage) -> None:
    stage.server.create_guest("default", "demo", {})
    stage.host.fates[stage.guest().metadata.uid] = LaunchFate.SILENT
    stage.server.bind_guest("default", "demo", "node-a")
    await stage.passes(5)
    assert stage.says("Ready") == ("False", "Starting")
    assert stage.launches == 1

    await stage.passes(27)
    assert not stage.runs()
    assert stage.says("Stalled") == ("True", "BackOff")
    assert stage.last_exit.reason == "QemuSilent"

    stage.host.fates.clear()
    await stage.passes(11)
    assert stage.ready()
    assert stage.effects.count("kill") == 1


async def test_a_qemu_that_falls_silent_while_it_runs_is_never_ended_by_guess(stage: Stage) -> None:
    await stage.create()
    await stage.passes(60)
    stage.qemu().switches.silent = True
    stage.wake()
    await stage.passes(120)

    assert stage.runs()
    assert stage.says("Ready") == ("False", "QemuUnknown")
    assert stage.says("Stalled") == ("True", "QemuUnknown")
    assert "To end it: restart.token or runStrategy: Halted" in stage.condition("Stalled").message

    stage.qemu().switches.silent = False
    await stage.passes(6)
    assert stage.ready()


async def test_a_silent_qemu_is_ended_when_its_owner_asks(stage: Stage) -> None:
    await stage.create(terminationGracePeriodSeconds=5)
    stage.qemu().switches.silent = True

    await stage.edit(restart={"token": "end-it"})
    await stage.passes(8)

    assert stage.launches == 2
    assert stage.ready()


async def test_a_guest_that_greeted_and_fell_silent_before_it_ran_is_not_killed_by_guess(stage: Stage) -> None:
    await stage.create(paused=True)
    stage.qemu().switches.silent = True
    stage.wake()
    await stage.passes(120)

    assert stage.runs()
    assert stage.says("Stalled") == ("True", "QemuUnknown")


async def test_after_a_reboot_of_the_node_guests_come_back(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    stage.agent_dies()
    stage.host.reboot()
    await stage.passes(15)

    assert stage.ready()
    assert stage.last_exit.reason == "Lost"
    assert stage.launches == 2
    assert stage.effects.count("create_image") == 1


async def test_somebody_who_ends_a_qemu_on_the_node_does_not_make_it_a_power_off(stage: Stage) -> None:
    await stage.create(runStrategy="RerunOnFailure")
    await stage.passes(60)
    stage.host.end_qemu(stage.uuid(), code=0, word="host-signal")
    await stage.passes(11)

    assert stage.ready()

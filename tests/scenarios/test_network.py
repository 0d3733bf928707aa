"""Stories of taps and their scripts."""

from guestlet.host.facts import ScriptOutcome
from scenarios.stage import Stage

TAP = {"name": "lan", "tap": {"upScript": "up.sh", "downScript": "down.sh"}}


def scripts(stage: Stage, *, up: int | None = 0, down: int | None = 0, output: str = "") -> None:
    stage.host.scripts = {
        "up.sh": ScriptOutcome(code=up, output=output),
        "down.sh": ScriptOutcome(code=down, output=""),
    }


async def test_scripts_run_around_the_guests_life_and_are_told_what_they_need(stage: Stage) -> None:
    scripts(stage)
    await stage.create(networks=[TAP])
    done = stage.effects
    assert done.index("open_tap") < done.index("run_script") < done.index("launch")

    await stage.edit(runStrategy="Halted")
    done = stage.effects
    assert done.index("execute", done.index("launch") + 2) < len(done) - 1 - done[::-1].index("run_script")
    assert done.index("close_tap") > done.index("run_script")

    up, down = (dict(each.environment) for each in stage.host.script_runs)
    status = stage.status().networks[0]
    assert up == {
        "GUESTLET_EVENT": "up",
        "GUESTLET_GUEST": "default/demo",
        "GUESTLET_MAC": status.mac_address,
        "GUESTLET_TAP": status.tap_name,
    }
    assert down == {**up, "GUESTLET_EVENT": "down"}


async def test_an_up_script_that_fails_keeps_the_guest_from_starting(stage: Stage) -> None:
    scripts(stage, up=3, output="no such vlan")
    await stage.create(networks=[TAP])

    assert stage.says("Stalled") == ("True", "ScriptFailed")
    assert "up.sh" in stage.condition("Stalled").message
    assert "exited with code 3: no such vlan" in stage.condition("Stalled").message
    assert stage.launches == 0
    assert "ScriptFailed" in stage.reasons

    scripts(stage)
    await stage.passes(31)
    assert stage.ready()
    assert stage.status().restarts == 0


async def test_an_up_script_that_takes_too_long_is_said(stage: Stage) -> None:
    scripts(stage, up=None)
    await stage.create(networks=[TAP])

    assert "timed out" in stage.condition("Stalled").message


async def test_a_failing_start_that_is_given_up_leaves_no_tap(stage: Stage) -> None:
    scripts(stage, up=1)
    await stage.create(networks=[TAP])
    await stage.edit(runStrategy="Halted")

    assert stage.says("Ready") == ("False", "Halted")
    assert stage.says("RestartRequired")[0] == "False"
    assert stage.host.taps == {}
    assert stage.record().run is None


async def test_restarts_are_not_counted_while_nothing_starts(stage: Stage) -> None:
    scripts(stage)
    await stage.create(networks=[TAP])
    scripts(stage, up=1)
    await stage.qemu_crashes()
    await stage.passes(200)
    before = stage.writes

    await stage.passes(300)

    assert stage.status().restarts == 1
    assert stage.writes == before


async def test_a_down_script_that_fails_is_told_and_holds_nobody_up(stage: Stage) -> None:
    scripts(stage, down=1)
    await stage.create(networks=[TAP])
    await stage.edit(runStrategy="Halted")

    assert stage.says("Ready") == ("False", "Halted")
    assert "ScriptFailed" in stage.reasons


async def test_a_down_script_that_is_gone_holds_nobody_up(stage: Stage) -> None:
    scripts(stage)
    await stage.create(networks=[TAP])
    del stage.host.scripts["down.sh"]

    await stage.delete()
    await stage.passes(5)

    assert not stage.exists()


async def test_scripts_run_at_a_crash_and_at_the_start_after_it(stage: Stage) -> None:
    scripts(stage)
    await stage.create(networks=[TAP])
    await stage.qemu_crashes()
    await stage.passes(11)

    assert [dict(each.environment)["GUESTLET_EVENT"] for each in stage.host.script_runs] == ["up", "down", "up"]


async def test_what_a_script_prints_is_kept_as_an_event(stage: Stage) -> None:
    scripts(stage, output="port 7 of the switch")
    await stage.create(networks=[TAP])

    assert "ScriptRan" in stage.reasons
    assert any("port 7 of the switch" in message for _, _, _, message in stage.api.events.seen)


async def test_a_bridge_that_goes_and_comes_back(stage: Stage) -> None:
    stage.host.bridges.clear()
    await stage.create(networks=[{"name": "lan", "bridge": {"name": "br0"}}])
    assert stage.says("Stalled") == ("True", "NoSuchBridge")

    stage.host.bridges.add("br0")
    await stage.passes(31)
    assert stage.ready()


async def test_a_tap_is_opened_anew_for_each_launch(stage: Stage) -> None:
    await stage.create(networks=[{"name": "lan", "bridge": {"name": "br0"}, "queues": 4}])
    await stage.qemu_crashes()
    await stage.agent_restarts()
    await stage.passes(11)

    assert stage.ready()
    assert stage.effects.count("open_tap") == 2

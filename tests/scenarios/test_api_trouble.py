"""Stories of an API server that is away, slow, or in conflict."""

from guestlet.errors import NotNow
from guestlet.kube.client import Request
from scenarios.stage import Stage, disk


async def test_guests_run_on_while_the_api_server_is_away(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    stage.api_is_down()
    stage.wake()
    await stage.passes(60)

    assert stage.runs()
    assert {error.reason for error in stage.errors} == {"ApiUnavailable"}

    stage.api_is_back()
    before = stage.writes
    await stage.passes(5)
    assert stage.ready()
    assert stage.writes == before


async def test_a_qemu_that_crashes_meanwhile_is_started_only_when_the_server_answers(stage: Stage) -> None:
    await stage.create()
    await stage.passes(60)
    stage.api_is_down()
    await stage.qemu_crashes()
    await stage.passes(120)
    assert not stage.runs()

    stage.api_is_back()
    await stage.passes(12)
    assert stage.ready()
    assert stage.launches == 2


async def test_an_agent_that_returns_meanwhile_starts_nothing(stage: Stage) -> None:
    await stage.create("runs")
    await stage.create("crashed")
    await stage.qemu_crashes("crashed")
    stage.agent_dies()
    stage.api_is_down()
    await stage.passes(60)

    assert stage.runs("runs")
    assert not stage.runs("crashed")
    assert stage.launches == 2


async def test_a_server_that_goes_away_in_the_middle_of_a_start_loses_nothing(stage: Stage) -> None:
    def goes_before_the_launch(request: Request) -> NotNow | None:
        if "create_image" in stage.effects:
            return NotNow("ApiUnavailable", f"{request} did not get through")
        return None

    stage.refuses = goes_before_the_launch
    await stage.create(disks=[disk()])
    await stage.passes(30)
    assert stage.launches == 0

    stage.api_is_back()
    await stage.passes(2)
    assert stage.ready()
    assert stage.effects.count("create_image") == 1


async def test_a_conflict_is_decided_again(stage: Stage) -> None:
    conflicts = 0

    def conflicting(request: Request) -> NotNow | None:
        nonlocal conflicts
        if request.verb == "patch" and conflicts < 3:
            conflicts += 1
            return NotNow("Conflict", "the object has been modified")
        return None

    stage.refuses = conflicting
    await stage.create()
    await stage.passes(10)

    assert stage.ready()
    assert stage.launches == 1


async def test_a_status_that_cannot_be_written_is_written_later(stage: Stage) -> None:
    stage.refuses = lambda request: (
        NotNow("ApiUnavailable", "slow down") if request.target == "virtualguests/status" else None
    )
    await stage.create()
    await stage.passes(30)
    assert stage.runs()
    assert stage.status().phase is None

    stage.api_is_back()
    await stage.passes(2)
    assert stage.ready()
    assert stage.launches == 1


async def test_events_tell_transitions_and_nothing_twice(stage: Stage) -> None:
    await stage.create()
    await stage.passes(100)
    await stage.qemu_crashes()
    await stage.passes(12)
    await stage.passes(300)

    assert [reason for reason in stage.reasons if reason in ("Running", "BackOff")] == ["Running", "BackOff", "Running"]

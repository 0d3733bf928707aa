"""Whatever the agent was doing when it died: the next one brings every story to the same end.

Each story is told once undisturbed. Then it is told again for each effect on the node and for each write to the API
server, with the agent's death right before it and right after it.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from fakes.host import Fault, Moment
from guestlet.guest.record import Record
from guestlet.host.facts import ScriptOutcome
from guestlet.qemu.replies import RunState
from scenarios.stage import Stage, disk

Story = Callable[[Stage], Awaitable[None]]
NETWORKS = [
    {"name": "lan", "bridge": {"name": "br0"}},
    {"name": "wan", "tap": {"upScript": "up.sh", "downScript": "down.sh"}, "linkUp": False},
]


async def settled(stage: Stage) -> None:
    await stage.passes(60)


async def it_starts(stage: Stage) -> None:
    await stage.create(disks=[disk("root"), disk("data")], networks=NETWORKS)


async def it_starts_paused_and_is_let_go(stage: Stage) -> None:
    await stage.create(disks=[disk()], networks=NETWORKS, paused=True)
    await stage.edit(paused=False)


async def it_is_paused_and_resumed(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.edit(paused=True)
    await stage.edit(paused=False)


async def it_is_edited_and_restarted(stage: Stage) -> None:
    await stage.create(disks=[disk("root", size="1Gi")])
    await stage.edit(memory={"size": "1Gi"}, disks=[disk("root", size="2Gi"), disk("data")])
    await stage.edit(restart={"token": "one"})


async def it_is_halted_and_started(stage: Stage) -> None:
    await stage.create(disks=[disk()], networks=NETWORKS)
    await stage.edit(runStrategy="Halted")
    await stage.edit(runStrategy="Always")


async def it_is_deaf_and_killed(stage: Stage) -> None:
    await stage.create(disks=[disk()], terminationGracePeriodSeconds=3)
    await settled(stage)
    stage.qemu().switches.obeys_power_button = False
    await stage.edit(runStrategy="Halted")


async def it_crashes_and_comes_back(stage: Stage) -> None:
    await stage.create(disks=[disk()], networks=NETWORKS)
    await settled(stage)
    await stage.qemu_crashes()


async def it_powers_off_for_good(stage: Stage) -> None:
    await stage.create(disks=[disk()], runStrategy="Once")
    await settled(stage)
    await stage.guest_powers_off()


async def it_is_reset(stage: Stage) -> None:
    await stage.create()
    await stage.edit(restart={"token": "one", "mode": "Reset"})


async def it_goes_on_after_an_io_error(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await settled(stage)
    await stage.qemu_stops(RunState.IO_ERROR)
    await stage.edit(paused=True)
    await stage.edit(paused=False)


async def it_is_deleted_with_its_image(stage: Stage) -> None:
    await stage.create(disks=[disk("root", onDelete="Delete"), disk("kept")], networks=NETWORKS)
    await settled(stage)
    await stage.delete()


async def it_is_taken_over_by_a_new_object(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await settled(stage)
    stage.server.drop_guest("default", "demo")
    await stage.passes(1)
    await stage.create(disks=[disk()])


async def its_record_is_lost(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await settled(stage)
    stage.agent_dies()
    stage.host.files.clear()
    await stage.passes(5)


async def its_status_is_lost(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await settled(stage)
    stage.server.lose_status("default", "demo")
    await stage.passes(5)


STORIES: tuple[Story, ...] = (
    it_starts,
    it_starts_paused_and_is_let_go,
    it_is_paused_and_resumed,
    it_is_edited_and_restarted,
    it_is_halted_and_started,
    it_is_deaf_and_killed,
    it_crashes_and_comes_back,
    it_powers_off_for_good,
    it_is_reset,
    it_goes_on_after_an_io_error,
    it_is_deleted_with_its_image,
    it_is_taken_over_by_a_new_object,
    its_record_is_lost,
    its_status_is_lost,
)


def new_stage() -> Stage:
    stage = Stage()
    outcome = ScriptOutcome(code=0, output="")
    stage.host.scripts = {"up.sh": outcome, "down.sh": outcome}
    return stage


async def told(story: Story, *, fault: Fault | None = None, write: tuple[int, Moment] | None = None) -> Stage:
    stage = new_stage()
    stage.host.faults = (fault,) if fault is not None else ()
    stage.dies_at_write = write
    await story(stage)
    await settled(stage)
    return stage


def end_of(stage: Stage) -> dict[str, Any]:
    """All that matters when the dust has settled: objects, records, images, QEMUs, and what was done once."""
    return {
        "objects": {key: timeless(object_of(body)) for key, body in stage.server.objects.items()},
        "records": sorted((timeless(record_of(each)) for each in stage.records), key=str),
        "files": sorted((guest, name) for guest, name in stage.host.files),
        "images": stage.host.images,
        "qemus": {
            guest: (qemu.run_state, qemu.argv, qemu.links, qemu.identity) for guest, qemu in stage.host.qemus.items()
        },
        "started": +stage.host.started,
        "created": +stage.host.created,
    }


TIMES = {"at", "createdAt", "created_at", "lastTransitionTime", "startedAt", "started_at", "since", "pressed_at"}


def timeless(value: Any) -> Any:
    """The value without its times: a new agent may come a moment later to the same end."""
    if isinstance(value, dict):
        return {name: timeless(each) for name, each in value.items() if name not in TIMES}
    return [timeless(each) for each in value] if isinstance(value, list | tuple) else value


def object_of(body: dict[str, Any]) -> dict[str, Any]:
    status = dict(body["status"])
    status["conditions"] = sorted(status.get("conditions", ()), key=lambda each: str(each["type"]))
    kept = {name: body["metadata"].get(name) for name in ("uid", "generation", "finalizers", "deletionTimestamp")}
    return {"metadata": kept, "spec": body["spec"], "status": status}


def record_of(record: Record) -> dict[str, Any]:
    """Without the argv, which an adopted QEMU's record does not have."""
    return asdict(replace(record, run=replace(record.run, argv=()) if record.run else None))


def deaths(undisturbed: Stage) -> Iterator[dict[str, Any]]:
    for moment in Moment:
        for number in range(len(undisturbed.host.journal)):
            yield {"fault": Fault(effect=number, moment=moment)}
        for number in range(undisturbed.writes):
            yield {"write": (number, moment)}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_a_story_ends_the_same_wherever_the_agent_dies(story: Story) -> None:
    undisturbed = await told(story)
    wanted = end_of(undisturbed)

    for death in deaths(undisturbed):
        disturbed = await told(story, **death)
        assert disturbed.deaths == undisturbed.deaths + 1, death
        assert end_of(disturbed) == wanted, (death, [str(each) for each in disturbed.host.journal])


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_a_story_told_twice_ends_the_same(story: Story) -> None:
    assert end_of(await told(story)) == end_of(await told(story))

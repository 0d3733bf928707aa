"""Whatever the agent was doing when it died: the next one brings every story to the same end.

Each story is told once undisturbed. Then it is told again for each effect on the node and for each write to the API
server, with the agent's death right before it and right after it.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from fakes.host import Fault, Moment
from guestlet.errors import Broken
from guestlet.guest.record import Record
from guestlet.host.facts import ScriptOutcome
from guestlet.qemu.machine import ImageFormat
from guestlet.qemu.replies import RunState
from scenarios.stage import Stage, disk

Story = Callable[[Stage], Awaitable[None]]
NETWORKS = [
    {"name": "lan", "bridge": {"name": "br0"}},
    {"name": "wan", "tap": {"upScript": "up.sh", "downScript": "down.sh"}, "linkUp": False},
]


def cdrom(image: str | None) -> dict[str, Any]:
    source = {"source": {"file": {"pool": "default", "image": image, "format": "Raw"}}} if image else {}
    return {"name": "cd", "bus": "SCSI", "cdrom": True, "readOnly": True, **source}


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


async def it_is_given_devices(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    tap = {"name": "wan", "tap": {"upScript": "up.sh", "downScript": "down.sh"}, "linkUp": False}
    more = [disk("data", ioThread=True, throttle={"iops": 9}), disk("unit", bus="SCSI")]
    await stage.edit(disks=[disk(), *more], networks=[tap, {"name": "lan", "isolated": {}}])


async def it_gives_devices_back(stage: Stage) -> None:
    await stage.create(disks=[disk(), disk("data", ioThread=True, onDelete="Delete")], networks=NETWORKS)
    await settled(stage)
    await stage.edit(disks=[disk()], networks=[])


async def it_is_edited_in_place(stage: Stage) -> None:
    lan = {"name": "lan", "bridge": {"name": "br0"}}
    await stage.create(disks=[disk()], networks=[lan])
    grown = disk(size="2Gi", throttle={"bandwidth": "1Mi"})
    moved = {**lan, "bridge": {"name": "br1"}, "linkUp": False, "bandwidth": {"inbound": "1Mi"}}
    await stage.edit(disks=[grown], networks=[moved])


async def it_is_given_cpus_and_memory(stage: Stage) -> None:
    await stage.create(disks=[disk()], cpu={"count": 1, "maxCount": 3}, memory={"size": "512Mi", "maxSize": "2Gi"})
    await stage.edit(cpu={"count": 3, "maxCount": 3}, memory={"size": "1Gi", "maxSize": "2Gi"})


async def it_has_no_driver_for_the_memory(stage: Stage) -> None:
    await stage.create(disks=[disk()], memory={"size": "512Mi", "maxSize": "2Gi"})
    await settled(stage)
    stage.qemu().switches.takes_memory = False
    await stage.edit(memory={"size": "1Gi", "maxSize": "2Gi"})


async def its_medium_is_exchanged(stage: Stage) -> None:
    stage.add_image("a.iso", format=ImageFormat.RAW)
    stage.add_image("b.iso", format=ImageFormat.RAW)
    await stage.create(disks=[disk(), cdrom("a.iso")])
    await stage.edit(disks=[disk(), cdrom("b.iso")])
    await stage.edit(disks=[disk(), cdrom(None)])


async def it_lets_go_only_when_it_reboots(stage: Stage) -> None:
    await stage.create(disks=[disk(), disk("data")])
    await settled(stage)
    stage.qemu().switches.lets_go = False
    await stage.edit(disks=[disk()])
    await stage.passes(300)
    stage.qemu().switches.lets_go = True
    await stage.guest_reboots()


async def a_plug_is_refused(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await settled(stage)
    stage.refuse_command("device_add", Broken("QmpRefused", "device_add: GenericError: no"))
    await stage.edit(disks=[disk(), disk("data", ioThread=True)], networks=[{"name": "lan", "isolated": {}}])
    await settled(stage)
    stage.accept_command("device_add")


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
    it_is_given_devices,
    it_gives_devices_back,
    it_is_edited_in_place,
    it_is_given_cpus_and_memory,
    it_has_no_driver_for_the_memory,
    its_medium_is_exchanged,
    it_lets_go_only_when_it_reboots,
    a_plug_is_refused,
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
    # In which order two devices left is the guest's business, and a new agent may see both gone at once.
    if status.get("pci"):
        status["pci"] = {**status["pci"], "freed": sorted(status["pci"].get("freed", ()))}
    status["conditions"] = sorted(status.get("conditions", ()), key=lambda each: str(each["type"]))
    kept = {name: body["metadata"].get(name) for name in ("uid", "generation", "finalizers", "deletionTimestamp")}
    return {"metadata": kept, "spec": body["spec"], "status": status}


def record_of(record: Record) -> dict[str, Any]:
    """Without the argv, which an adopted QEMU's record does not have."""
    machine = record.machine
    if machine is not None:
        machine = replace(machine, pci=replace(machine.pci, freed=tuple(sorted(machine.pci.freed))))
    return asdict(replace(record, machine=machine, run=replace(record.run, argv=()) if record.run else None))


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

"""Stories of guests that are deleted, in each phase of their life."""

from dataclasses import replace

import pytest

from guestlet.qemu.replies import RunState
from scenarios.stage import Stage, disk


async def test_a_running_guest_is_powered_down_and_forgotten(stage: Stage) -> None:
    await stage.create(disks=[disk()], networks=[{"name": "lan", "bridge": {"name": "br0"}}])
    guest = stage.qemu()

    await stage.delete()
    await stage.passes(2)

    assert guest.power_button_presses == 1
    assert not stage.exists()
    assert stage.host.files == {}
    assert ("default", "root.qcow2") in stage.host.images


async def test_a_deaf_guest_is_killed_when_its_grace_period_is_over(stage: Stage) -> None:
    await stage.create(terminationGracePeriodSeconds=20)
    stage.qemu().switches.obeys_power_button = False
    await stage.delete()
    assert stage.says("Ready") == ("False", "Terminating")
    assert stage.exists()

    await stage.passes(22)
    assert not stage.exists()
    assert stage.host.qemus == {}


async def test_only_what_guestlet_made_and_the_user_gave_up_is_deleted(stage: Stage) -> None:
    stage.add_image("theirs.qcow2")
    await stage.create(
        disks=[disk("ours", onDelete="Delete"), disk("kept"), disk("theirs", onDelete="Delete", size="1Gi")]
    )

    await stage.delete()
    await stage.passes(2)

    assert not stage.exists()
    assert {image for _, image in stage.host.images} == {"kept.qcow2", "theirs.qcow2"}


async def test_the_last_word_of_the_user_decides_what_is_deleted(stage: Stage) -> None:
    await stage.create(disks=[disk(onDelete="Delete")])
    await stage.edit(disks=[disk(onDelete="Keep")])
    assert stage.says("RestartRequired")[0] == "False"

    await stage.delete()
    await stage.passes(2)

    assert ("default", "root.qcow2") in stage.host.images


@pytest.mark.parametrize("state", [RunState.PRELAUNCH, RunState.PAUSED, RunState.IO_ERROR, RunState.GUEST_PANICKED])
async def test_a_guest_that_stands_still_goes_too(stage: Stage, state: RunState) -> None:
    await stage.create(terminationGracePeriodSeconds=10)
    await stage.qemu_stops(state)
    await stage.delete()
    await stage.passes(12)

    assert not stage.exists()
    assert stage.host.qemus == {}


async def test_a_guest_that_never_ran_an_instruction_is_not_waited_for(stage: Stage) -> None:
    await stage.create(paused=True, terminationGracePeriodSeconds=600)
    await stage.delete()
    await stage.passes(1)

    assert not stage.exists()


async def test_a_halted_guest_goes_at_once(stage: Stage) -> None:
    await stage.create(runStrategy="Halted")
    await stage.delete()

    assert not stage.exists()
    assert stage.host.files == {}
    assert "GuestOrphaned" not in stage.reasons


async def test_a_guest_that_waits_after_a_crash_goes_at_once(stage: Stage) -> None:
    await stage.create()
    await stage.qemu_crashes()
    await stage.delete()

    assert not stage.exists()
    assert stage.launches == 1


async def test_a_guest_that_could_never_start_goes_at_once(stage: Stage) -> None:
    await stage.create(disks=[disk(source={"file": {"pool": "nowhere", "image": "a"}})])
    assert stage.says("Stalled") == ("True", "NoSuchPool")

    await stage.delete()
    assert not stage.exists()
    assert stage.host.files == {}


async def test_a_guest_whose_end_was_asked_twice_ends_once(stage: Stage) -> None:
    await stage.create(terminationGracePeriodSeconds=30)
    stage.qemu().switches.obeys_power_button = False
    await stage.edit(runStrategy="Halted")
    await stage.passes(20)
    await stage.delete()
    await stage.passes(12)

    assert not stage.exists()
    assert stage.effects.count("kill") == 1


async def test_somebody_elses_finalizer_is_waited_for_without_a_busy_loop(stage: Stage) -> None:
    await stage.create()
    stage.server.objects["virtualguests", "default", "demo"]["metadata"]["finalizers"].append("example.org/backup")
    await stage.delete()
    await stage.passes(30)

    assert stage.exists()
    assert stage.guest().metadata.finalizers == ("example.org/backup",)
    assert stage.host.qemus == {}
    before = stage.writes
    await stage.passes(600)
    assert stage.writes == before


async def test_a_guest_that_is_deleted_while_it_starts_never_runs(stage: Stage) -> None:
    def deleted_behind_our_back(request: object) -> None:
        if "create_image" in stage.effects and stage.exists():
            stage.refuses = lambda _request: None
            stage.server.delete_guest("default", "demo")

    stage.refuses = deleted_behind_our_back
    await stage.create(disks=[disk(onDelete="Delete")])
    await stage.passes(5)

    assert not stage.exists()
    assert stage.launches == 0
    assert stage.host.files == {}


async def test_an_agent_that_dies_between_forgetting_and_letting_go_does_both_in_the_end(stage: Stage) -> None:
    def dies_once(_request: object) -> None:
        if "forget" in stage.effects and stage.deaths == 0:
            stage.agent_is_killed()

    await stage.create()
    stage.refuses = dies_once
    await stage.delete()
    await stage.passes(5)

    assert stage.deaths == 1
    assert not stage.exists()
    assert stage.host.files == {}
    assert stage.launches == 1


async def test_an_image_that_another_image_is_backed_by_stays_and_an_event_says_why(stage: Stage) -> None:
    await stage.create(disks=[disk(onDelete="Delete")])
    stage.host.images["default", "child.qcow2"] = replace(
        stage.host.images["default", "root.qcow2"], image="child.qcow2", backing_image="root.qcow2"
    )
    await stage.delete()
    await stage.passes(10)

    assert not stage.exists()
    assert ("default", "root.qcow2") in stage.host.images
    assert any("child.qcow2 is backed by it" in message for _, _, _, message in stage.api.events.seen)


async def test_an_image_that_a_halted_guest_names_stays(stage: Stage) -> None:
    await stage.create("first", disks=[disk(onDelete="Delete")])
    await stage.edit("first", runStrategy="Halted")
    await stage.passes(10)
    await stage.create("second", disks=[disk()])
    await stage.edit("second", runStrategy="Halted")
    await stage.passes(10)
    await stage.delete("first")
    await stage.passes(10)

    assert not stage.exists("first")
    assert ("default", "root.qcow2") in stage.host.images


async def test_the_image_of_a_removed_disk_ends_once_the_guest_runs_without_it(stage: Stage) -> None:
    await stage.create(disks=[disk(), disk("scratch", onDelete="Delete"), disk("kept")])
    stage.qemu().switches.lets_go = False
    await stage.edit(disks=[disk()])
    await stage.passes(100)
    assert ("default", "scratch.qcow2") in stage.host.images

    stage.qemu().guest_answers()
    await stage.passes(10)
    assert stage.ready()
    assert stage.launches == 1
    assert ("default", "scratch.qcow2") not in stage.host.images
    assert {("default", "root.qcow2"), ("default", "kept.qcow2")} <= stage.host.images.keys()


async def test_the_image_of_a_disk_that_came_back_before_the_restart_stays(stage: Stage) -> None:
    both = [disk(), disk("scratch", onDelete="Delete")]
    await stage.create(disks=both)
    stage.qemu().switches.lets_go = False
    await stage.edit(disks=[disk()])
    await stage.edit(disks=both, restart={"token": "one"})
    await stage.passes(10)

    assert stage.ready()
    assert ("default", "scratch.qcow2") in stage.host.images
    assert "delete_image" not in stage.effects

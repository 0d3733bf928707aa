"""Stories of agents that die and return, of records and statuses that are lost, and of guests that nobody asks for."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from guestlet.guest.files import FORGET_MARK
from guestlet.guest.record import RECORD_FILE, dump_record
from guestlet.qemu.replies import RunState
from scenarios.stage import Stage, disk

Damage = Callable[[Stage], None]


def lost(stage: Stage) -> None:
    for key in [key for key in stage.host.files if key[1] == RECORD_FILE]:
        del stage.host.files[key]


def damaged(stage: Stage) -> None:
    for key in [key for key in stage.host.files if key[1] == RECORD_FILE]:
        stage.host.files[key] = stage.host.files[key][:40]


async def test_a_new_agent_finds_its_guests_and_disturbs_none(stage: Stage) -> None:
    for name in ("one", "two", "three"):
        await stage.create(name, disks=[disk(name)])
    before = dict(stage.host.qemus), stage.writes, list(stage.effects)

    await stage.agent_restarts()
    await stage.passes(600)

    qemus, writes, effects = before
    assert stage.host.qemus == qemus
    assert stage.writes == writes
    assert set(stage.effects[len(effects) :]) <= {"trim_logs"}
    assert all(stage.ready(name) for name in ("one", "two", "three"))


async def test_a_guest_that_crashed_while_no_agent_was_there_is_seen_to(stage: Stage) -> None:
    await stage.create()
    stage.agent_dies()
    stage.host.end_qemu(stage.uuid(), code=None, signal=6)
    await stage.passes(1)

    assert stage.says("Ready") == ("False", "BackOff")
    await stage.passes(11)
    assert stage.ready()
    assert stage.launches == 2


async def test_a_pause_survives_the_agent(stage: Stage) -> None:
    await stage.create()
    await stage.edit(paused=True)
    await stage.agent_restarts()
    assert stage.qemu().run_state is RunState.PAUSED

    await stage.edit(paused=False)
    assert stage.ready()


async def test_a_stop_that_was_begun_is_finished_by_the_next_agent(stage: Stage) -> None:
    await stage.create(terminationGracePeriodSeconds=30)
    stage.qemu().switches.obeys_power_button = False
    await stage.edit(runStrategy="Halted")
    await stage.passes(20)
    await stage.agent_restarts()
    assert stage.runs()

    await stage.passes(12)
    assert not stage.runs()


@pytest.mark.parametrize("damage", [lost, damaged])
async def test_a_record_that_is_lost_while_qemu_lives_is_built_again_from_status(stage: Stage, damage: Damage) -> None:
    await stage.create(disks=[disk()], networks=[{"name": "lan", "user": {}}])
    await stage.passes(5)
    machine, qemu, key = stage.record().machine, stage.qemu(), stage.uuid()
    stage.agent_dies()
    damage(stage)
    await stage.passes(10)

    assert stage.ready()
    assert stage.launches == 1
    assert stage.host.qemus == {key: qemu}
    assert stage.record().machine == machine
    assert stage.effects.count("create_image") == 1

    await stage.edit(memory={"size": "1Gi"})
    assert stage.says("RestartRequired") == ("True", "FieldsWaiting")


async def test_edits_that_waited_still_wait_when_the_record_is_lost(stage: Stage) -> None:
    await stage.create()
    await stage.edit(memory={"size": "1Gi"})
    stage.agent_dies()
    lost(stage)
    await stage.passes(10)

    assert stage.ready()
    assert stage.says("RestartRequired") == ("True", "FieldsWaiting")
    assert "memory.size" in stage.condition("RestartRequired").message


async def test_a_qemu_that_neither_record_nor_status_describe_is_left_alone(stage: Stage) -> None:
    await stage.create()
    qemus = dict(stage.host.qemus)
    stage.agent_dies()
    lost(stage)
    stage.server.lose_status("default", "demo")
    stage.server.bind_guest("default", "demo", "node-a")
    await stage.passes(60)

    assert stage.host.qemus == qemus
    assert stage.launches == 1
    assert stage.says("Stalled") == ("True", "RecordLost")
    assert "it is left alone and none is started" in stage.condition("Stalled").message


async def test_when_record_and_qemu_are_gone_and_status_says_running_the_guest_starts_again(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    machine, uuid = stage.record().machine, stage.uuid()
    stage.agent_dies()
    stage.host.reboot()
    stage.host.files.clear()
    stage.host.exits.clear()
    await stage.passes(15)

    assert stage.ready()
    assert stage.uuid() == uuid
    assert stage.record().machine == machine
    assert stage.effects.count("create_image") == 1
    assert stage.last_exit.reason == "Lost"


async def test_an_agent_killed_between_start_and_record_finds_the_qemu(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    record = stage.record()
    assert record.run is not None
    announced = replace(record, run=replace(record.run, identity=None, argv=(), resumed=False))
    stage.qemu().run_state = RunState.PRELAUNCH
    stage.agent_dies()
    stage.host.files[stage.uuid(), RECORD_FILE] = dump_record(announced)
    await stage.passes(5)

    assert stage.ready()
    assert stage.launches == 1
    assert stage.record().run == replace(record.run, identity=stage.qemu().identity, argv=(), resumed=True)


async def test_an_adopted_guest_that_falls_silent_is_not_killed(stage: Stage) -> None:
    await stage.create()
    record = stage.record()
    assert record.run is not None
    announced = replace(record, run=replace(record.run, identity=None, argv=(), resumed=False))
    stage.qemu().run_state = RunState.PRELAUNCH
    stage.agent_dies()
    stage.host.files[stage.uuid(), RECORD_FILE] = dump_record(announced)
    await stage.passes(0)
    stage.qemu().switches.silent = True
    stage.wake()
    await stage.passes(100)

    assert stage.runs()


async def test_an_orphan_runs_on_and_is_reported_once(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    stage.server.drop_guest("default", "demo")
    await stage.passes(600)

    assert stage.runs()
    assert stage.reasons.count("GuestOrphaned") == 1
    assert stage.journal.orphan_count == 1
    assert ("default", "root.qcow2") in stage.host.images
    (told,) = [message for kind, _, reason, message in stage.api.events.seen if reason == "GuestOrphaned"]
    assert f"guestlet forget {stage.uuid()}" in told


async def test_an_orphan_runs_on_whatever_happens_to_the_agent(stage: Stage) -> None:
    await stage.create(runStrategy="Once")
    stage.server.drop_guest("default", "demo")
    await stage.agent_restarts()
    await stage.passes(120)

    assert stage.runs()


async def test_an_orphan_is_taken_over_by_a_new_guest_of_its_name(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    qemu, uuid = stage.qemu(), stage.uuid()
    stage.server.drop_guest("default", "demo")
    await stage.passes(60)

    await stage.create(disks=[disk()])

    assert stage.ready()
    assert stage.qemu() is qemu
    assert stage.status().uuid == uuid
    assert stage.guest().metadata.uid != uuid
    assert stage.record().object_uid == stage.guest().metadata.uid
    assert stage.journal.orphan_count == 0
    assert stage.guest().metadata.finalizers == ("guestlet.io/agent",)


async def test_a_new_guest_of_an_orphans_name_is_claimed_unless_it_asks_for_another_node(stage: Stage) -> None:
    for name in ("here", "there"):
        await stage.create(name)
        stage.server.drop_guest("default", name)
    stage.server.create_guest("default", "here", {})
    stage.server.create_guest("default", "there", {"nodeName": "node-b"})
    await stage.passes(40)

    assert stage.status("here").node_name == "node-a"
    assert stage.ready("here")
    assert stage.status("there").node_name is None


async def test_an_orphan_that_a_person_forgets_is_ended(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    uuid = stage.uuid()
    stage.server.drop_guest("default", "demo")
    await stage.passes(1)

    stage.host.files[uuid, FORGET_MARK] = b""
    await stage.passes(31)

    assert stage.host.qemus == {}
    assert stage.host.files == {}
    assert ("default", "root.qcow2") in stage.host.images
    assert stage.journal.orphan_count == 0


async def test_a_guest_whose_status_was_lost_is_claimed_by_the_owner_of_its_record(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    epoch = stage.status().placement_epoch
    stage.server.lose_status("default", "demo")
    await stage.passes(5)

    assert stage.ready()
    assert stage.launches == 1
    assert stage.status().node_name == "node-a"
    assert (stage.status().placement_epoch or 0) > (epoch or 0)
    assert stage.status().disks[0].created_at is not None


async def test_a_guest_that_was_moved_elsewhere_is_left_alone_and_told_once(stage: Stage) -> None:
    await stage.create()
    stage.server.bind_guest("default", "demo", "node-b", epoch=2)
    before = stage.writes
    for _ in range(3):
        stage.wake()
        await stage.passes(60)

    assert stage.runs()
    assert stage.writes == before
    assert stage.reasons.count("PlacementMoved") == 1


async def test_a_guest_that_was_given_away_is_never_run_again_at_that_epoch(stage: Stage) -> None:
    await stage.create(runStrategy="Halted")
    stage.agent_dies()
    given = replace(stage.record(), given_away_epoch=1)
    stage.host.files[stage.uuid(), RECORD_FILE] = dump_record(given)
    await stage.edit(runStrategy="Always")

    assert stage.launches == 0
    assert stage.says("Stalled") == ("True", "PlacementRolledBack")
    assert "correct status.nodeName" in stage.condition("Stalled").message

    stage.server.bind_guest("default", "demo", "node-a", epoch=3)
    await stage.passes(1)
    assert stage.ready()


async def test_a_guest_that_was_given_away_is_not_claimed_back(stage: Stage) -> None:
    await stage.create(runStrategy="Halted")
    stage.agent_dies()
    given = replace(stage.record(), given_away_epoch=1)
    stage.host.files[stage.uuid(), RECORD_FILE] = dump_record(given)
    stage.server.lose_status("default", "demo")
    await stage.passes(60)

    assert stage.status().node_name is None


async def test_an_unbound_guest_of_others_is_none_of_our_business(stage: Stage) -> None:
    stage.server.create_guest("default", "new", {})
    await stage.passes(60)

    assert stage.writes == 0
    assert stage.effects == []

"""Stories of specs that change while the guest runs."""

from typing import Any

from guestlet.guest.record import parse_record
from scenarios.stage import Stage, disk

WAITING: dict[str, Any] = {
    "cpu": {"count": 2},
    "memory": {"size": "1Gi"},
    "console": {"serialLog": False},
    "devices": {"rng": False},
    "pci": {"hotplugPorts": 6},
    "disks": [disk(cache="Writethrough")],
}


async def test_what_cannot_change_while_the_guest_runs_waits_by_name(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    before = stage.qemu().argv
    await stage.edit(**WAITING)

    assert stage.ready()
    assert stage.qemu().argv == before
    assert stage.says("RestartRequired") == ("True", "FieldsWaiting")
    message = stage.condition("RestartRequired").message
    for field in ("cpu.count", "memory.size", "console.serialLog", "devices.rng", "pci.hotplugPorts"):
        assert field in message
    assert "disks[root].cache" in message
    assert "change spec.restart.token to restart" in message
    assert "RestartRequired" in stage.reasons
    assert stage.status().observed_generation == stage.guest().metadata.generation
    assert stage.memory_at_boot == "512Mi"


async def test_it_takes_effect_at_the_next_start_and_is_not_named_any_more(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.edit(**WAITING)
    await stage.edit(restart={"token": "now"})
    await stage.passes(1)

    assert stage.ready()
    assert stage.says("RestartRequired") == ("False", "UpToDate")
    assert stage.memory_at_boot == "1Gi"
    assert [each.cache for each in stage.status().disks] == ["Writethrough"]


async def test_an_edit_taken_back_waits_no_more(stage: Stage) -> None:
    await stage.create(memory={"size": "512Mi"})
    await stage.edit(memory={"size": "1Gi"})
    await stage.edit(memory={"size": "512Mi"})

    assert stage.says("RestartRequired") == ("False", "UpToDate")


async def test_an_edit_that_cannot_be_had_disturbs_nothing_and_says_so(stage: Stage) -> None:
    await stage.create()
    await stage.edit(cpu={"count": 64})

    assert stage.ready()
    assert "the next start would be refused" in stage.condition("RestartRequired").message
    assert "use at most 4" in stage.condition("RestartRequired").message
    before = stage.writes
    stage.wake()
    await stage.passes(300)
    assert stage.writes == before


async def test_the_next_start_is_described_beside_the_record_at_each_generation(stage: Stage) -> None:
    await stage.create()
    first = stage.host.files[stage.uuid(), "next.sh"]
    await stage.edit(memory={"size": "1Gi"})

    assert b"1073741824" in stage.host.files[stage.uuid(), "next.sh"]
    assert b"1073741824" not in first
    assert b'"1Gi"' in stage.host.files[stage.uuid(), "source.json"]


async def test_a_paused_guests_next_start_is_described_too(stage: Stage) -> None:
    await stage.create()
    await stage.edit(paused=True)
    await stage.edit(memory={"size": "1Gi"})

    assert b"1073741824" in stage.host.files[stage.uuid(), "next.sh"]
    assert stage.record().paused


async def test_addresses_stay_when_devices_come_and_go(stage: Stage) -> None:
    def places() -> dict[str, str]:
        pci = stage.status().pci
        return {each.id: f"{each.bus}:{each.address}" for each in pci.devices} if pci else {}

    await stage.create(disks=[disk("a"), disk("b"), disk("c")])
    before = places()
    await stage.edit(disks=[disk("d"), disk("c"), disk("a")], restart={"token": "one"})
    await stage.passes(1)

    after = places()
    assert after["disk-a"] == before["disk-a"]
    assert after["disk-c"] == before["disk-c"]
    assert after["disk-d"] not in before.values()


async def test_a_spec_that_is_edited_all_the_time_still_gets_its_guest(stage: Stage) -> None:
    edits = 0

    def edited_meanwhile(request: Any) -> None:
        nonlocal edits
        if request.verb == "get" and edits < 300:
            edits += 1
            stage.server.edit_guest("default", "demo", lambda spec: spec.update(memory={"size": f"{512 + edits}Mi"}))

    stage.refuses = edited_meanwhile
    await stage.create(disks=[disk()])
    await stage.passes(400)

    assert stage.launches == 1
    assert stage.ready()
    assert stage.says("RestartRequired") == ("True", "FieldsWaiting")
    assert stage.status().observed_generation == stage.guest().metadata.generation


async def test_a_guest_that_is_halted_while_it_starts_is_not_started(stage: Stage) -> None:
    def halted_meanwhile(_request: Any) -> None:
        if "create_image" in stage.effects and stage.guest().spec.run_strategy == "Always":
            stage.server.edit_guest("default", "demo", lambda spec: spec.update(runStrategy="Halted"))

    stage.refuses = halted_meanwhile
    await stage.create(disks=[disk()])
    await stage.passes(5)

    assert stage.launches == 0
    assert stage.says("Ready") == ("False", "Halted")


async def test_the_record_is_written_before_what_it_speaks_of(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    done = [(each.name, each.detail) for each in stage.host.journal]

    assert done.index(("write_file", "record.json")) < [name for name, _ in done].index("create_image")
    assert parse_record(stage.host.files[stage.uuid(), "record.json"]).created_images[0].created_at == stage.now

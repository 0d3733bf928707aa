"""Stories of guests that let go late, or not at all."""

from dataclasses import replace

from fakes.qemu import FakeQemu
from guestlet.guest.record import RECORD_FILE, dump_record
from guestlet.pci.address import PciAddress
from guestlet.pci.layout import Anonymous
from scenarios.stage import Stage, disk


async def stubborn(stage: Stage) -> FakeQemu:
    """A guest that does not answer a request to let go, after it was asked."""
    await stage.create(disks=[disk(), disk("data")])
    stage.qemu().switches.lets_go = False
    await stage.edit(disks=[disk()])
    return stage.qemu()


def places(stage: Stage) -> dict[str, str]:
    pci = stage.status().pci
    return {each.id: f"{each.bus}:{each.address}" for each in pci.devices} if pci else {}


def asked(stage: Stage) -> int:
    return sum(each.name == "execute" and each.detail.startswith("device_del") for each in stage.host.journal)


async def test_a_guest_that_does_not_answer_is_told_with_the_device_named(stage: Stage) -> None:
    await stubborn(stage)
    assert stage.says("Reconciling") == ("True", "Unplugging")
    assert stage.ready()
    await stage.passes(200)

    assert stage.says("Stalled") == ("True", "UnplugIgnored")
    assert "disk-data" in stage.condition("Stalled").message
    assert stage.ready()
    assert [each.name for each in stage.status().disks] == ["root", "data"]
    assert asked(stage) == 5
    before = stage.writes
    await stage.passes(3600)
    assert asked(stage) == 5
    assert stage.writes == before


async def test_it_is_asked_again_when_it_reboots(stage: Stage) -> None:
    qemu = await stubborn(stage)
    await stage.passes(200)
    qemu.switches.lets_go = True
    await stage.guest_reboots()
    await stage.passes(30)

    assert [each.name for each in stage.status().disks] == ["root"]
    assert stage.says("Stalled")[0] == "False"
    assert not stage.record().pending


async def test_a_guest_that_refuses_is_told_with_its_word_and_not_pressed(stage: Stage) -> None:
    await stage.create(disks=[disk(), disk("data")])
    stage.qemu().switches.refuses = True
    await stage.edit(disks=[disk()])
    await stage.passes(120)

    assert stage.says("Stalled") == ("True", "UnplugRefused")
    assert asked(stage) == 1
    assert stage.ready()


async def test_a_disk_that_is_wanted_again_stays(stage: Stage) -> None:
    await stubborn(stage)
    await stage.edit(disks=[disk(), disk("data")])

    assert stage.says("Reconciling")[0] == "False"
    assert not stage.record().pending
    assert [each.name for each in stage.status().disks] == ["root", "data"]


async def test_a_disk_that_left_after_it_was_wanted_again_is_plugged_again(stage: Stage) -> None:
    qemu = await stubborn(stage)
    await stage.edit(disks=[disk(), disk("data")])
    qemu.guest_answers()
    await stage.passes(2)

    assert [each.name for each in stage.status().disks] == ["root", "data"]
    assert stage.ready()


async def test_a_guest_that_ends_while_it_lets_go_starts_without_the_disk(stage: Stage) -> None:
    await stubborn(stage)
    await stage.qemu_crashes()
    await stage.passes(30)

    assert [each.name for each in stage.status().disks] == ["root"]
    assert not stage.record().pending


async def test_a_new_agent_goes_on_waiting(stage: Stage) -> None:
    qemu = await stubborn(stage)
    await stage.agent_restarts()
    qemu.switches.lets_go = True
    await stage.passes(60)

    assert [each.name for each in stage.status().disks] == ["root"]


async def test_a_reset_in_the_middle_frees_nothing_that_is_there(stage: Stage) -> None:
    qemu = await stubborn(stage)
    qemu.switches.firmware_numbers_buses = False
    before = places(stage)
    await stage.edit(restart={"token": "one", "mode": "Reset"})
    await stage.passes(5)
    # The reset completes what QEMU had pending, and until the firmware has run nothing else is known.
    assert {name: at for name, at in before.items() if name != "disk-data"} == places(stage)

    assert [each.name for each in stage.status().disks] == ["root"]


async def test_the_place_of_an_unknown_device_is_reserved_while_it_is_there(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    place = PciAddress(bus="port-3", slot=0, function=0)
    stranger = Anonymous(address=place, id="", vendor="8086", device="10d3", device_class="0200")
    stage.agent_dies()
    remember_stranger(stage, stranger)
    await stage.passes(1)

    # The simulated QEMU has nothing there: once its buses are numbered, the place is free.
    machine = stage.record().machine
    assert machine is not None
    assert machine.pci.anonymous == ()


def remember_stranger(stage: Stage, stranger: Anonymous) -> None:
    record = stage.record()
    assert record.machine is not None
    layout = replace(record.machine.pci, anonymous=(stranger,))
    changed = replace(record, machine=replace(record.machine, pci=layout))
    stage.host.files[record.uuid, RECORD_FILE] = dump_record(changed)

"""What the system in the fake QEMU's guest does when it is asked to let go: as Linux 6.1 did it, measured.

The events of each test are those that QEMU 7.2.22 and 10.0.2 sent while a booted Debian kernel answered.
"""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from contracts.qmp.hotplug_stage import Pluggable, in_memory, pluggable
from fakes.qemu import FakeQemu
from guestlet.errors import Unknown
from guestlet.qemu import commands
from guestlet.qemu.commands import Command
from guestlet.qemu.events import AcpiOst, ejection_refusal, parse_event
from guestlet.qemu.machine import Accelerator, Dimm
from guestlet.qemu.sections.memory import dimm_object, dimm_option
from unit.qemu.sample_machines import MIB

DIMM = Dimm(slot=0, size_bytes=128 * MIB)


@pytest.fixture
async def qemu() -> AsyncIterator[Pluggable]:
    """A guest that has booted, under KVM."""
    async with in_memory(replace(pluggable(), accelerator=Accelerator.KVM)) as made:
        await booted(made)
        yield made


async def booted(qemu: Pluggable) -> None:
    await qemu.tell(commands.cont())
    fake(qemu).switches.has_booted = True
    await qemu.look()  # its driver takes the memory that it is offered
    qemu.events.clear()


def fake(qemu: Pluggable) -> FakeQemu:
    assert qemu.fake is not None
    return qemu.fake


def told(qemu: Pluggable) -> list[object]:
    return [(each["event"], each.get("data")) for each in qemu.events]


async def next_cpu(qemu: Pluggable) -> Command:
    slots = (await qemu.look()).cpus
    index = next(index for index, each in enumerate(slots) if each.path is None)
    return commands.device_add({"driver": slots[index].driver, "id": f"cpu-{index}", **slots[index].properties})


async def test_a_disk_is_there_at_the_first_look_and_gone_at_the_second(qemu: Pluggable) -> None:
    await qemu.tell(commands.device_del("disk-root"))
    assert "disk-root" in (await qemu.look()).devices

    found = await qemu.look()
    assert "disk-root" not in found.devices
    assert found.drive_of("disk-root") is None
    path = "/machine/peripheral/disk-root"
    assert told(qemu) == [
        ("DEVICE_DELETED", {"path": f"{path}/virtio-backend"}),
        ("DEVICE_DELETED", {"device": "disk-root", "path": path}),
    ]


async def test_what_left_may_be_in_use_for_one_look_more(qemu: Pluggable) -> None:
    fake(qemu).switches.lingers = True
    await qemu.tell(commands.device_del("nic-lan"))
    await qemu.look()

    found = await qemu.look()
    assert "nic-lan" not in found.devices
    assert "nic-lan" in (await qemu.look()).interfaces or qemu.heard("DEVICE_DELETED", device="nic-lan")
    assert "nic-lan" not in (await qemu.look()).interfaces
    assert "net-lan" in (await qemu.look()).netdevs


async def test_a_request_that_nobody_heard_is_lost_until_it_is_made_again(qemu: Pluggable) -> None:
    fake(qemu).switches.has_booted = False
    await qemu.tell(commands.device_del("disk-root"))
    fake(qemu).switches.has_booted = True
    await qemu.look()
    await qemu.look()
    assert "disk-root" in (await qemu.look()).devices

    await qemu.tell(commands.device_del("disk-root"))
    await qemu.look()
    assert "disk-root" not in (await qemu.look()).devices


async def test_a_guest_that_stands_still_answers_when_it_runs_again(qemu: Pluggable) -> None:
    await qemu.tell(commands.stop())
    await qemu.tell(commands.device_del("disk-root"))
    await qemu.look()
    assert "disk-root" in (await qemu.look()).devices

    await qemu.tell(commands.cont())
    await qemu.look()
    assert "disk-root" not in (await qemu.look()).devices


async def test_a_guest_may_not_answer_at_all(qemu: Pluggable) -> None:
    fake(qemu).switches.lets_go = False
    await qemu.tell(commands.device_del("disk-root"))
    await qemu.look()

    assert "disk-root" in (await qemu.look()).devices
    fake(qemu).guest_answers()
    assert "disk-root" not in (await qemu.look()).devices


async def test_a_reset_by_the_guest_frees_what_it_was_asked_for(qemu: Pluggable) -> None:
    fake(qemu).switches.lets_go = False
    await qemu.tell(commands.device_del("disk-root"))
    fake(qemu).guest_resets()

    assert qemu.heard("RESET", guest=True)
    assert "disk-root" not in (await qemu.look()).devices


async def test_a_module_is_let_go_with_acpis_words(qemu: Pluggable) -> None:
    await qemu.tell(commands.object_add(dimm_object(DIMM)))
    await qemu.tell(commands.device_add(dimm_option(DIMM)))
    await qemu.tell(commands.device_del("dimm-0"))
    await qemu.look()

    slot = {"slot": "0", "slot-type": "DIMM"}
    assert told(qemu) == [
        ("ACPI_DEVICE_OST", {"info": {"device": "dimm-0", "source": 1, "status": 0, **slot}}),
        ("ACPI_DEVICE_OST", {"info": {"device": "dimm-0", "source": 3, "status": 0x84, **slot}}),
        ("DEVICE_DELETED", {"device": "dimm-0", "path": "/machine/peripheral/dimm-0"}),
        ("ACPI_DEVICE_OST", {"info": {"source": 3, "status": 0, **slot}}),
    ]
    await qemu.tell(commands.object_del("mem-0"))


async def test_a_module_in_use_is_refused_in_acpis_words_and_a_reset_changes_nothing(qemu: Pluggable) -> None:
    fake(qemu).switches.refuses = True
    await qemu.tell(commands.object_add(dimm_object(DIMM)))
    await qemu.tell(commands.device_add(dimm_option(DIMM)))
    await qemu.tell(commands.device_del("dimm-0"))
    await qemu.look()

    words = [parse_event(each) for each in qemu.events]
    refusals = [ejection_refusal(each) for each in words if isinstance(each, AcpiOst)]
    assert refusals == [None, None, "it is busy (_OST status 0x82)"]
    await qemu.tell(commands.system_reset())
    assert "dimm-0" in (await qemu.look()).devices


async def test_a_processor_goes_without_being_named(qemu: Pluggable) -> None:
    await qemu.tell(await next_cpu(qemu))
    await qemu.tell(commands.device_del("cpu-2"))
    await qemu.look()

    assert (await qemu.look()).cpus[2].path is None
    assert not qemu.heard("DEVICE_DELETED", device="cpu-2")
    assert qemu.heard("DEVICE_DELETED", path="/machine/peripheral/cpu-2/lapic")
    assert "Boot CPU is unpluggable" in await qemu.refusal(commands.device_del("/machine/unattached/device[0]"))
    await qemu.tell(await next_cpu(qemu))


async def test_under_tcg_qemu_dies_of_what_is_plugged_after_a_processor_left() -> None:
    async with in_memory(pluggable()) as qemu:
        await booted(qemu)
        await qemu.tell(await next_cpu(qemu))
        await qemu.tell(commands.device_del("cpu-2"))
        await qemu.look()
        again = await next_cpu(qemu)

        with pytest.raises(Unknown, match="the monitor broke off"):
            await qemu.tell(again)


async def test_virtio_mem_gives_what_the_driver_takes(qemu: Pluggable) -> None:
    await qemu.tell(commands.qom_set("/machine/peripheral/memory", "requested-size", 64 * MIB))
    await qemu.look()

    assert (await qemu.look()).plugged_memory_bytes == 64 * MIB
    assert qemu.heard("MEMORY_DEVICE_SIZE_CHANGE", id="memory", size=64 * MIB)
    fake(qemu).switches.takes_memory = False
    await qemu.tell(commands.qom_set("/machine/peripheral/memory", "requested-size", 96 * MIB))
    await qemu.look()
    assert (await qemu.look()).plugged_memory_bytes == 64 * MIB


async def test_descriptors_are_taken_by_the_backend_that_names_them(qemu: Pluggable) -> None:
    fake(qemu).take_fd("tap-0")
    fake(qemu).take_fd("tap-1")
    await qemu.tell(commands.netdev_add({"type": "tap", "id": "net-tap", "fds": "tap-0:tap-1"}))
    assert fake(qemu).fds == set()

    fake(qemu).take_fd("left")
    await qemu.tell(commands.closefd("left"))
    assert fake(qemu).fds == set()

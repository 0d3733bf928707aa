"""Real QEMUs take what the command line says of growth, and grow by the same options while they run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guestlet.guest.resolve_memory import ADDRESSES_MAX_BYTES
from guestlet.pci.compare import compare
from guestlet.pci.layout import Family
from guestlet.qemu.machine import Dimm, Disk, DiskBus, Machine, Memory, VirtioMem
from guestlet.qemu.names import MEMORY_DEVICE, cpu_device
from guestlet.qemu.sections.memory import dimm_object, dimm_option
from guestlet.qemu.sections.network import backend_option, nic_option
from guestlet.qemu.sections.storage import (
    block_nodes,
    disk_option,
    iothread_option,
    node_names,
    scsi_controller_option,
)
from sandbox.qemu import QemuBuild, ensure_qemu, ensure_system_qemu
from unit.qemu.real_qemu import RealQemu, make_image, real_qemu
from unit.qemu.sample_machines import MIB, bare, complete, disk, empty_drive, file_of, growing, laid_out, nic

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(120)]

GIB = 1024 * MIB
FAMILIES = tuple(Family)


@pytest.fixture(scope="module", params=["system", "10"])
def build(request: pytest.FixtureRequest) -> QemuBuild:
    return ensure_system_qemu() if request.param == "system" else ensure_qemu(10)


async def memory_devices(qemu: RealQemu) -> dict[str, dict[str, Any]]:
    return {each["data"]["id"]: each["data"] for each in await qemu.ask("query-memory-devices")}


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_machine_that_may_grow_starts_with_what_it_was_given(build: QemuBuild, family: Family) -> None:
    machine = laid_out(growing(complete(family)))
    async with real_qemu(build, machine) as qemu:
        assert compare(machine.pci, await qemu.places()) == ()
        found = (await memory_devices(qemu))[MEMORY_DEVICE]
        assert (found["max-size"], found["requested-size"]) == (384 * MIB, 192 * MIB)
        assert (found["block-size"], found["size"]) == (2 * MIB, 0)  # the guest has taken nothing yet
        summary = await qemu.ask("query-memory-size-summary")
        assert summary["base-memory"] == 128 * MIB
        assert len(await qemu.ask("query-hotpluggable-cpus")) == 4


@pytest.mark.parametrize("family", FAMILIES)
async def test_all_that_may_come_fits_as_modules_beside_virtio_mem(build: QemuBuild, family: Family) -> None:
    """A guest without a driver for virtio-mem gets modules, while the device keeps its addresses."""
    machine = laid_out(growing(bare(family)))
    async with real_qemu(build, machine) as qemu:
        for slot, size in enumerate((128 * MIB, 256 * MIB)):
            await plug_module(qemu, Dimm(slot=slot, size_bytes=size))

        found = await memory_devices(qemu)
        assert {name: found[name]["size"] for name in ("dimm-0", "dimm-1")} == {
            "dimm-0": 128 * MIB,
            "dimm-1": 256 * MIB,
        }


@pytest.mark.parametrize("family", FAMILIES)
async def test_eight_modules_fit(build: QemuBuild, family: Family) -> None:
    machine = bare(family)
    memory = Memory(boot_bytes=128 * MIB, max_bytes=(128 + 8 * 128) * MIB, virtio_mem=None, dimms=())
    async with real_qemu(build, laid_out(replace(machine, memory=memory))) as qemu:
        for slot in range(8):
            await plug_module(qemu, Dimm(slot=slot, size_bytes=128 * MIB))

        assert len(await memory_devices(qemu)) == 8


async def plug_module(qemu: RealQemu, dimm: Dimm) -> None:
    await qemu.ask("object-add", dimm_object(dimm))
    await qemu.ask("device_add", dimm_option(dimm))


async def test_a_machine_with_modules_is_built_again_with_them(build: QemuBuild) -> None:
    machine = growing(bare(Family.Q35))
    modules = tuple(Dimm(slot=slot, size_bytes=128 * MIB) for slot in (0, 3))
    memory = replace(machine.memory, virtio_mem=None, dimms=modules)
    async with real_qemu(build, laid_out(replace(machine, memory=memory))) as qemu:
        found = await memory_devices(qemu)

        assert {name: each["slot"] for name, each in found.items()} == {"dimm-0": 0, "dimm-3": 3}


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_most_memory_that_is_accepted_has_addresses(build: QemuBuild, family: Family) -> None:
    """With every module in place: what the node accepts, QEMU takes under TCG's 40 address bits."""
    grown = (ADDRESSES_MAX_BYTES - GIB) // 2
    memory = Memory(
        boot_bytes=GIB,
        max_bytes=GIB + grown,
        virtio_mem=VirtioMem(max_bytes=grown, block_bytes=2 * MIB, requested_bytes=0),
        dimms=(),
    )
    async with real_qemu(build, laid_out(replace(bare(family), memory=memory))) as qemu:
        assert (await memory_devices(qemu))[MEMORY_DEVICE]["max-size"] == grown


@pytest.mark.parametrize("family", FAMILIES)
async def test_virtio_mem_is_asked_for_more_while_it_runs(build: QemuBuild, family: Family) -> None:
    async with real_qemu(build, laid_out(growing(bare(family)))) as qemu:
        path = f"/machine/peripheral/{MEMORY_DEVICE}"
        await qemu.ask("qom-set", {"path": path, "property": "requested-size", "value": 384 * MIB})

        assert (await memory_devices(qemu))[MEMORY_DEVICE]["requested-size"] == 384 * MIB


@pytest.mark.parametrize("family", FAMILIES)
async def test_cpus_plugged_in_qemus_order_are_those_of_a_start_with_more(build: QemuBuild, family: Family) -> None:
    machine = laid_out(growing(bare(family)))
    async with real_qemu(build, machine) as qemu:
        empty = [each for each in await qemu.ask("query-hotpluggable-cpus") if "qom-path" not in each]
        next_one = empty[-1]
        option = {"driver": next_one["type"], "id": cpu_device(2), **next_one["props"]}
        await qemu.ask("device_add", option)
        plugged = await cpus(qemu)
    async with real_qemu(build, replace(machine, cpu=replace(machine.cpu, count=3))) as qemu:
        assert plugged == await cpus(qemu)


async def cpus(qemu: RealQemu) -> list[tuple[tuple[str, int], ...]]:
    """Places of the CPUs that are there."""
    slots = await qemu.ask("query-hotpluggable-cpus")
    return [tuple(sorted(each["props"].items())) for each in slots if "qom-path" in each]


@pytest.mark.parametrize("family", FAMILIES)
async def test_an_empty_drive_takes_a_medium_and_gives_it_back(build: QemuBuild, family: Family) -> None:
    drives = tuple(empty_drive(f"cd-{bus.lower()}", bus) for bus in (DiskBus.SATA, DiskBus.SCSI))
    machine = laid_out(replace(bare(family), disks=drives))
    async with real_qemu(build, machine) as qemu:
        for drive in drives:
            device, loaded = f"disk-{drive.name}", replace(drive, source=file_of(disk("medium")))
            assert await medium_of(qemu, device) is None
            await add_nodes(qemu, loaded)
            await qemu.ask("blockdev-open-tray", {"id": device, "force": True})
            await qemu.ask("blockdev-insert-medium", {"id": device, "node-name": node_names(loaded)[-1]})
            await qemu.ask("blockdev-close-tray", {"id": device})
            assert await medium_of(qemu, device) == node_names(loaded)[-1]

            await qemu.ask("blockdev-open-tray", {"id": device, "force": True})
            await qemu.ask("blockdev-remove-medium", {"id": device})
            await remove_nodes(qemu, loaded)
            assert await medium_of(qemu, device) is None


async def medium_of(qemu: RealQemu, device: str) -> str | None:
    (drive,) = [each for each in await qemu.ask("query-block") if each["qdev"] == device]
    return drive["inserted"]["node-name"] if "inserted" in drive else None


async def add_nodes(qemu: RealQemu, disk: Disk) -> None:
    make_image(Path(qemu.paths.pools["default"]), file_of(disk), 16 * MIB)
    nodes = block_nodes(disk, qemu.paths)
    assert tuple(each["node-name"] for each in nodes) == node_names(disk)
    for each in nodes:
        await qemu.ask("blockdev-add", each)


async def remove_nodes(qemu: RealQemu, disk: Disk) -> None:
    for name in reversed(node_names(disk)):
        await qemu.ask("blockdev-del", {"node-name": name})


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_running_machine_takes_each_part_by_the_options_of_its_command_line(
    build: QemuBuild, family: Family
) -> None:
    before = laid_out(bare(family))
    disks = (
        replace(disk("data"), io_thread=True),
        disk("fast", DiskBus.NVME),
        replace(disk("slow", DiskBus.SCSI, unit=0), io_thread=True),
    )
    after = replace(before, disks=disks, networks=(nic("lan"),))
    after = laid_out(after, previous=before.pci, hotplug_ports=0)
    async with real_qemu(build, replace(before, pci=replace(after.pci, devices=()))) as qemu:
        for each in disks:
            await plug_disk(qemu, after, each)
        await qemu.ask("netdev_add", backend_option(after.networks[0], ()))
        await qemu.ask("device_add", nic_option(after, after.networks[0]))

        assert compare(after.pci, await qemu.places()) == ()


async def plug_disk(qemu: RealQemu, machine: Machine, disk: Disk) -> None:
    thread = iothread_option(disk)
    if thread is not None:
        await qemu.ask("object-add", thread)
    await add_nodes(qemu, disk)
    if disk.bus is DiskBus.SCSI:
        await qemu.ask("device_add", scsi_controller_option(machine))
    await qemu.ask("device_add", disk_option(machine, disk))

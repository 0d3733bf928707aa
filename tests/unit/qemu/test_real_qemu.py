"""Real QEMUs take the command lines, have every device where it was recorded, and their firmware numbers them all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from guestlet.pci.address import parse_address
from guestlet.pci.compare import compare
from guestlet.pci.layout import DeviceBus, Family, hotplug_ports_free
from guestlet.pci.observed import Numbered, guest_addresses
from guestlet.pci.venues import Venue, slots_of
from guestlet.qemu import commands
from guestlet.qemu.commands import Command
from guestlet.qemu.machine import (
    AioMode,
    CacheMode,
    DiskBus,
    FileSource,
    FirmwareType,
    ImageFormat,
    Machine,
    NicModel,
)
from guestlet.qemu.replies import (
    RunState,
    parse_block,
    parse_cpus,
    parse_name,
    parse_pci,
    parse_status,
    parse_uuid,
    parse_version,
)
from sandbox.qemu import QemuBuild, ensure_qemu, ensure_system_qemu
from unit.qemu.real_qemu import RealQemu, real_qemu
from unit.qemu.sample_machines import bare, complete, disk, laid_out, largest, nic, with_disks_on, with_network

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(120)]

NUMBERED_DEADLINE_S = 90
FAMILIES = tuple(Family)


@pytest.fixture(scope="module", params=["system", "10"])
def build(request: pytest.FixtureRequest) -> QemuBuild:
    return ensure_system_qemu() if request.param == "system" else ensure_qemu(10)


@asynccontextmanager
async def frozen(build: QemuBuild, machine: Machine) -> AsyncIterator[RealQemu]:
    """QEMU under ``-S``, its devices where the layout says, and its ``query-pci`` blind."""
    async with real_qemu(build, machine) as qemu:
        assert compare(machine.pci, await qemu.places()) == ()
        if machine.pci.controllers:
            assert await numbering(qemu) is None
        yield qemu


async def numbering(qemu: RealQemu) -> Numbered | None:
    return guest_addresses(qemu.machine.pci, parse_pci(await qemu.ask("query-pci")))


async def numbering_of_running(qemu: RealQemu) -> Numbered:
    await send(qemu, commands.cont())
    async with asyncio.timeout(NUMBERED_DEADLINE_S):
        while True:
            numbered = await numbering(qemu)
            if numbered is not None:
                return numbered


async def send(qemu: RealQemu, command: Command) -> object:
    return await qemu.ask(command.name, command.arguments)


def assert_all_seen(qemu: RealQemu, numbered: Numbered) -> None:
    layout = qemu.machine.pci
    assert (numbered.missing, numbered.strangers) == ((), ())
    ours = {*(each.id for each in layout.controllers), *(each.id for each in layout.devices)}
    assert numbered.seen.keys() == ours
    assert len({each.guest_address for each in numbered.seen.values()}) == len(numbered.seen)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bus", tuple(DiskBus))
async def test_disks_on_every_bus_and_both_networks(build: QemuBuild, family: Family, bus: DiskBus) -> None:
    machine = laid_out(with_network(NicModel.E1000, with_disks_on(bus, complete(family))))
    machine = replace(machine, networks=tuple(replace(each, boot_order=None) for each in machine.networks))
    async with frozen(build, without_forwards(machine)) as qemu:
        blocks = parse_block(await qemu.ask("query-block"))
        assert {each.node for each in blocks if each.node.startswith("disk-")} == {"disk-root", "disk-data"}
        assert_all_seen(qemu, await numbering_of_running(qemu))


@pytest.mark.parametrize("device_bus", tuple(DeviceBus))
@pytest.mark.parametrize("family", FAMILIES)
async def test_thirty_disks_and_eight_networks(build: QemuBuild, family: Family, device_bus: DeviceBus) -> None:
    machine = laid_out(largest(family), device_bus=device_bus, hotplug_ports=32)
    async with frozen(build, machine) as qemu:
        assert_all_seen(qemu, await numbering_of_running(qemu))
        await assert_every_region_gets_an_address(qemu)


@pytest.mark.parametrize("device_bus", tuple(DeviceBus))
@pytest.mark.parametrize("family", FAMILIES)
async def test_thirty_disks_and_eight_networks_all_virtio(
    build: QemuBuild, family: Family, device_bus: DeviceBus
) -> None:
    disks = tuple(disk(f"d{index}") for index in range(30))
    networks = tuple(nic(f"n{index}", number=index + 1) for index in range(8))
    machine = laid_out(replace(complete(family), disks=disks, networks=networks), device_bus=device_bus)
    async with frozen(build, machine) as qemu:
        assert_all_seen(qemu, await numbering_of_running(qemu))
        await assert_every_region_gets_an_address(qemu)


@pytest.mark.parametrize("family", FAMILIES)
async def test_uefi_numbers_the_same_devices(build: QemuBuild, family: Family) -> None:
    machine = laid_out(with_disks_on(DiskBus.VIRTIO, complete(family, FirmwareType.UEFI)))
    async with frozen(build, machine) as qemu:
        assert_all_seen(qemu, await numbering_of_running(qemu))


@pytest.mark.parametrize("device_bus", tuple(DeviceBus))
@pytest.mark.parametrize("family", FAMILIES)
async def test_every_free_default_place_takes_a_device_while_the_guest_runs(
    build: QemuBuild, family: Family, device_bus: DeviceBus
) -> None:
    machine = laid_out(replace(bare(family), disks=(disk("root"),)), device_bus=device_bus, hotplug_ports=28)
    disk_bus = {each.id: each.address for each in machine.pci.devices}["disk-root"].bus
    venues = (tuple(slots_of(venue, machine.pci.controllers)) for venue in Venue)
    default = next(places for places in venues if any(each.bus == disk_bus for each in places))
    free = [each for each in default if each not in {one.address for one in machine.pci.devices}]
    assert len(free) == hotplug_ports_free(machine.pci)[1]
    async with frozen(build, machine) as qemu:
        await numbering_of_running(qemu)
        for index, each in enumerate(free):
            added = {"driver": "virtio-rng-pci", "id": f"rng-{index}", "bus": each.bus, "addr": each.on_bus}
            await qemu.ask("device_add", added)
        places = await qemu.places()
        assert [places[f"rng-{index}"] for index in range(len(free))] == [(each.on_bus, each.bus) for each in free]


async def test_explicit_addresses_with_functions_of_one_slot(build: QemuBuild) -> None:
    machine = replace(bare(Family.Q35), disks=(disk("a"), disk("b")), networks=(nic("lan"),))
    chosen = {"disk-a": "pcie.0:05.0", "disk-b": "pcie.0:05.3", "nic-lan": "pcie-bridge:1f.0"}
    machine = laid_out(machine, explicit={name: parse_address(text) for name, text in chosen.items()})
    async with frozen(build, machine) as qemu:
        numbered = await numbering_of_running(qemu)
        assert numbered.seen["disk-b"].guest_address == "0000:00:05.3"
        assert_all_seen(qemu, numbered)


async def test_a_reset_makes_query_pci_blind_again(build: QemuBuild) -> None:
    machine = laid_out(replace(bare(Family.Q35), disks=(disk("root"),)))
    async with frozen(build, machine) as qemu:
        before = await numbering_of_running(qemu)
        await send(qemu, commands.stop())
        await send(qemu, commands.system_reset())

        assert await numbering(qemu) is None
        assert compare(machine.pci, await qemu.places()) == ()
        assert await numbering_of_running(qemu) == before


@pytest.mark.parametrize("cache", tuple(CacheMode))
@pytest.mark.parametrize("aio", tuple(AioMode))
async def test_every_cache_and_aio_mode_starts(build: QemuBuild, cache: CacheMode, aio: AioMode) -> None:
    if aio is AioMode.NATIVE and cache not in (CacheMode.NONE, CacheMode.DIRECTSYNC):
        return  # refused by the API: Linux AIO needs O_DIRECT
    machine = laid_out(replace(bare(Family.Q35), disks=(replace(disk("root"), cache=cache, aio=aio),)))
    async with frozen(build, machine) as qemu:
        assert parse_status(await qemu.ask("query-status")).run_state is RunState.PRELAUNCH


async def test_overlays_iothreads_and_the_longest_names(build: QemuBuild) -> None:
    overlay = FileSource(
        pool="default",
        image="a.qcow2",
        format=ImageFormat.QCOW2,
        backing_image="base.raw",
        backing_format=ImageFormat.RAW,
    )
    name = "a" * 32
    disks = (
        replace(disk(name), source=overlay, io_thread=True, read_only=True, serial="long"),
        replace(disk("scsi"), io_thread=True),
        replace(disk("data", DiskBus.SCSI, unit=0), io_thread=True),
    )
    machine = laid_out(replace(complete(Family.Q35), disks=disks))
    async with frozen(build, machine) as qemu:
        threads = {each["id"] for each in await qemu.ask("query-iothreads")}
        assert threads == {f"iothread-{name}", "iothread-scsi", "scsi-iothread"}


async def test_a_link_is_pulled_before_the_guest_runs(build: QemuBuild) -> None:
    machine = laid_out(replace(bare(Family.Q35), networks=(nic("lan"),)))
    async with frozen(build, machine) as qemu:
        await send(qemu, commands.set_link("nic-lan", up=False))
        await send(qemu, commands.set_link("nic-lan", up=True))


async def test_what_qemu_says_of_itself_can_be_read(build: QemuBuild) -> None:
    machine = laid_out(bare(Family.Q35))
    async with frozen(build, machine) as qemu:
        assert parse_name(await qemu.ask("query-name")) == "default/demo"
        assert parse_uuid(await qemu.ask("query-uuid")) == machine.uuid
        assert parse_version(await qemu.ask("query-version")).major >= 7
        assert [each.index for each in parse_cpus(await qemu.ask("query-cpus-fast"))] == [0, 1]


def without_forwards(machine: Machine) -> Machine:
    """Host ports are this machine's: two tests at once must not want the same."""
    return replace(machine, networks=tuple(replace(each, backend=nic("x").backend) for each in machine.networks))


async def assert_every_region_gets_an_address(qemu: RealQemu) -> None:
    """The firmware, once it is done, has given every memory and port region of every device an address."""
    async with asyncio.timeout(NUMBERED_DEADLINE_S):
        while True:
            (root,) = await qemu.ask("query-pci")
            if all(region["address"] != -1 for entry in entries(root["devices"]) for region in entry["regions"]):
                return


def entries(devices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    behind = [entries(each["pci_bridge"].get("devices", [])) for each in devices if "pci_bridge" in each]
    return [*devices, *(entry for several in behind for entry in several)]

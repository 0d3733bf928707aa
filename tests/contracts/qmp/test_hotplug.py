"""One set of promises for changes of a running machine, held against the fake QEMU and against real ones.

Nothing here boots a system: what only a guest's kernel does is shown by the end-to-end tests.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from contracts.qmp.hotplug_stage import Pluggable, for_real, in_memory, pluggable
from guestlet.pci.layout import Family
from guestlet.pci.observed import PciFunction
from guestlet.qemu import commands
from guestlet.qemu.commands import Command
from guestlet.qemu.inventory import Inventory
from guestlet.qemu.machine import Dimm, Disk, DiskBus, ImageFormat, Machine, NicModel, Throttle
from guestlet.qemu.options import OptionValue
from guestlet.qemu.replies import RunState, parse_pci
from guestlet.qemu.sections.memory import dimm_object, dimm_option
from guestlet.qemu.sections.storage import disk_option
from sandbox.qemu import ensure_qemu, ensure_system_qemu
from unit.qemu.sample_machines import MIB, complete, disk, file_of, growing, laid_out, nic, with_disks_on, with_network

Option = dict[str, OptionValue]
REAL = [pytest.mark.qemu, pytest.mark.slow]
KINDS = ["fake", pytest.param("system", marks=REAL), pytest.param("10", marks=REAL)]
REAL_KINDS = [pytest.param("system", marks=REAL), pytest.param("10", marks=REAL)]


def opened(kind: str, machine: Machine) -> AbstractAsyncContextManager[Pluggable]:
    if kind == "fake":
        return in_memory(machine)
    return for_real(ensure_system_qemu() if kind == "system" else ensure_qemu(10), machine)


@pytest.fixture(params=KINDS)
async def qemu(request: pytest.FixtureRequest) -> AsyncIterator[Pluggable]:
    async with opened(request.param, pluggable()) as made:
        yield made


def threaded(name: str) -> Disk:
    return replace(disk(name), io_thread=True)


def cdrom(name: str) -> Disk:
    source = replace(file_of(disk(name)), image=f"{name}.iso", format=ImageFormat.RAW)
    return replace(disk(name, DiskBus.SCSI, unit=5), source=source, cdrom=True, read_only=True)


# what is there


@pytest.mark.parametrize("kind", REAL_KINDS)
@pytest.mark.parametrize("family", tuple(Family))
@pytest.mark.parametrize("bus", tuple(DiskBus))
async def test_the_fake_has_what_a_real_one_has_of_the_same_machine(kind: str, family: Family, bus: DiskBus) -> None:
    machine = with_network(NicModel.E1000, with_disks_on(bus, growing(complete(family))))
    networks = tuple(replace(each, backend=nic("x").backend) for each in machine.networks)
    machine = laid_out(replace(machine, networks=networks))
    async with opened(kind, machine) as real, opened("fake", machine) as fake:
        assert comparable(await fake.look()) == comparable(await real.look())
        assert await bus_of_root(fake) == await bus_of_root(real)


@pytest.mark.parametrize("kind", REAL_KINDS)
@pytest.mark.parametrize("family", tuple(Family))
async def test_the_fakes_firmware_numbers_what_a_real_one_numbers(kind: str, family: Family) -> None:
    machine = pluggable(family)
    async with opened(kind, machine) as real, opened("fake", machine) as fake:
        for each in (real, fake):
            await each.runs_a_while()
        assert await ours(fake) == await ours(real)


async def ours(qemu: Pluggable) -> set[tuple[object, ...]]:
    """Every function with an id, wherever it is."""
    left = list(parse_pci(await qemu.tell(commands.query_pci())))
    found: set[tuple[object, ...]] = set()
    while left:
        each = left.pop()
        left.extend(each.behind)
        if each.qdev_id:
            numbers = (each.bus, each.slot, each.function, each.secondary_bus)
            found.add((each.qdev_id, *numbers, each.vendor, each.device, each.device_class))
    return found


def comparable(found: Inventory) -> Inventory:
    """What does not depend on where the images lie, or on how much was translated."""
    nodes = {
        name: replace(
            each, file=each.file.rpartition("/")[2], size_bytes=0 if each.driver == "file" else each.size_bytes
        )
        for name, each in found.nodes.items()
    }
    cpus = tuple(replace(each, path="there" if each.path else None) for each in found.cpus)
    drives = tuple(sorted(found.drives, key=lambda each: each.qdev))
    return replace(found, nodes=nodes, cpus=cpus, drives=drives, translation_cache_used=None)


async def bus_of_root(qemu: Pluggable) -> set[PciFunction]:
    """The functions of the root bus that guestlet places there; the chipset's own have no id."""
    functions = parse_pci(await qemu.tell(commands.query_pci()))
    return {each for each in functions if each.qdev_id or each.device_class == 0x0106}


# disks


async def test_a_disk_comes_part_by_part(qemu: Pluggable) -> None:
    before = await qemu.look()
    added = threaded("data")
    await qemu.plug_disk(added)

    found = await qemu.look()
    assert found.devices - before.devices == {"disk-data"}
    assert found.objects - before.objects == {"iothread-data"}
    assert found.nodes.keys() - before.nodes.keys() == {"disk-data", "disk-data-file"}
    drive = found.drive_of("disk-data")
    assert drive is not None
    assert (drive.node, drive.throttle, drive.removable) == ("disk-data", None, False)
    place = {each.id: each.address for each in qemu.with_disk(added).pci.devices}["disk-data"]
    assert await qemu.tell(commands.device_address("disk-data")) == place.on_bus.lstrip("0").rjust(4, "0")


async def test_nodes_are_one_of_a_name_and_stay_while_they_are_used(qemu: Pluggable) -> None:
    again = {"driver": "file", "node-name": "disk-root-file", "filename": f"{qemu.paths.pools['default']}/root.qcow2"}
    assert "Duplicate nodes with node-name='disk-root-file'" in await qemu.refusal(commands.blockdev_add(again))
    assert "Node disk-root is in use" in await qemu.refusal(commands.blockdev_del("disk-root"))
    assert "Block device disk-root-file is in use" in await qemu.refusal(commands.blockdev_del("disk-root-file"))
    assert "Failed to find node with node-name='none'" in await qemu.refusal(commands.blockdev_del("none"))


async def test_an_image_is_opened_once_for_writing(qemu: Pluggable) -> None:
    file = {"driver": "file", "node-name": "again-file", "filename": f"{qemu.paths.pools['default']}/root.qcow2"}
    await qemu.tell(commands.blockdev_add(file))
    again = {"driver": "qcow2", "node-name": "again", "file": "again-file"}
    assert 'Failed to get "write" lock' in await qemu.refusal(commands.blockdev_add(again))

    second = {"driver": "qcow2", "node-name": "again", "file": "disk-root-file"}
    assert "Permission conflict on node 'disk-root-file'" in await qemu.refusal(commands.blockdev_add(second))
    missing = {"driver": "qcow2", "node-name": "again", "file": "none"}
    assert "Cannot find device='none' nor node-name='none'" in await qemu.refusal(commands.blockdev_add(missing))
    await qemu.tell(commands.blockdev_del("again-file"))
    assert not {"again", "again-file"} & (await qemu.look()).nodes.keys()


REFUSED_DEVICES: dict[str, tuple[Option, str]] = {
    "a model that there is not": ({"driver": "no-such", "id": "x"}, "'no-such' is not a valid device model name"),
    "an id that is taken": ({"id": "disk-root"}, "Duplicate device ID 'disk-root'"),
    "a slot that is taken": (
        {"bus": "port-0", "addr": "00.0"},
        "PCI: slot 0 function 0 not available for virtio-blk-pci, in use by virtio-blk-pci,id=disk-root",
    ),
    "a bus that takes nothing": ({"bus": "pcie.0"}, "Bus 'pcie.0' does not support hotplugging"),
    "a bus that there is not": ({"bus": "port-99"}, "Bus 'port-99' not found"),
    "a node that there is not": ({"drive": "none"}, "Property 'virtio-blk-device.drive' can't find value 'none'"),
    "a node that is taken": ({"drive": "disk-root"}, "Permission conflict on node 'disk-root'"),
    "an iothread that there is not": ({"iothread": "none"}, "DeviceNotFound: Device 'none' not found"),
    "a later function": (
        {"bus": "port-0", "addr": "00.3"},
        "PCI: slot 0 function 0 already occupied by virtio-blk-pci, new func virtio-blk-pci cannot be exposed",
    ),
}


@pytest.mark.parametrize("what", REFUSED_DEVICES)
async def test_a_device_that_is_refused_leaves_nothing(qemu: Pluggable, what: str) -> None:
    changes, why = REFUSED_DEVICES[what]
    added = disk("data")
    await qemu.add_nodes(added)
    before = await qemu.look()
    option = {**disk_option(qemu.with_disk(added), added), **changes}

    assert why in await qemu.refusal(commands.device_add(option))
    assert await qemu.look() == before
    await qemu.tell(commands.device_add(disk_option(qemu.with_disk(added), added)))


async def test_a_second_disk_of_one_unit_is_refused(qemu: Pluggable) -> None:
    added = disk("data", DiskBus.SCSI, unit=1)
    await qemu.add_nodes(added)
    option = disk_option(qemu.with_disk(added), added)

    assert "lun already used by 'disk-scsi'" in await qemu.refusal(commands.device_add(option))
    assert "Bus 'scsi9.0' not found" in await qemu.refusal(commands.device_add({**option, "bus": "scsi9.0"}))


async def test_a_device_stays_until_the_guest_lets_go_and_a_reset_ends_the_wait(qemu: Pluggable) -> None:
    assert "DeviceNotFound: Device 'none' not found" in await qemu.refusal(commands.device_del("none"))
    await qemu.tell(commands.device_del("disk-root"))
    pending = "Device disk-root is already in the process of unplug"
    assert pending in await qemu.refusal(commands.device_del("disk-root"))
    found = await qemu.look()
    assert "disk-root" in found.devices
    assert found.drive_of("disk-root") is not None
    assert "in use" in await qemu.refusal(commands.blockdev_del("disk-root"))

    await qemu.tell(commands.system_reset())
    await qemu.hears("DEVICE_DELETED", device="disk-root")
    found = await qemu.look()
    assert "disk-root" not in found.devices
    assert found.drive_of("disk-root") is None
    assert qemu.heard("DEVICE_DELETED", path="/machine/peripheral/disk-root/virtio-backend")
    await qemu.tell(commands.blockdev_del("disk-root"))
    await qemu.tell(commands.blockdev_del("disk-root-file"))


async def test_a_guest_that_ran_may_be_asked_again(qemu: Pluggable) -> None:
    await qemu.runs_a_while()
    await qemu.tell(commands.stop())
    await qemu.tell(commands.device_del("disk-root"))
    await qemu.tell(commands.device_del("disk-root"))

    assert "disk-root" in (await qemu.look()).devices


async def test_a_scsi_disk_leaves_at_once_and_its_node_a_little_later(qemu: Pluggable) -> None:
    await qemu.tell(commands.device_del("disk-scsi"))

    found = await qemu.look()
    assert "disk-scsi" not in found.devices
    assert found.drive_of("disk-scsi") is not None or qemu.heard("DEVICE_DELETED", device="disk-scsi")
    await qemu.hears("DEVICE_DELETED", device="disk-scsi")
    assert (await qemu.look()).drive_of("disk-scsi") is None
    await qemu.tell(commands.blockdev_del("disk-scsi"))


async def test_what_sits_on_the_root_bus_never_leaves(qemu: Pluggable) -> None:
    assert "Bus 'pcie.0' does not support hotplugging" in await qemu.refusal(commands.device_del("port-0"))


async def test_a_disk_takes_any_size_that_is_whole_sectors(qemu: Pluggable) -> None:
    await qemu.tell(commands.block_resize("disk-root", 32 * MIB))
    assert (await qemu.look()).nodes["disk-root"].size_bytes == 32 * MIB

    await qemu.tell(commands.block_resize("disk-root", 16 * MIB))
    assert (await qemu.look()).nodes["disk-root"].size_bytes == 16 * MIB
    assert "The new size must be a multiple of 512" in await qemu.refusal(commands.block_resize("disk-root", 1000))
    assert "Cannot find device='' nor node-name='none'" in await qemu.refusal(commands.block_resize("none", 512))


async def test_a_node_that_a_job_uses_is_busy(qemu: Pluggable) -> None:
    target = disk("copy")
    await qemu.add_nodes(target)
    if qemu.fake is not None:
        qemu.fake.blocks.jobs["copying"] = ("disk-root", "disk-copy")
    else:
        mirror = {"job-id": "copying", "device": "disk-root", "target": "disk-copy", "sync": "full"}
        await qemu.tell(Command(name="blockdev-mirror", arguments={**mirror, "filter-node-name": "copying-filter"}))

    assert (await qemu.look()).busy_nodes - {"copying-filter"} == {"disk-root", "disk-copy"}
    await qemu.refusal(commands.block_resize("disk-root", 64 * MIB))
    assert "Node disk-copy is in use" in await qemu.refusal(commands.blockdev_del("disk-copy"))


# limits and media


async def test_limits_are_set_by_the_name_that_the_bus_wants_and_are_really_removed(qemu: Pluggable) -> None:
    asked = Throttle(iops=100, iops_burst=300, bandwidth_bytes=MIB, bandwidth_burst_bytes=None)
    for name, bus in (("disk-root", DiskBus.VIRTIO), ("disk-scsi", DiskBus.SCSI)):
        device = commands.throttled_device(name, bus)
        await qemu.tell(commands.block_set_io_throttle(device, asked, name))
        assert throttle_of(await qemu.look(), name) == asked

        await qemu.tell(commands.block_set_io_throttle(device, replace(asked, bandwidth_bytes=None), name))
        assert throttle_of(await qemu.look(), name) == replace(asked, bandwidth_bytes=None)
        await qemu.tell(commands.block_set_io_throttle(device, None, name))
        assert throttle_of(await qemu.look(), name) is None


async def test_limits_are_refused_where_there_is_nothing_to_limit(qemu: Pluggable) -> None:
    asked = Throttle(iops=100, iops_burst=None, bandwidth_bytes=None, bandwidth_burst_bytes=None)
    wrong = commands.block_set_io_throttle("disk-root", asked, "disk-root")
    assert "Device does not have a block device backend" in await qemu.refusal(wrong)
    empty = commands.block_set_io_throttle("disk-cd", asked, "disk-cd")
    assert "Device has no medium" in await qemu.refusal(empty)
    missing = commands.block_set_io_throttle("none", asked, "none")
    assert "DeviceNotFound: Device 'none' not found" in await qemu.refusal(missing)


async def test_limits_end_with_their_device(qemu: Pluggable) -> None:
    asked = Throttle(iops=100, iops_burst=None, bandwidth_bytes=None, bandwidth_burst_bytes=None)
    await qemu.tell(commands.block_set_io_throttle("disk-scsi", asked, "disk-scsi"))
    await qemu.tell(commands.device_del("disk-scsi"))
    await qemu.hears("DEVICE_DELETED", device="disk-scsi")
    again = qemu.machine.disks[1]
    await qemu.tell(commands.device_add(disk_option(qemu.machine, again)))

    assert throttle_of(await qemu.look(), "disk-scsi") is None


async def test_limits_of_a_drive_wait_for_its_next_medium(qemu: Pluggable) -> None:
    asked = Throttle(iops=100, iops_burst=None, bandwidth_bytes=None, bandwidth_burst_bytes=None)
    for name in ("film", "other"):
        await qemu.add_nodes(cdrom(name))
    await qemu.tell(commands.blockdev_open_tray("disk-cd", force=True))
    await qemu.tell(commands.blockdev_insert_medium("disk-cd", "disk-film"))
    await qemu.tell(commands.block_set_io_throttle("disk-cd", asked, "disk-cd"))

    await qemu.tell(commands.blockdev_remove_medium("disk-cd"))
    assert throttle_of(await qemu.look(), "disk-cd") is None
    await qemu.tell(commands.blockdev_insert_medium("disk-cd", "disk-other"))
    assert throttle_of(await qemu.look(), "disk-cd") == asked


def throttle_of(found: Inventory, device: str) -> Throttle | None:
    drive = found.drive_of(device)
    assert drive is not None
    return drive.throttle


async def test_a_medium_is_changed_through_an_open_tray(qemu: Pluggable) -> None:
    medium = cdrom("film")
    await qemu.add_nodes(medium)
    insert = commands.blockdev_insert_medium("disk-cd", "disk-film")
    assert "Tray of the device is not open" in await qemu.refusal(insert)
    await qemu.tell(commands.blockdev_open_tray("disk-cd", force=True))
    await qemu.tell(commands.blockdev_open_tray("disk-cd", force=True))
    await qemu.tell(insert)
    assert "Node 'disk-film' is already in use" in await qemu.refusal(insert)
    await qemu.add_nodes(cdrom("other"))
    other = commands.blockdev_insert_medium("disk-cd", "disk-other")
    assert "There already is a medium in the device" in await qemu.refusal(other)
    await qemu.tell(commands.blockdev_close_tray("disk-cd"))

    drive = (await qemu.look()).drive_of("disk-cd")
    assert drive is not None
    assert (drive.node, drive.tray_open, drive.removable) == ("disk-film", False, True)
    assert [each.get("data") for each in qemu.events if each["event"] == "DEVICE_TRAY_MOVED"] == [
        {"device": "", "tray-open": True, "id": "disk-cd"},
        {"device": "", "tray-open": False, "id": "disk-cd"},
    ]


async def test_a_medium_is_taken_out_of_an_open_tray(qemu: Pluggable) -> None:
    medium = cdrom("film")
    await qemu.add_nodes(medium)
    await qemu.tell(commands.blockdev_open_tray("disk-cd", force=True))
    await qemu.tell(commands.blockdev_insert_medium("disk-cd", "disk-film"))
    await qemu.tell(commands.blockdev_close_tray("disk-cd"))
    remove = commands.blockdev_remove_medium("disk-cd")
    assert "Tray of device 'disk-cd' is not open" in await qemu.refusal(remove)
    assert "Node disk-film is in use" in await qemu.refusal(commands.blockdev_del("disk-film"))
    await qemu.tell(commands.blockdev_open_tray("disk-cd", force=True))
    await qemu.tell(remove)
    await qemu.tell(remove)

    drive = (await qemu.look()).drive_of("disk-cd")
    assert drive is not None
    assert (drive.node, drive.tray_open) == ("", True)
    await qemu.tell(commands.blockdev_del("disk-film"))


async def test_only_a_drive_has_a_tray(qemu: Pluggable) -> None:
    disk_tray = commands.blockdev_open_tray("disk-scsi", force=True)
    assert "Device 'disk-scsi' is not removable" in await qemu.refusal(disk_tray)
    no_drive = commands.blockdev_open_tray("disk-root", force=True)
    assert "Device does not have a block device backend" in await qemu.refusal(no_drive)
    taken = commands.blockdev_insert_medium("disk-cd", "disk-root")
    assert "Node 'disk-root' is already in use" in await qemu.refusal(taken)
    missing = commands.blockdev_insert_medium("disk-cd", "none")
    assert "Node 'none' not found" in await qemu.refusal(missing)


# interfaces and objects


async def test_an_interface_comes_with_its_backend(qemu: Pluggable) -> None:
    before = await qemu.look()
    await qemu.plug_nic(nic("more", number=7))

    found = await qemu.look()
    assert found.netdevs - before.netdevs == {"net-more"}
    assert found.interfaces - before.interfaces == {"nic-more"}
    assert found.devices - before.devices == {"nic-more"}
    await qemu.tell(commands.set_link("nic-more", up=False))


async def test_backends_are_one_of_a_name_and_serve_one_interface(qemu: Pluggable) -> None:
    user = {"type": "user", "id": "net-lan"}
    assert "Duplicate ID 'net-lan'" in await qemu.refusal(commands.netdev_add(user))
    card = {"driver": "virtio-net-pci", "id": "nic-x", "bus": "port-3", "netdev": "net-lan"}
    taken = "Property 'virtio-net-device.netdev' can't take value 'net-lan', it's in use"
    assert taken in await qemu.refusal(commands.device_add(card))
    missing = "Property 'virtio-net-device.netdev' can't find value 'none'"
    assert missing in await qemu.refusal(commands.device_add({**card, "netdev": "none"}))
    tap = {"type": "tap", "id": "net-tap", "fd": "none"}
    assert "File descriptor named 'none' has not been found" in await qemu.refusal(commands.netdev_add(tap))
    assert "File descriptor named 'none' not found" in await qemu.refusal(commands.closefd("none"))


async def test_a_backend_is_taken_even_from_under_its_interface(qemu: Pluggable) -> None:
    await qemu.tell(commands.netdev_del("net-lan"))

    assert "DeviceNotFound: Device 'net-lan' not found" in await qemu.refusal(commands.netdev_del("net-lan"))
    assert "nic-lan" in (await qemu.look()).devices


async def test_an_iothread_is_taken_even_from_under_its_disk(qemu: Pluggable) -> None:
    await qemu.plug_disk(threaded("data"))
    thread = commands.object_del("iothread-data")
    again = commands.object_add({"qom-type": "iothread", "id": "iothread-data"})
    assert "attempt to add duplicate property 'iothread-data' to object" in await qemu.refusal(again)

    await qemu.tell(thread)
    assert "object 'iothread-data' not found" in await qemu.refusal(thread)
    assert "disk-data" in (await qemu.look()).devices


# processors and memory


async def test_processors_come_in_the_order_in_which_a_start_makes_them(qemu: Pluggable) -> None:
    slots = (await qemu.look()).cpus
    assert [each.path is None for each in slots] == [False, False, True, True]
    first: Option = {"driver": slots[2].driver, "id": "cpu-2", **slots[2].properties}
    await qemu.tell(commands.device_add(first))

    assert [each.path for each in (await qemu.look()).cpus][2:] == ["/machine/peripheral/cpu-2", None]
    assert "cpu-2" in (await qemu.look()).devices
    assert "Duplicate device ID 'cpu-2'" in await qemu.refusal(commands.device_add(first))
    taken = commands.device_add({**first, "id": "cpu-9"})
    assert "CPU[2] with APIC ID 2 exists" in await qemu.refusal(taken)
    beyond = commands.device_add({**first, "id": "cpu-9", "socket-id": 7})
    assert "Invalid CPU socket-id: 7 must be in range 0:1" in await qemu.refusal(beyond)
    other = commands.device_add({**first, "id": "cpu-9", "driver": "kvm64-v1-x86_64-cpu"})
    assert "Invalid CPU type, expected cpu type: 'qemu64-v1-x86_64-cpu'" in await qemu.refusal(other)


async def test_a_guest_without_a_system_keeps_its_processors(qemu: Pluggable) -> None:
    slots = (await qemu.look()).cpus
    await qemu.tell(commands.device_add({"driver": slots[2].driver, "id": "cpu-2", **slots[2].properties}))
    why = "acpi: device unplug request for not supported device type: qemu64-v1-x86_64-cpu"

    assert why in await qemu.refusal(commands.device_del("cpu-2"))


async def test_a_module_comes_into_its_slot_and_keeps_its_memory(qemu: Pluggable) -> None:
    dimm = Dimm(slot=1, size_bytes=128 * MIB)
    await qemu.tell(commands.object_add(dimm_object(dimm)))
    await qemu.tell(commands.device_add(dimm_option(dimm)))

    found = await qemu.look()
    (module,) = (each for each in found.memory_devices if each.kind == "dimm")
    assert (module.id, module.memdev, module.size_bytes, module.hotplugged) == ("dimm-1", "mem-1", 128 * MIB, True)
    assert (found.base_memory_bytes, found.plugged_memory_bytes) == (128 * MIB, 128 * MIB)
    used = "object 'mem-1' is in use, can not be deleted"
    assert used in await qemu.refusal(commands.object_del("mem-1"))
    await qemu.tell(commands.device_del("dimm-1"))
    assert "dimm-1" in (await qemu.look()).devices


REFUSED_MODULES: dict[str, tuple[Option, int, str]] = {
    "a slot that is taken": ({"slot": 1}, 128, "slot 1 is busy"),
    "a slot that there is not": ({"slot": 8}, 128, "invalid slot number 8, valid range is [0-7]"),
    "memory that is taken": ({"memdev": "mem-1"}, 128, "can't use already busy memdev: mem-1"),
    "memory that there is not": ({"memdev": "none"}, 128, "DeviceNotFound: Device 'none' not found"),
    "more than there is room for": ({}, 4096, "not enough space, currently"),
    "part of a page": ({}, 1, "backend memory size must be multiple of 0x200000"),
}


@pytest.mark.parametrize("what", REFUSED_MODULES)
async def test_a_module_that_is_refused_leaves_nothing(qemu: Pluggable, what: str) -> None:
    changes, size_mib, why = REFUSED_MODULES[what]
    there, added = Dimm(slot=1, size_bytes=128 * MIB), Dimm(slot=2, size_bytes=size_mib * MIB)
    await qemu.tell(commands.object_add(dimm_object(there)))
    await qemu.tell(commands.device_add(dimm_option(there)))
    await qemu.tell(commands.object_add(dimm_object(added)))
    before = await qemu.look()

    assert why in await qemu.refusal(commands.device_add({**dimm_option(added), **changes}))
    assert await qemu.look() == before
    await qemu.tell(commands.object_del("mem-2"))


async def test_virtio_mem_is_asked_in_blocks_and_a_guest_without_a_driver_takes_none(qemu: Pluggable) -> None:
    path = "/machine/peripheral/memory"
    await qemu.tell(commands.qom_set(path, "requested-size", 64 * MIB))

    (device,) = (each for each in (await qemu.look()).memory_devices if each.kind == "virtio-mem")
    assert (device.id, device.memdev, device.block_bytes) == ("memory", "mem-virtio", 2 * MIB)
    assert (device.requested_bytes, device.size_bytes, device.max_bytes) == (64 * MIB, 0, 384 * MIB)
    crooked = commands.qom_set(path, "requested-size", 64 * MIB + 4096)
    assert "'requested-size' has to be multiples of 'block-size' (0x200000)" in await qemu.refusal(crooked)
    beyond = commands.qom_set(path, "requested-size", 1024 * MIB)
    assert "'requested-size' cannot exceed the memory backend size(0x18000000)" in await qemu.refusal(beyond)
    missing = commands.qom_set("/machine/peripheral/none", "requested-size", 0)
    assert "DeviceNotFound: Device '/machine/peripheral/none' not found" in await qemu.refusal(missing)
    assert "GenericError: virtio" in await qemu.refusal(commands.device_del("memory"))


# the whole machine


async def test_nothing_is_plugged_while_the_guest_migrates(qemu: Pluggable) -> None:
    added = disk("data")
    await qemu.add_nodes(added)
    if qemu.fake is not None:
        qemu.fake.switches.migrating = True
    else:
        await qemu.tell(Command(name="migrate-set-parameters", arguments={"max-bandwidth": 10_000}))
        await qemu.tell(Command(name="migrate", arguments={"uri": "exec:cat >/dev/null"}))

    assert (await qemu.look()).migrating
    plug = commands.device_add(disk_option(qemu.with_disk(added), added))
    assert "device_add not allowed while migrating" in await qemu.refusal(plug)
    assert "device_del not allowed while migrating" in await qemu.refusal(commands.device_del("disk-root"))
    await qemu.tell(commands.blockdev_del("disk-data"))


async def test_a_reset_of_a_stopped_guest_ends_before_its_firmware(qemu: Pluggable) -> None:
    await qemu.runs_a_while()
    await qemu.tell(commands.stop())
    assert await qemu.run_state() is RunState.PAUSED
    await qemu.tell(commands.system_reset())

    assert await qemu.run_state() is RunState.PRELAUNCH
    await qemu.hears("RESET", guest=False, reason="host-qmp-system-reset")
    functions = parse_pci(await qemu.tell(commands.query_pci()))
    assert not any(each.behind or each.secondary_bus for each in functions)

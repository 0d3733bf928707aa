"""What the command line promises beyond its golden files."""

from dataclasses import replace

import pytest

from guestlet.errors import Broken
from guestlet.pci.address import parse_address
from guestlet.pci.layout import Family
from guestlet.qemu.commandline import build_argv, host_neutral
from guestlet.qemu.machine import (
    AioMode,
    BridgeNet,
    CacheMode,
    Dimm,
    DiskBus,
    FirmwareType,
    HostPaths,
    KernelBoot,
    Machine,
    Memory,
    TapNet,
)
from guestlet.qemu.sections.memory import address_bytes, may_grow
from guestlet.qemu.sections.network import backend_option
from guestlet.qemu.sections.storage import block_nodes, controller_options, iothread_option, node_names
from unit.qemu.sample_machines import MIB, NOTHING, PATHS, bare, complete, disk, empty_drive, laid_out, nic

GIB = 1024 * MIB

BRIDGED = replace(nic("lan", backend=BridgeNet(bridge="br0")), queues=2)


def everywhere() -> Machine:
    """A machine whose command line names every path that a node has."""
    kernel = KernelBoot(pool="default", image="vmlinuz", initrd="initrd", cmdline="quiet")
    machine = complete(Family.Q35, FirmwareType.UEFI)
    return laid_out(replace(machine, kernel=kernel, disks=(disk("root"),), networks=(BRIDGED,)))


def node(root: str, *fds: int) -> HostPaths:
    return HostPaths(
        binary=f"{root}/bin/qemu",
        data_dirs=(f"{root}/share",) if fds[0] > 10 else (),
        state_dir=f"{root}/state",
        runtime_dir=f"{root}/state/run",
        pools={"default": f"{root}/pool"},
        firmware_code=f"{root}/code.fd",
        tap_fds={"lan": fds},
    )


@pytest.mark.parametrize("root", ["/a", "/b,c", '/d"e', "/f\\g"])
def test_the_same_machine_on_two_nodes_differs_in_host_paths_only(root: str) -> None:
    here, there = node("/srv/here", 3, 4), node(root, 11, 12)

    ours, theirs = build_argv(everywhere(), here), build_argv(everywhere(), there)

    assert ours != theirs
    assert host_neutral(ours, here) == host_neutral(theirs, there)
    assert "/srv" not in "".join(host_neutral(ours, here))


def test_another_machine_differs_also_without_host_paths() -> None:
    machine = everywhere()
    other = replace(machine, disks=(replace(machine.disks[0], cache=CacheMode.NONE),))
    paths = node("/srv", 3, 4)

    assert host_neutral(build_argv(machine, paths), paths) != host_neutral(build_argv(other, paths), paths)


@pytest.mark.parametrize(
    ("cache", "direct", "no_flush", "write_cache"),
    [
        (CacheMode.NONE, True, False, "on"),
        (CacheMode.WRITEBACK, False, False, "on"),
        (CacheMode.WRITETHROUGH, False, False, "off"),
        (CacheMode.DIRECTSYNC, True, False, "off"),
        (CacheMode.UNSAFE, False, True, "on"),
    ],
)
def test_cache_modes_are_those_of_qemus_manual(
    cache: CacheMode, direct: bool, no_flush: bool, write_cache: str
) -> None:
    machine = laid_out(replace(bare(Family.Q35), disks=(replace(disk("root"), cache=cache, aio=AioMode.NATIVE),)))

    text = "\n".join(build_argv(machine, PATHS))

    assert text.count(f'"cache":{{"direct":{str(direct).lower()},"no-flush":{str(no_flush).lower()}}}') == 2
    assert f'"write-cache":"{write_cache}"' in text
    assert text.count('"aio":"native"') == 1


def test_devices_that_share_a_slot_are_multifunction_and_others_are_not() -> None:
    machine = replace(bare(Family.PC), disks=(disk("a"), disk("b"), disk("c")))
    chosen = {"disk-a": parse_address("pci.0:05.0"), "disk-b": parse_address("pci.0:05.1")}

    lines = build_argv(laid_out(machine, explicit=chosen), PATHS)

    shared = [line for line in lines if '"multifunction":true' in line]
    assert len(shared) == 2
    assert all('"addr":"05.' in line for line in shared)


def test_a_scripted_tap_is_given_to_qemu_as_a_descriptor_like_any_other() -> None:
    scripted = nic("lan", backend=TapNet(up_script="up.sh", down_script=None))
    machine = laid_out(replace(bare(Family.PC), networks=(scripted,)))

    text = "\n".join(build_argv(machine, replace(PATHS, tap_fds={"lan": (7,)})))

    assert '{"type":"tap","id":"net-lan","fd":"7","vhost":false}' in text
    assert "up.sh" not in text


def test_a_description_that_lacks_something_is_broken_not_half_started() -> None:
    complete_paths = replace(PATHS, tap_fds={"lan": (3, 4)})
    machine = everywhere()
    unplaced = replace(machine, pci=NOTHING)
    driveless = replace(machine, disks=(disk("root", DiskBus.SATA, unit=None),))

    for wrong, paths in (
        (machine, PATHS),
        (machine, replace(complete_paths, pools={})),
        (machine, replace(complete_paths, firmware_code=None)),
        (unplaced, complete_paths),
        (driveless, complete_paths),
    ):
        with pytest.raises(Broken):
            build_argv(wrong, paths)


def test_a_running_qemu_is_given_descriptors_by_their_names() -> None:
    one, two = replace(BRIDGED, queues=1), BRIDGED

    assert backend_option(one, ("net-lan.0",))["fd"] == "net-lan.0"
    assert backend_option(two, ("net-lan.0", "net-lan.1"))["fds"] == "net-lan.0:net-lan.1"
    with pytest.raises(Broken, match="1 tap descriptors for 2 queues"):
        backend_option(two, ("net-lan.0",))


def test_networks_that_stay_are_written_the_same_when_one_goes() -> None:
    networks = tuple(nic(name, number=number) for number, name in enumerate(("a", "b", "c")))
    before = laid_out(replace(bare(Family.Q35), networks=networks))
    after = laid_out(replace(before, networks=(networks[0], networks[2])), previous=before.pci)

    assert set(build_argv(after, PATHS)) <= set(build_argv(before, PATHS))


def test_a_controller_stays_when_its_last_disk_is_gone() -> None:
    scsi, sata = disk("a", DiskBus.SCSI, unit=0), disk("b", DiskBus.SATA, unit=7)
    machine = laid_out(replace(bare(Family.PC), disks=(scsi, sata)))

    assert controller_options(replace(machine, disks=())) == controller_options(machine)
    assert [each["id"] for each in controller_options(machine)] == ["scsi", "sata-1"]


def test_a_disk_has_an_iothread_of_its_own_on_virtio_and_that_of_its_controller_on_scsi() -> None:
    asks = {bus: replace(disk("d", bus, unit=0), io_thread=True) for bus in (DiskBus.VIRTIO, DiskBus.SCSI)}

    assert iothread_option(asks[DiskBus.VIRTIO]) == {"qom-type": "iothread", "id": "iothread-d"}
    assert iothread_option(asks[DiskBus.SCSI]) == {"qom-type": "iothread", "id": "scsi-iothread"}
    assert iothread_option(disk("d")) is None


def test_an_empty_drive_has_no_nodes() -> None:
    drive = empty_drive("cd", DiskBus.SATA)

    assert (block_nodes(drive, PATHS), node_names(drive)) == ((), ())


def test_a_machine_that_cannot_grow_has_no_room_for_it_and_one_with_modules_has() -> None:
    fixed = Memory(boot_bytes=GIB, max_bytes=GIB, virtio_mem=None, dimms=())
    found = replace(fixed, max_bytes=2 * GIB, dimms=(Dimm(slot=0, size_bytes=GIB),))

    assert not may_grow(fixed)
    assert may_grow(found)
    assert address_bytes(fixed) == GIB
    assert address_bytes(found) == 3 * GIB

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
    DiskBus,
    FirmwareType,
    HostPaths,
    KernelBoot,
    Machine,
    TapNet,
)
from unit.qemu.sample_machines import NOTHING, PATHS, bare, complete, disk, laid_out, nic

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

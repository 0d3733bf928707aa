"""The whole command line of machines of every kind, as a person reads it: one argument a line."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from guestlet.pci.layout import DeviceBus, Family
from guestlet.qemu.commandline import build_argv
from guestlet.qemu.machine import (
    Accelerator,
    BridgeNet,
    Dimm,
    DiskBus,
    FileSource,
    FirmwareType,
    HostPaths,
    ImageFormat,
    KernelBoot,
    Machine,
    NicModel,
)
from unit.qemu.sample_machines import (
    MIB,
    PATHS,
    bare,
    complete,
    disk,
    empty_drive,
    growing,
    laid_out,
    largest,
    nic,
    with_disks_on,
    with_network,
)

Golden = Callable[[str, str], None]

FAMILIES = tuple(Family)
FIRMWARE = tuple(FirmwareType)


def written(machine: Machine, paths: HostPaths = PATHS) -> str:
    return "".join(f"{argument}\n" for argument in build_argv(machine, paths))


@pytest.mark.parametrize("firmware", FIRMWARE)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bus", tuple(DiskBus))
def test_disks_on_every_bus(golden: Golden, family: Family, firmware: FirmwareType, bus: DiskBus) -> None:
    machine = laid_out(with_disks_on(bus, complete(family, firmware)))

    golden(f"argv/{family}-{firmware.lower()}-disks-{bus.lower()}.txt", written(machine))


@pytest.mark.parametrize("firmware", FIRMWARE)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("model", tuple(NicModel))
def test_networks_of_every_model(golden: Golden, family: Family, firmware: FirmwareType, model: NicModel) -> None:
    machine = laid_out(with_network(model, complete(family, firmware)))

    golden(f"argv/{family}-{firmware.lower()}-networks-{model.lower()}.txt", written(machine))


@pytest.mark.parametrize("device_bus", tuple(DeviceBus))
@pytest.mark.parametrize("family", FAMILIES)
def test_the_largest_machine(golden: Golden, family: Family, device_bus: DeviceBus) -> None:
    machine = laid_out(largest(family), device_bus=device_bus)

    golden(f"argv/{family}-largest-{device_bus.lower()}.txt", written(machine))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_machine_with_nothing_on_kvm(golden: Golden, family: Family) -> None:
    machine = replace(bare(family), accelerator=Accelerator.KVM, tb_size_mib=None)

    golden(f"argv/{family}-bare-kvm.txt", written(laid_out(machine)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_machine_that_may_grow(golden: Golden, family: Family) -> None:
    golden(f"argv/{family}-growing.txt", written(laid_out(growing(bare(family)))))


def test_memory_modules_that_were_plugged_come_back_where_the_machine_is_built_again(golden: Golden) -> None:
    machine = growing(bare(Family.Q35))
    modules = tuple(Dimm(slot=slot, size_bytes=128 * MIB) for slot in (0, 3))
    memory = replace(machine.memory, virtio_mem=None, dimms=modules)

    golden("argv/q35-memory-modules.txt", written(laid_out(replace(machine, memory=memory))))


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_drives_and_controllers_that_outlived_their_disks(golden: Golden, family: Family) -> None:
    drives = tuple(empty_drive(f"cd-{bus.lower()}", bus) for bus in (DiskBus.SATA, DiskBus.SCSI))
    gone = (disk("gone", DiskBus.SATA, unit=6),)
    machine = laid_out(replace(bare(family), disks=(*drives, *gone)))

    golden(f"argv/{family}-empty-drives.txt", written(replace(machine, disks=drives)))


def test_a_kernel_an_overlay_an_iothread_and_a_tap_with_queues(golden: Golden) -> None:
    overlay = FileSource(
        pool="default",
        image="root.qcow2",
        format=ImageFormat.QCOW2,
        backing_image="base.raw",
        backing_format=ImageFormat.RAW,
    )
    machine = replace(
        complete(Family.Q35),
        kernel=KernelBoot(pool="default", image="vmlinuz", initrd="initrd.img", cmdline="console=ttyS0 a,b=c"),
        disks=(
            replace(disk("root"), source=overlay, io_thread=True),
            replace(disk("data", DiskBus.SCSI, unit=0), io_thread=True),
        ),
        networks=(replace(nic("lan", backend=BridgeNet(bridge="br0")), queues=2, tap="gl0"),),
    )
    paths = replace(PATHS, tap_fds={"lan": (10, 11)}, data_dirs=("/usr/share/qemu", "/usr/share/seabios"))

    golden(
        "argv/q35-kernel-overlay-iothread-tap.txt",
        written(laid_out(machine), paths),
    )

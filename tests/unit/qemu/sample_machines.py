"""Machines for tests: small ones of every kind, and the largest that the API allows."""

from collections.abc import Mapping
from dataclasses import replace

from guestlet.pci.address import PciAddress
from guestlet.pci.layout import DeviceBus, DeviceKind, Family, Layout, place
from guestlet.qemu.machine import (
    Accelerator,
    AioMode,
    CacheMode,
    Cpu,
    DiscardMode,
    Disk,
    DiskBus,
    FileSource,
    FirmwareType,
    HostForward,
    HostPaths,
    ImageFormat,
    IsolatedNet,
    Machine,
    Memory,
    NetBackend,
    Nic,
    NicModel,
    Protocol,
    UserNet,
    VirtioMem,
    WatchdogAction,
)
from guestlet.qemu.pci_requests import pci_requests

MIB = 1024 * 1024
NOTHING: Layout = Layout(
    family=Family.Q35, device_bus=DeviceBus.ROOT_PORT, controllers=(), devices=(), anonymous=(), freed=()
)
VERSIONED = {Family.Q35: "pc-q35-7.2", Family.PC: "pc-i440fx-7.2"}
ISOLATED = IsolatedNet()

PATHS = HostPaths(
    binary="/usr/bin/qemu-system-x86_64",
    data_dirs=(),
    state_dir="/state/guests/0f1e",
    runtime_dir="/run/guests/0f1e",
    pools={"default": "/pools/default"},
    firmware_code="/firmware/OVMF_CODE_4M.fd",
    tap_fds={},
)


def disk(name: str, bus: DiskBus = DiskBus.VIRTIO, *, unit: int | None = None) -> Disk:
    source = FileSource(
        pool="default", image=f"{name}.qcow2", format=ImageFormat.QCOW2, backing_image=None, backing_format=None
    )
    return Disk(
        name=name,
        bus=bus,
        source=source,
        size_bytes=16 * MIB,
        read_only=False,
        cdrom=False,
        serial=f"serial-{name}"[:20],
        cache=CacheMode.WRITEBACK,
        aio=AioMode.THREADS,
        discard=DiscardMode.UNMAP,
        io_thread=False,
        throttle=None,
        boot_order=None,
        unit=unit,
    )


def empty_drive(name: str, bus: DiskBus) -> Disk:
    """A cdrom drive without a medium."""
    return replace(disk(name, bus, unit=0), cdrom=True, read_only=True, source=None, size_bytes=0)


def file_of(disk: Disk) -> FileSource:
    """The file of a disk that has one."""
    assert disk.source is not None
    return disk.source


def nic(name: str, model: NicModel = NicModel.VIRTIO, *, number: int = 1, backend: NetBackend = ISOLATED) -> Nic:
    return Nic(
        name=name,
        model=model,
        mac=f"52:54:00:00:00:{number:02x}",
        backend=backend,
        queues=1,
        link_up=True,
        bandwidth=None,
        boot_order=None,
        tap=None,
    )


def memory(boot_bytes: int) -> Memory:
    """Memory that cannot grow."""
    return Memory(boot_bytes=boot_bytes, max_bytes=boot_bytes, virtio_mem=None, dimms=())


def growing(machine: Machine) -> Machine:
    """Twice the CPUs may come, and three times the memory: by virtio-mem, and half of that asked for."""
    boot = machine.memory.boot_bytes
    grown = VirtioMem(max_bytes=3 * boot, block_bytes=2 * MIB, requested_bytes=3 * boot // 2)
    count = machine.cpu.count
    return replace(
        machine,
        cpu=replace(machine.cpu, max_count=2 * count, sockets=2 * machine.cpu.sockets),
        memory=Memory(boot_bytes=boot, max_bytes=4 * boot, virtio_mem=grown, dimms=()),
    )


def bare(family: Family, firmware: FirmwareType = FirmwareType.BIOS) -> Machine:
    """No disk, no network, no device: what every other machine is made from."""
    return Machine(
        uuid="6f1e1b52-7a4d-4a34-9b6e-3a5c1f0d2e11",
        name="default/demo",
        machine_type=VERSIONED[family],
        accelerator=Accelerator.TCG,
        tb_size_mib=64,
        firmware=firmware,
        firmware_image="OVMF_CODE_4M.fd" if firmware is FirmwareType.UEFI else None,
        kernel=None,
        cpu=Cpu(count=2, max_count=2, sockets=1, cores=2, threads=1, model="qemu64-v1"),
        memory=memory(128 * MIB),
        disks=(),
        networks=(),
        rng=False,
        balloon=False,
        watchdog=None,
        pvpanic=False,
        serial_log=False,
        sandbox=False,
        pci=place(family=family, device_bus=DeviceBus.ROOT_PORT, hotplug_ports=0, requests=(), previous=None),
    )


def complete(family: Family, firmware: FirmwareType = FirmwareType.BIOS) -> Machine:
    """One of each small device, the console log and the sandbox."""
    return replace(
        bare(family, firmware),
        rng=True,
        balloon=True,
        watchdog=WatchdogAction.RESET,
        pvpanic=True,
        serial_log=True,
        sandbox=True,
    )


def laid_out(
    machine: Machine,
    *,
    device_bus: DeviceBus = DeviceBus.ROOT_PORT,
    hotplug_ports: int = 4,
    explicit: Mapping[str, PciAddress] | None = None,
    previous: Layout | None = None,
) -> Machine:
    """The machine with everything at its address."""
    requests = pci_requests(
        disks=machine.disks,
        networks=machine.networks,
        small=small(machine),
        explicit=explicit or {},
    )
    layout = place(
        family=family(machine),
        device_bus=device_bus,
        hotplug_ports=hotplug_ports,
        requests=requests,
        previous=previous,
    )
    return replace(machine, pci=layout)


def small(machine: Machine) -> frozenset[DeviceKind]:
    """The small devices of the machine that have an address."""
    there = {
        DeviceKind.RNG: machine.rng,
        DeviceKind.BALLOON: machine.balloon,
        DeviceKind.WATCHDOG: machine.watchdog is not None,
        DeviceKind.MEMORY: machine.memory.virtio_mem is not None,
    }
    return frozenset(kind for kind, present in there.items() if present)


def family(machine: Machine) -> Family:
    return Family.Q35 if "q35" in machine.machine_type else Family.PC


def with_disks_on(bus: DiskBus, machine: Machine) -> Machine:
    """Two disks on the bus; on those that have drives, the second is a cdrom."""
    has_units = bus in (DiskBus.SCSI, DiskBus.SATA)
    first, second = (disk(name, bus, unit=index if has_units else None) for index, name in enumerate(("root", "data")))
    if has_units:
        source = replace(file_of(second), image="data.iso", format=ImageFormat.RAW)
        second = replace(second, cdrom=True, read_only=True, source=source)
    return replace(machine, disks=(replace(first, boot_order=1), second))


def with_network(model: NicModel, machine: Machine) -> Machine:
    forward = HostForward(protocol=Protocol.TCP, host_address="127.0.0.1", host_port=2222, guest_port=22)
    first = nic("lan", model, number=1, backend=UserNet(host_forwards=(forward,)))
    return replace(machine, networks=(replace(first, boot_order=2), nic("alone", model, number=2)))


def largest(which: Family) -> Machine:
    """Thirty disks of all buses, eight networks of both models, and every small device."""
    buses = [DiskBus.VIRTIO] * 17 + [DiskBus.NVME] * 3 + [DiskBus.SCSI] * 3 + [DiskBus.SATA] * 7
    units = [*[None] * 20, *range(3), *range(7)]
    disks = tuple(disk(f"d{i}", bus, unit=unit) for i, (bus, unit) in enumerate(zip(buses, units, strict=True)))
    models = (NicModel.VIRTIO, NicModel.E1000)
    networks = tuple(nic(f"n{i}", models[i % 2], number=i + 1) for i in range(8))
    return replace(complete(which), disks=disks, networks=networks)

"""The live description as the API publishes it, and back: status alone gives the same machine again. Pure.

``publish_machine`` and ``machine_of_status`` are inverses (a property test holds them to it); neither looks at spec.
"""

from collections.abc import Mapping

from guestlet.api.guest_status import (
    AnonymousStatus,
    BootStatus,
    ConsoleStatus,
    ControllerStatus,
    CpuStatus,
    DevicesStatus,
    DimmStatus,
    FirmwareStatus,
    HotplugPorts,
    KernelStatus,
    MemoryStatus,
    PciDeviceStatus,
    PciStatus,
    VirtioMemStatus,
    VirtualGuestStatus,
    WatchdogStatus,
)
from guestlet.api.quantity import format_bytes, parse_quantity
from guestlet.errors import Broken
from guestlet.guest.describe_devices import disk_of, network_of, publish_disk, publish_network
from guestlet.pci.address import PciAddress, parse_address
from guestlet.pci.controllers import Controller, Family
from guestlet.pci.layout import Anonymous, Layout, Placed, hotplug_ports_free
from guestlet.pci.observed import Numbered
from guestlet.qemu.machine import Cpu, Dimm, KernelBoot, Machine, Memory, VirtioMem
from guestlet.qemu.names import pci_device


def publish_machine(
    machine: Machine,
    *,
    numbered: Numbered | None,
    created_at: Mapping[str, str],
    memory_now_bytes: int | None = None,
    aliases: Mapping[str, str] | None = None,
) -> VirtualGuestStatus:
    """The machine as status fields. ``created_at``: RFC 3339 time by disk name, for images that guestlet created.

    ``memory_now_bytes`` is QEMU's word (the machine's own sum where it was not asked), ``aliases`` what a QEMU that
    somebody else started calls our devices.
    """
    kernel = machine.kernel
    return VirtualGuestStatus(
        uuid=machine.uuid,
        machine_type=machine.machine_type,
        accelerator=machine.accelerator,
        tb_size_mib=machine.tb_size_mib,
        firmware=FirmwareStatus(type=machine.firmware, image=machine.firmware_image),
        boot=BootStatus(
            kernel=KernelStatus(pool=kernel.pool, image=kernel.image, initrd=kernel.initrd, cmdline=kernel.cmdline)
        )
        if kernel
        else None,
        cpu=CpuStatus(
            count=machine.cpu.count,
            max_count=machine.cpu.max_count,
            sockets=machine.cpu.sockets,
            cores=machine.cpu.cores,
            threads=machine.cpu.threads,
            model=machine.cpu.model,
        ),
        memory=publish_memory(machine.memory, memory_now_bytes),
        devices=DevicesStatus(
            rng=machine.rng,
            balloon=machine.balloon,
            watchdog=WatchdogStatus(action=machine.watchdog) if machine.watchdog else None,
            pvpanic=machine.pvpanic,
        ),
        console=ConsoleStatus(serial_log=machine.serial_log),
        pci=publish_layout(machine.pci, numbered, aliases or {}),
        disks=tuple(publish_disk(disk, created_at.get(disk.name)) for disk in machine.disks),
        networks=tuple(publish_network(nic) for nic in machine.networks),
    )


def publish_memory(memory: Memory, now_bytes: int | None) -> MemoryStatus:
    """The memory; ``now_bytes``: what QEMU says the guest has taken."""
    grown = memory.virtio_mem
    return MemoryStatus(
        at_boot=format_bytes(memory.boot_bytes),
        current=format_bytes(memory.asked_bytes if now_bytes is None else now_bytes),
        max=format_bytes(memory.max_bytes),
        virtio_mem=VirtioMemStatus(
            max=format_bytes(grown.max_bytes),
            block_size=format_bytes(grown.block_bytes),
            requested=format_bytes(grown.requested_bytes),
        )
        if grown
        else None,
        dimms=tuple(DimmStatus(slot=each.slot, size=format_bytes(each.size_bytes)) for each in memory.dimms),
    )


def publish_layout(layout: Layout, numbered: Numbered | None, aliases: Mapping[str, str]) -> PciStatus:
    """The recorded layout with what the guest's firmware made of it, where that is known."""
    total, free = hotplug_ports_free(layout)
    return PciStatus(
        family=layout.family,
        device_bus=layout.device_bus,
        controllers=tuple(
            ControllerStatus(
                id=each.id,
                kind=each.kind,
                bus=each.address.bus,
                address=each.address.on_bus,
                index=each.index,
                memory_reserve=format_bytes(each.memory_bytes) if each.memory_bytes is not None else None,
            )
            for each in layout.controllers
        ),
        devices=tuple(_publish_device(each, numbered, aliases) for each in layout.devices),
        anonymous=tuple(_publish_anonymous(each) for each in layout.anonymous),
        freed=tuple(str(address) for address in layout.freed),
        hotplug_ports=HotplugPorts(total=total, free=free),
    )


def _publish_device(device: Placed, numbered: Numbered | None, aliases: Mapping[str, str]) -> PciDeviceStatus:
    seen = numbered.seen.get(device.id) if numbered else None
    return PciDeviceStatus(
        name=device.name,
        kind=device.kind,
        id=aliases.get(device.id, device.id),
        bus=device.address.bus,
        address=device.address.on_bus,
        guest_address=seen.guest_address if seen else None,
        vendor=seen.vendor if seen else None,
        device=seen.device if seen else None,
    )


def _publish_anonymous(device: Anonymous) -> AnonymousStatus:
    return AnonymousStatus(
        bus=device.address.bus,
        address=device.address.on_bus,
        id=device.id,
        vendor=device.vendor,
        device=device.device,
        device_class=device.device_class,
    )


def machine_of_status(status: VirtualGuestStatus, *, name: str) -> Machine | None:
    """The machine that a status describes, or ``None`` when it describes none (never started). ``name``: ns/name.

    Raises:
        Broken: the status describes a machine, but not completely.
    """
    if status.machine_type is None:
        return None
    if not (
        status.uuid
        and status.accelerator
        and status.firmware
        and status.cpu
        and status.memory
        and status.devices
        and status.pci
        and status.console
        and status.qemu
    ):
        raise Broken("RecordLost", "status describes a machine only in part; it cannot be built again from it")
    watchdog = status.devices.watchdog
    return Machine(
        uuid=status.uuid,
        name=name,
        machine_type=status.machine_type,
        accelerator=status.accelerator,
        tb_size_mib=status.tb_size_mib,
        firmware=status.firmware.type,
        firmware_image=status.firmware.image,
        kernel=_kernel_of(status),
        cpu=Cpu(
            count=status.cpu.count,
            max_count=status.cpu.max_count or status.cpu.count,  # absent from agents that plugged nothing
            sockets=status.cpu.sockets,
            cores=status.cpu.cores,
            threads=status.cpu.threads,
            model=status.cpu.model,
        ),
        memory=_memory_of(status.memory),
        disks=tuple(disk_of(disk) for disk in status.disks),
        networks=tuple(network_of(nic) for nic in status.networks),
        rng=status.devices.rng,
        balloon=status.devices.balloon,
        watchdog=watchdog.action if watchdog else None,
        pvpanic=status.devices.pvpanic,
        serial_log=status.console.serial_log,
        sandbox=bool(status.qemu.sandbox),
        pci=_layout_of(status.pci, status.machine_type),
    )


def _kernel_of(status: VirtualGuestStatus) -> KernelBoot | None:
    kernel = status.boot.kernel if status.boot else None
    if kernel is None:
        return None
    return KernelBoot(pool=kernel.pool, image=kernel.image, initrd=kernel.initrd, cmdline=kernel.cmdline)


def _memory_of(status: MemoryStatus) -> Memory:
    grown = status.virtio_mem
    return Memory(
        boot_bytes=parse_quantity(status.at_boot),
        max_bytes=parse_quantity(status.max),
        virtio_mem=VirtioMem(
            max_bytes=parse_quantity(grown.max),
            block_bytes=parse_quantity(grown.block_size),
            requested_bytes=parse_quantity(grown.requested),
        )
        if grown
        else None,
        dimms=tuple(Dimm(slot=each.slot, size_bytes=parse_quantity(each.size)) for each in status.dimms),
    )


def _layout_of(status: PciStatus, machine_type: str) -> Layout:
    if status.device_bus is None:
        raise Broken("RecordLost", "status.pci lacks deviceBus")
    return Layout(
        # absent from agents that plugged nothing
        family=status.family or (Family.Q35 if machine_type.startswith("pc-q35") else Family.PC),
        device_bus=status.device_bus,
        controllers=tuple(
            Controller(
                id=each.id,
                kind=each.kind,
                address=_address(each.bus, each.address),
                index=each.index,
                memory_bytes=parse_quantity(each.memory_reserve) if each.memory_reserve is not None else None,
            )
            for each in status.controllers
        ),
        devices=tuple(
            # Not the published id: a QEMU that somebody else started calls it otherwise.
            Placed(
                id=pci_device(each.kind, each.name),
                name=each.name,
                kind=each.kind,
                address=_address(each.bus, each.address),
            )
            for each in status.devices
        ),
        anonymous=tuple(
            Anonymous(
                address=_address(each.bus, each.address),
                id=each.id,
                vendor=each.vendor,
                device=each.device,
                device_class=each.device_class,
            )
            for each in status.anonymous
        ),
        freed=tuple(parse_address(text) for text in status.freed),
    )


def _address(bus: str, on_bus: str) -> PciAddress:
    return parse_address(f"{bus}:{on_bus}")

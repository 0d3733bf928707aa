"""A whole status, with every field set: what an agent publishes of a guest with one of everything."""

from guestlet.api.base import Condition
from guestlet.api.guest_spec import HostForwardSpec, TapSpec, UserSpec
from guestlet.api.guest_status import (
    AnonymousStatus,
    BandwidthStatus,
    BootStatus,
    ConsoleStatus,
    ControllerStatus,
    CpuStatus,
    DevicesStatus,
    DimmStatus,
    DiskStatus,
    FileSourceStatus,
    FirmwareStatus,
    HotplugPorts,
    KernelStatus,
    LastExit,
    MemoryStatus,
    NetworkStatus,
    PciDeviceStatus,
    PciStatus,
    Phase,
    QemuStatus,
    SourceStatus,
    ThrottleStatus,
    VirtioMemStatus,
    VirtualGuestStatus,
    WatchdogStatus,
)
from guestlet.api.reasons import ConditionType, Reason
from guestlet.pci.controllers import ControllerKind
from guestlet.pci.layout import DeviceBus, DeviceKind, Family
from guestlet.qemu.machine import (
    Accelerator,
    AioMode,
    CacheMode,
    DiscardMode,
    DiskBus,
    FirmwareType,
    ImageFormat,
    NicModel,
    WatchdogAction,
)

WHEN = "2026-01-01T00:00:00Z"

_ROOT = DiskStatus(
    name="root",
    bus=DiskBus.VIRTIO,
    source=SourceStatus(
        file=FileSourceStatus(
            pool="default",
            image="root.qcow2",
            format=ImageFormat.QCOW2,
            backing_image="base.img",
            backing_format=ImageFormat.RAW,
        )
    ),
    size="1Gi",
    created_at=WHEN,
    read_only=False,
    cdrom=False,
    serial="root",
    cache=CacheMode.WRITEBACK,
    aio=AioMode.THREADS,
    discard=DiscardMode.UNMAP,
    io_thread=True,
    throttle=ThrottleStatus(iops=100, iops_burst=200, bandwidth="1Mi", bandwidth_burst="2Mi"),
    boot_order=1,
    unit=0,
)
_EMPTY = DiskStatus(
    name="cd",
    bus=DiskBus.SATA,
    size="0",
    read_only=True,
    cdrom=True,
    serial="cd",
    cache=CacheMode.WRITEBACK,
    aio=AioMode.THREADS,
    discard=DiscardMode.UNMAP,
    io_thread=False,
    unit=0,
)
_LAN = NetworkStatus(
    name="lan",
    model=NicModel.VIRTIO,
    mac_address="52:54:00:12:34:56",
    user=UserSpec(host_forwards=(HostForwardSpec(host_port=2222, guest_port=22),)),
    queues=1,
    link_up=True,
    boot_order=2,
)
_WAN = NetworkStatus(
    name="wan",
    model=NicModel.E1000,
    mac_address="52:54:00:12:34:57",
    tap=TapSpec(up_script="up", down_script="down"),
    queues=1,
    link_up=False,
    bandwidth=BandwidthStatus(inbound="10Mi", outbound="1Mi"),
    tap_name="gl0123456789ab",
)
_PCI = PciStatus(
    family=Family.Q35,
    device_bus=DeviceBus.ROOT_PORT,
    controllers=(ControllerStatus(id="port-1", kind=ControllerKind.ROOT_PORT, bus="pcie.0", address="02.0", index=2),),
    devices=(
        PciDeviceStatus(
            name="root",
            kind=DeviceKind.DISK,
            id="disk-root",
            bus="port-1",
            address="00.0",
            guest_address="0000:03:00.0",
            vendor="1af4",
            device="1042",
        ),
    ),
    anonymous=(
        AnonymousStatus(bus="pcie.0", address="1d.0", id="usb", vendor="8086", device="2934", device_class="0c03"),
    ),
    freed=("port-2:00.0",),
    hotplug_ports=HotplugPorts(total=4, free=3),
)


def _condition(kind: ConditionType, *, is_true: bool, reason: Reason) -> Condition:
    return Condition(
        type=kind,
        status="True" if is_true else "False",
        reason=reason,
        message=reason.description,
        last_transition_time=WHEN,
        observed_generation=1,
    )


PUBLISHED = VirtualGuestStatus(
    observed_generation=1,
    phase=Phase.RUNNING,
    conditions=(
        _condition(ConditionType.READY, is_true=True, reason=Reason.RUNNING),
        _condition(ConditionType.RECONCILING, is_true=False, reason=Reason.UP_TO_DATE),
        _condition(ConditionType.STALLED, is_true=False, reason=Reason.UP_TO_DATE),
        _condition(ConditionType.PAUSED, is_true=False, reason=Reason.NOT_PAUSED),
        _condition(ConditionType.RESTART_REQUIRED, is_true=False, reason=Reason.UP_TO_DATE),
        _condition(ConditionType.SOFTWARE_EMULATION, is_true=True, reason=Reason.TCG_FASTER),
    ),
    node_name="node-a",
    placement_epoch=1,
    uuid="01234567-89ab-cdef-0123-456789abcdef",
    machine_type="pc-q35-7.2",
    accelerator=Accelerator.TCG,
    tb_size_mib=128,
    firmware=FirmwareStatus(type=FirmwareType.UEFI, image="OVMF_CODE_4M.fd"),
    boot=BootStatus(kernel=KernelStatus(pool="default", image="vmlinuz", initrd="initrd.img", cmdline="console=ttyS0")),
    qemu=QemuStatus(version="7.2.22", pid=4242, started_at=WHEN, sandbox=True),
    cpu=CpuStatus(count=2, max_count=4, sockets=4, cores=1, threads=1, model="Nehalem-v2"),
    memory=MemoryStatus(
        at_boot="256Mi",
        current="640Mi",
        max="1Gi",
        virtio_mem=VirtioMemStatus(max="768Mi", block_size="2Mi", requested="256Mi"),
        dimms=(DimmStatus(slot=0, size="128Mi"),),
    ),
    devices=DevicesStatus(rng=True, balloon=True, watchdog=WatchdogStatus(action=WatchdogAction.RESET), pvpanic=True),
    console=ConsoleStatus(serial_log=True),
    pci=_PCI,
    disks=(_ROOT, _EMPTY),
    networks=(_LAN, _WAN),
    restarts=1,
    last_exit=LastExit(reason="Crashed", code=-9, at=WHEN, log_tail="killed"),
    restart_token="one",
)

"""What is true of a guest: every resolved value that QEMU was given, from which the command line can be built again.

Everything but ``observed_generation`` is optional, because a status grows with the guest. It must never hold a host
path, and never a number that changes by itself (those are metrics).
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from guestlet.api.base import ApiModel, Condition
from guestlet.api.network_spec import BridgeSpec, IsolatedSpec, TapSpec, UserSpec
from guestlet.pci.controllers import ControllerKind, Family
from guestlet.pci.layout import DeviceBus, DeviceKind
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

LOG_TAIL_MAX = 4096
"""Most characters kept of the end of QEMU's log."""

_BY_NAME: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
_BY_ID: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]}
_BY_TYPE: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
_BIG = 2**53


def _tail(text: Any) -> Any:
    return text[-LOG_TAIL_MAX:] if isinstance(text, str) else text


class Phase(StrEnum):
    """A summary for people; programs read conditions."""

    PENDING = "Pending"  # accepted, not started: waits for a node, its images, or the agent
    STARTING = "Starting"  # QEMU is being made; Running or Failed follows
    RUNNING = "Running"
    PAUSED = "Paused"  # stands still by the user's wish, an I/O error or a panic
    STOPPING = "Stopping"  # asked to power down; Stopped follows
    STOPPED = "Stopped"  # does not run and is not meant to
    FAILED = "Failed"  # needs a person, see Stalled
    UNKNOWN = "Unknown"  # nobody can say: the node is silent


class FirmwareStatus(ApiModel):
    """The firmware that was given to QEMU."""

    type: FirmwareType = Field(description="BIOS or UEFI.")
    image: str | None = Field(default=None, description="File name of the UEFI code image.", max_length=128)


class KernelStatus(ApiModel):
    """The kernel that QEMU loaded."""

    pool: str = Field(description="Pool of kernel and initrd.", max_length=63)
    image: str = Field(description="File name of the kernel.", max_length=128)
    initrd: str | None = Field(default=None, description="File name of the initial ramdisk.", max_length=128)
    cmdline: str = Field(default="", description="The kernel's command line.", max_length=2047)


class BootStatus(ApiModel):
    """How the guest booted."""

    kernel: KernelStatus | None = Field(default=None, description="Direct kernel boot; absent: the firmware booted.")


class QemuStatus(ApiModel):
    """The process that runs the guest."""

    version: str | None = Field(default=None, description="Version that QEMU reports.", max_length=128)
    pid: int | None = Field(default=None, description="Process id on the node.", ge=1, le=2**22)
    started_at: str | None = Field(
        default=None,
        description="When it was started (RFC 3339, UTC).",
        max_length=32,
        json_schema_extra={"format": "date-time"},
    )
    sandbox: bool | None = Field(default=None, description="Whether QEMU's own system call filter is on.")


class CpuStatus(ApiModel):
    """The virtual CPUs that were given to QEMU."""

    count: int = Field(description="Number of virtual CPUs now.", ge=1, le=255)
    max_count: int | None = Field(default=None, description="Most virtual CPUs without a restart.", ge=1, le=255)
    sockets: int = Field(description="Sockets the guest sees.", ge=1, le=255)
    cores: int = Field(description="Cores in each socket.", ge=1, le=255)
    threads: int = Field(description="Threads in each core.", ge=1, le=255)
    model: str = Field(description="The versioned CPU model.", max_length=64)


class DimmStatus(ApiModel):
    """A memory module plugged into the running guest."""

    slot: int = Field(description="Its slot.", ge=0, le=255)
    size: str = Field(description="Its size.", max_length=32)


class VirtioMemStatus(ApiModel):
    """The virtio-mem device by which memory grows."""

    max: str = Field(description="Most that it can give.", max_length=32)
    block_size: str = Field(description="Size of the blocks it gives.", max_length=32)
    requested: str = Field(description="What the guest is asked to take.", max_length=32)


class MemoryStatus(ApiModel):
    """The memory of the running machine, as quantities of bytes; ``current`` is QEMU's own word."""

    at_boot: str = Field(description="Memory at start.", max_length=32)
    current: str = Field(description="Memory now: what the guest has taken.", max_length=32)
    max: str = Field(description="Most memory without a restart.", max_length=32)
    virtio_mem: VirtioMemStatus | None = Field(default=None, description="How memory grows; absent: it cannot.")
    dimms: tuple[DimmStatus, ...] = Field(default=(), description="Memory modules plugged since.", max_length=32)


class WatchdogStatus(ApiModel):
    """The watchdog that was given to QEMU."""

    action: WatchdogAction = Field(description="What happens when it fires.")


class DevicesStatus(ApiModel):
    """The small devices that were given to QEMU."""

    rng: bool = Field(description="Whether there is a random number generator.")
    balloon: bool = Field(description="Whether there is a memory balloon.")
    watchdog: WatchdogStatus | None = Field(default=None, description="The watchdog; absent: none.")
    pvpanic: bool = Field(description="Whether there is a panic device.")


class ConsoleStatus(ApiModel):
    """The consoles that were given to QEMU."""

    serial_log: bool = Field(description="Whether the serial console is also kept in a file.")


class ControllerStatus(ApiModel):
    """A bus-making device at its recorded place."""

    id: str = Field(description="Its id in QEMU, which names the bus it makes.", max_length=64)
    kind: ControllerKind = Field(description="QEMU's name of the device.")
    bus: str = Field(description="Id of the bus it is plugged into.", max_length=64)
    address: str = Field(description="Its slot.function on that bus.", max_length=8)
    index: int = Field(description="Its chassis number.", ge=0, le=255)
    memory_reserve: str | None = Field(
        default=None, description="Memory that the firmware keeps behind it for devices plugged later.", max_length=32
    )


class PciDeviceStatus(ApiModel):
    """A device at its recorded place."""

    name: str = Field(description="The user's name of it.", max_length=64)
    kind: DeviceKind = Field(description="What it is to the guest's owner.")
    id: str = Field(
        description="Its id in QEMU; of a QEMU that somebody else started the path where it has none.", max_length=128
    )
    bus: str = Field(description="Id of the bus it is plugged into.", max_length=64)
    address: str = Field(description="Its slot.function on that bus: the recorded fact.", max_length=8)
    guest_address: str | None = Field(
        default=None,
        description="Its address as the guest's firmware numbered the buses, such as 0000:01:00.0.",
        max_length=16,
    )
    vendor: str | None = Field(default=None, description="PCI vendor id, four hexadecimal digits.", max_length=8)
    device: str | None = Field(default=None, description="PCI device id, four hexadecimal digits.", max_length=8)


class AnonymousStatus(ApiModel):
    """A device found on the guest's buses that nobody here placed; its address stays reserved."""

    bus: str = Field(description="Id of the bus it is plugged into.", max_length=64)
    address: str = Field(description="Its slot.function on that bus.", max_length=8)
    id: str = Field(default="", description="Its id in QEMU; mostly it has none.", max_length=64)
    vendor: str = Field(description="PCI vendor id, four hexadecimal digits.", max_length=8)
    device: str = Field(description="PCI device id, four hexadecimal digits.", max_length=8)
    device_class: str = Field(default="", description="PCI class, four hexadecimal digits.", max_length=8)


class HotplugPorts(ApiModel):
    """Spare places for devices plugged in later."""

    total: int = Field(description="Spare root ports the guest was given.", ge=0, le=512)
    free: int = Field(description="Those still empty.", ge=0, le=512)


class PciStatus(ApiModel):
    """The recorded PCI layout: placed once, kept over restarts and edits."""

    family: Family | None = Field(default=None, description="The chipset that makes the root bus, q35 or pc.")
    device_bus: DeviceBus | None = Field(default=None, description="Where disks and networks went on q35.")
    controllers: tuple[ControllerStatus, ...] = Field(
        default=(), description="Bus-making devices.", max_length=128, json_schema_extra=_BY_ID
    )
    devices: tuple[PciDeviceStatus, ...] = Field(
        default=(), description="Devices.", max_length=128, json_schema_extra=_BY_ID
    )
    anonymous: tuple[AnonymousStatus, ...] = Field(
        default=(), description="Devices that could not be identified.", max_length=64
    )
    freed: tuple[Annotated[str, Field(max_length=80)], ...] = Field(
        default=(), description="Addresses once used, reused last.", max_length=512
    )
    hotplug_ports: HotplugPorts | None = Field(default=None, description="Spare places for devices plugged in later.")


class FileSourceStatus(ApiModel):
    """The image file in use."""

    pool: str = Field(description="Pool of the image.", max_length=63)
    image: str = Field(description="File name of the image.", max_length=128)
    format: ImageFormat = Field(description="Format of the image.")
    backing_image: str | None = Field(default=None, description="File name of its backing image.", max_length=128)
    backing_format: ImageFormat | None = Field(default=None, description="Format of its backing image.")


class SourceStatus(ApiModel):
    """The source in use."""

    file: FileSourceStatus | None = Field(default=None, description="An image file in a pool of the node.")


class ThrottleStatus(ApiModel):
    """The limits of a disk's I/O that were given to QEMU; absent: no such limit."""

    iops: int | None = Field(default=None, description="Requests a second, reads and writes.", ge=1, le=_BIG)
    iops_burst: int | None = Field(default=None, description="Requests a second for a moment.", ge=1, le=_BIG)
    bandwidth: str | None = Field(default=None, description="Bytes a second, reads and writes.", max_length=32)
    bandwidth_burst: str | None = Field(default=None, description="Bytes a second for a moment.", max_length=32)


class BandwidthStatus(ApiModel):
    """The limits of an interface in the directions that the guest sees; absent: no such limit."""

    inbound: str | None = Field(default=None, description="Bytes a second towards the guest.", max_length=32)
    outbound: str | None = Field(default=None, description="Bytes a second from the guest.", max_length=32)


class DiskStatus(ApiModel):
    """A disk as QEMU was given it."""

    name: str = Field(description="The user's name of the disk.", max_length=64)
    bus: DiskBus = Field(description="How the guest sees the disk.")
    source: SourceStatus | None = Field(
        default=None, description="The source in use; absent: a cdrom drive without a medium."
    )
    size: str = Field(description="Virtual size as a quantity of bytes.", max_length=32)
    created_at: str | None = Field(
        default=None,
        description="When guestlet created the image (RFC 3339, UTC); absent: it did not.",
        max_length=32,
        json_schema_extra={"format": "date-time"},
    )
    read_only: bool = Field(description="Whether the guest can only read.")
    cdrom: bool = Field(description="Whether the guest sees a CD-ROM drive.")
    serial: str = Field(description="Serial number the guest sees.", max_length=64)
    cache: CacheMode = Field(description="Host caching.")
    aio: AioMode = Field(description="How QEMU does the I/O.")
    discard: DiscardMode = Field(description="Whether discarded blocks are given back.")
    io_thread: bool = Field(description="Whether the disk's I/O has a thread of its own.")
    throttle: ThrottleStatus | None = Field(default=None, description="Limits of the disk's I/O; absent: none.")
    boot_order: int | None = Field(default=None, description="Place in the boot order.", ge=1, le=255)
    unit: int | None = Field(default=None, description="Place on the SATA or SCSI controller.", ge=0, le=255)


class NetworkStatus(ApiModel):
    """A network interface as QEMU was given it."""

    name: str = Field(description="The user's name of the network.", max_length=64)
    model: NicModel = Field(description="The card the guest sees.")
    mac_address: str = Field(description="MAC address.", max_length=17)
    user: UserSpec | None = Field(default=None, description="QEMU's user-mode network.")
    bridge: BridgeSpec | None = Field(default=None, description="A tap on a bridge of the node.")
    tap: TapSpec | None = Field(default=None, description="A tap handed to scripts of the node.")
    isolated: IsolatedSpec | None = Field(default=None, description="An interface with link and no peer.")
    queues: int = Field(description="Pairs of queues.", ge=1, le=16)
    link_up: bool = Field(description="Whether the guest sees the cable plugged in.")
    bandwidth: BandwidthStatus | None = Field(default=None, description="Limits of the interface; absent: none.")
    boot_order: int | None = Field(default=None, description="Place in the boot order.", ge=1, le=255)
    tap_name: str | None = Field(default=None, description="Name of the tap on the node.", max_length=15)


class LastExit(ApiModel):
    """How the last QEMU of this guest ended."""

    reason: str = Field(description="Why, as one CamelCase word.", max_length=64)
    code: int | None = Field(
        default=None, description="Exit status; negative: the signal that ended it.", ge=-128, le=255
    )
    at: str = Field(description="When (RFC 3339, UTC).", max_length=32, json_schema_extra={"format": "date-time"})
    log_tail: Annotated[str, BeforeValidator(_tail)] = Field(
        default="", description="The end of what QEMU printed.", max_length=LOG_TAIL_MAX
    )


class VirtualGuestStatus(ApiModel):
    """What is true of the guest; written by the program alone."""

    observed_generation: int = Field(
        default=-1, description="The metadata.generation this status was computed from; -1: none yet.", ge=-1, le=_BIG
    )
    phase: Phase | None = Field(default=None, description="A summary for people; programs read conditions.")
    conditions: tuple[Condition, ...] = Field(
        default=(), description="What is observed about the guest.", max_length=16, json_schema_extra=_BY_TYPE
    )
    node_name: str | None = Field(default=None, description="The one node that may run the guest.", max_length=253)
    placement_epoch: int | None = Field(
        default=None, description="Counts the times the guest was placed or handed over.", ge=0, le=_BIG
    )
    uuid: str | None = Field(default=None, description="The machine's UUID.", max_length=36)
    machine_type: str | None = Field(
        default=None, description="The versioned machine type, such as pc-q35-7.2.", max_length=64
    )
    accelerator: Accelerator | None = Field(default=None, description="Who executes the guest's instructions.")
    tb_size_mib: int | None = Field(default=None, description="Size of TCG's translation cache in MiB.", ge=1, le=65536)
    firmware: FirmwareStatus | None = Field(default=None, description="The firmware that was given to QEMU.")
    boot: BootStatus | None = Field(default=None, description="How the guest booted.")
    qemu: QemuStatus | None = Field(default=None, description="The process that runs the guest.")
    cpu: CpuStatus | None = Field(default=None, description="The virtual CPUs that were given to QEMU.")
    memory: MemoryStatus | None = Field(default=None, description="The memory that was given to QEMU.")
    devices: DevicesStatus | None = Field(default=None, description="The small devices that were given to QEMU.")
    console: ConsoleStatus | None = Field(default=None, description="The consoles that were given to QEMU.")
    pci: PciStatus | None = Field(default=None, description="The recorded PCI layout.")
    disks: tuple[DiskStatus, ...] = Field(
        default=(), description="Disks as QEMU was given them.", max_length=64, json_schema_extra=_BY_NAME
    )
    networks: tuple[NetworkStatus, ...] = Field(
        default=(), description="Networks as QEMU was given them.", max_length=32, json_schema_extra=_BY_NAME
    )
    restarts: int | None = Field(
        default=None, description="Times QEMU was started again after it ended by itself.", ge=0, le=_BIG
    )
    last_exit: LastExit | None = Field(default=None, description="How the last QEMU of this guest ended.")
    restart_token: str | None = Field(
        default=None, description="The last restart token that was honoured.", max_length=128
    )

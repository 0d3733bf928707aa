"""What a user may ask of a guest; the spec is the user's alone and no part of the program writes it.

Bounds, defaults and descriptions stand here once and become the CRD. Rules across fields are in ``spec_rules``.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from guestlet.api.base import ApiModel
from guestlet.api.cel import CelRule
from guestlet.api.disk_spec import DiskSpec, FileSourceSpec, OnDelete, SourceSpec
from guestlet.api.network_spec import (
    BridgeSpec,
    HostForwardSpec,
    IsolatedSpec,
    NetworkSpec,
    TapSpec,
    UserSpec,
)
from guestlet.api.quantity import Bounds, Quantity
from guestlet.api.spec_rules import CPU_RULES, MEMORY_RULES, SPEC_RULES
from guestlet.api.text import CpuModelName, ImageName, KernelCommandLine, NodeName, PoolName, RestartToken
from guestlet.pci.layout import DeviceBus
from guestlet.qemu.machine import FirmwareType, MachineType, WatchdogAction

__all__ = [
    "AcceleratorChoice",
    "BootSpec",
    "BridgeSpec",
    "ConsoleSpec",
    "CpuSpec",
    "DevicesSpec",
    "DiskSpec",
    "FileSourceSpec",
    "FirmwareSpec",
    "HostForwardSpec",
    "IsolatedSpec",
    "KernelSpec",
    "MachineSpec",
    "MemorySpec",
    "NetworkSpec",
    "OnDelete",
    "PciSpec",
    "RestartMode",
    "RestartSpec",
    "RunStrategy",
    "SourceSpec",
    "TapSpec",
    "UserSpec",
    "VirtualGuestSpec",
    "WatchdogSpec",
]

MEMORY = Bounds(what="the guest's memory", low="16Mi", high="16Ti")


class RunStrategy(StrEnum):
    """When the guest runs."""

    ALWAYS = "Always"  # started, and started again whatever ended it
    RERUN_ON_FAILURE = "RerunOnFailure"  # started again after a crash, not after its own power-off
    ONCE = "Once"  # started one time; whatever ended it, it stays ended
    MANUAL = "Manual"  # started and stopped by nobody but the guest and restart tokens
    HALTED = "Halted"  # does not run; stopped gracefully if it does


class RestartMode(StrEnum):
    """How a restart ends what runs."""

    GRACEFUL = "Graceful"  # ACPI power-down, then kill when the grace period is over; a new QEMU starts
    RESET = "Reset"  # the machine's reset button: the same QEMU goes on


class AcceleratorChoice(StrEnum):
    """What a user may say about who executes the guest's instructions."""

    AUTO = "Auto"  # the faster of KVM and TCG as timed on this node
    KVM = "KVM"
    TCG = "TCG"


class RestartSpec(ApiModel):
    """A request to restart: a new token is a new request."""

    token: RestartToken = Field(description="Any text; the guest is restarted whenever it changes.")
    mode: RestartMode = Field(
        default=RestartMode.GRACEFUL,
        description="Graceful powers the guest down and starts a new QEMU; Reset presses the reset button.",
    )


class MachineSpec(ApiModel):
    """The chipset."""

    type: MachineType = Field(
        default=MachineType.Q35,
        description="Chipset family, q35 or pc; immutable after the first start. The versioned type is resolved then "
        "and kept in status.machineType.",
    )


class FirmwareSpec(ApiModel):
    """What the guest's first instruction belongs to."""

    type: FirmwareType = Field(
        default=FirmwareType.BIOS, description="BIOS, or UEFI with variables of this guest's own kept on the node."
    )


class KernelSpec(ApiModel):
    """A kernel that QEMU loads itself."""

    pool: PoolName = Field(description="Name of the node's pool that holds kernel and initrd.")
    image: ImageName = Field(description="File name of the kernel inside the pool.")
    initrd: ImageName | None = Field(default=None, description="File name of the initial ramdisk inside the pool.")
    cmdline: KernelCommandLine = Field(default="", description="The kernel's command line.")


class BootSpec(ApiModel):
    """How the guest boots."""

    kernel: KernelSpec | None = Field(default=None, description="Direct kernel boot; absent: the firmware boots.")

    cel_rules: ClassVar = (
        CelRule(rule="has(self.kernel)", message="boot without kernel says nothing: set kernel, or remove boot"),
    )


class CpuSpec(ApiModel):
    """Virtual CPUs and how the guest sees them arranged."""

    count: int = Field(
        default=1,
        description="Number of virtual CPUs; may change while the guest runs, up to maxCount.",
        ge=1,
        le=255,
    )
    max_count: int | None = Field(
        default=None,
        description="Most virtual CPUs without a restart; absent: count, so that none can be plugged.",
        ge=1,
        le=255,
    )
    sockets: int | None = Field(
        default=None,
        description="Sockets the guest sees. Of sockets, cores and threads the absent ones are completed so that "
        "their product is maxCount: sockets takes the rest, else cores, else threads.",
        ge=1,
        le=255,
    )
    cores: int | None = Field(default=None, description="Cores in each socket; see sockets.", ge=1, le=255)
    threads: int | None = Field(default=None, description="Threads in each core; see sockets.", ge=1, le=255)
    model: CpuModelName | None = Field(
        default=None,
        description="A CPU model that the node's QEMU knows, or Host or Max; absent: a named, versioned model chosen "
        "at the first start and kept in status.cpu.model.",
    )

    cel_rules: ClassVar = CPU_RULES


class MemorySpec(ApiModel):
    """The guest's memory."""

    size: Annotated[Quantity, AfterValidator(MEMORY.check)] = Field(
        default="512Mi",
        description="Memory the guest sees, such as 2Gi; may grow while the guest runs, up to maxSize.",
        json_schema_extra=MEMORY.schema,
    )
    max_size: Annotated[Quantity, AfterValidator(MEMORY.check)] | None = Field(
        default=None,
        description="Most memory without a restart; absent: size, so that none can be plugged. Where it is more than "
        "size, both must be multiples of 2Mi, the blocks that memory is plugged in.",
        json_schema_extra=MEMORY.schema,
    )

    cel_rules: ClassVar = MEMORY_RULES


class ConsoleSpec(ApiModel):
    """The guest's consoles."""

    serial_log: bool = Field(
        default=True, description="What the guest prints on its serial console is also kept in a file on the node."
    )


class WatchdogSpec(ApiModel):
    """A watchdog timer (i6300esb) in the guest."""

    action: WatchdogAction = Field(
        default=WatchdogAction.RESET, description="What happens when it fires: Reset, PowerOff, Pause or None."
    )


class DevicesSpec(ApiModel):
    """Small devices of the guest."""

    rng: bool = Field(default=True, description="A virtio random number generator fed by the node.")
    balloon: bool = Field(default=True, description="A virtio memory balloon, with statistics from the guest.")
    watchdog: WatchdogSpec | None = Field(default=None, description="A watchdog timer; absent: none.")
    pvpanic: bool = Field(default=True, description="A device by which a panicking guest kernel says so.")


class PciSpec(ApiModel):
    """The guest's PCI buses."""

    hotplug_ports: int = Field(
        default=4,
        description="Spare places kept for devices plugged in later: on q35 with deviceBus RootPort root ports, else "
        "slots of the conventional buses.",
        ge=0,
        le=32,
    )
    device_bus: DeviceBus = Field(
        default=DeviceBus.ROOT_PORT,
        description="Where disks and networks go on q35: RootPort (a PCI Express root port each) or PCIBridge (all on "
        "one conventional bridge); immutable after the first start.",
    )


class VirtualGuestSpec(ApiModel):
    """What the user asks of the guest."""

    node_name: NodeName | None = Field(
        default=None,
        description="Node where the guest is placed first; immutable once set. Absent: the controller chooses.",
    )
    run_strategy: RunStrategy = Field(
        default=RunStrategy.ALWAYS,
        description="When the guest runs: Always; RerunOnFailure (again after a crash, not after its own power-off); "
        "Once; Manual (nobody but the guest stops it, a restart token starts it); Halted.",
    )
    paused: bool = Field(default=False, description="Freezes the guest's virtual CPUs while true.")
    restart: RestartSpec | None = Field(default=None, description="A request to restart; a new token is a new request.")
    termination_grace_period_seconds: int = Field(
        default=30,
        description="Seconds between the ACPI power-down request and the kill whenever the guest is stopped; 0 kills "
        "at once.",
        ge=0,
        le=86400,
    )
    machine: MachineSpec = Field(default=MachineSpec(), description="The chipset.")
    accelerator: AcceleratorChoice = Field(
        default=AcceleratorChoice.AUTO,
        description="Who executes the guest's instructions: KVM, TCG, or Auto, which times both once on the node and "
        "takes the faster.",
    )
    firmware: FirmwareSpec = Field(default=FirmwareSpec(), description="What the guest's first instruction belongs to.")
    boot: BootSpec | None = Field(default=None, description="How the guest boots; absent: the firmware decides.")
    cpu: CpuSpec = Field(default=CpuSpec(), description="Virtual CPUs and how the guest sees them arranged.")
    memory: MemorySpec = Field(default=MemorySpec(), description="The guest's memory.")
    disks: tuple[DiskSpec, ...] = Field(
        default=(),
        description="Disks and cdrom drives, in the order their addresses are placed; they may come, go, grow and be "
        "throttled while the guest runs.",
        max_length=30,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    networks: tuple[NetworkSpec, ...] = Field(
        default=(),
        description="Network interfaces, in the order their addresses are placed; they may come and go while the guest "
        "runs.",
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    console: ConsoleSpec = Field(default=ConsoleSpec(), description="The guest's consoles.")
    devices: DevicesSpec = Field(default=DevicesSpec(), description="Small devices of the guest.")
    pci: PciSpec = Field(default=PciSpec(), description="The guest's PCI buses.")

    cel_rules: ClassVar = SPEC_RULES

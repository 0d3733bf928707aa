"""The live description of one guest's machine: every value that QEMU is given, resolved, and no host path.

A ``Machine`` is made once from the user's spec (``guest.desired``), kept in the host record, published in status and
rebuilt from status alone. It must never hold what only one node knows (paths, process ids, descriptors): those are
``HostPaths``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from guestlet.pci.layout import Layout


class MachineType(StrEnum):
    """The chipset family a user asks for."""

    Q35 = "q35"
    PC = "pc"


class Accelerator(StrEnum):
    """What executes the guest's instructions."""

    KVM = "KVM"
    TCG = "TCG"


class FirmwareType(StrEnum):
    """What the guest's first instruction belongs to."""

    BIOS = "BIOS"
    UEFI = "UEFI"


class DiskBus(StrEnum):
    """How the guest sees a disk."""

    VIRTIO = "Virtio"
    SCSI = "SCSI"
    SATA = "SATA"
    NVME = "NVMe"


class ImageFormat(StrEnum):
    """Formats of image files; always named to QEMU, never probed."""

    RAW = "Raw"
    QCOW2 = "Qcow2"


class CacheMode(StrEnum):
    """QEMU's cache modes, in the words of its manual."""

    NONE = "None"
    WRITEBACK = "Writeback"
    WRITETHROUGH = "Writethrough"
    DIRECTSYNC = "Directsync"
    UNSAFE = "Unsafe"


class AioMode(StrEnum):
    """How QEMU issues I/O on the host."""

    THREADS = "Threads"
    NATIVE = "Native"
    IO_URING = "IOUring"


class DiscardMode(StrEnum):
    """Whether the guest's discards reach the image."""

    UNMAP = "Unmap"
    IGNORE = "Ignore"


class NicModel(StrEnum):
    """How the guest sees a network interface."""

    VIRTIO = "Virtio"
    E1000 = "E1000"


class Protocol(StrEnum):
    """Transport of a host forward."""

    TCP = "TCP"
    UDP = "UDP"


class WatchdogAction(StrEnum):
    """What QEMU does when the guest's watchdog fires."""

    RESET = "Reset"
    POWEROFF = "PowerOff"
    PAUSE = "Pause"
    NONE = "None"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBoot:
    """Direct kernel boot: image names inside a pool, never paths."""

    pool: str
    image: str
    initrd: str | None
    cmdline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """Virtual CPUs: ``count`` are there now, ``max_count == sockets * cores * threads`` can be without a restart.

    Those that are there are always the first ``count`` of QEMU's own order (``query-hotpluggable-cpus``, last first),
    so that ``-smp cpus=count`` makes the same machine. ``model`` is a versioned QEMU name, ``host`` or ``max``.
    """

    count: int
    max_count: int
    sockets: int
    cores: int
    threads: int
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimm:
    """A memory module plugged into the running machine: ``dimm-<slot>``, behind it the object ``mem-<slot>``."""

    slot: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtioMem:
    """The virtio-mem device of a machine whose memory may grow: ``requested_bytes`` of its ``max_bytes``."""

    max_bytes: int
    block_bytes: int
    requested_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """``boot_bytes`` are there at start; more comes by ``virtio_mem`` and ``dimms``, up to ``max_bytes`` in all."""

    boot_bytes: int
    max_bytes: int
    virtio_mem: VirtioMem | None
    dimms: tuple[Dimm, ...]

    @property
    def asked_bytes(self) -> int:
        """What the guest has, once it has taken all that it was offered."""
        offered = self.virtio_mem.requested_bytes if self.virtio_mem else 0
        return self.boot_bytes + offered + sum(each.size_bytes for each in self.dimms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """Limits of one disk: requests a second and bytes a second, and how far each may go beyond for a moment."""

    iops: int | None
    iops_burst: int | None
    bandwidth_bytes: int | None
    bandwidth_burst_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """Limits of one interface in bytes a second, as the guest sees the directions."""

    inbound_bytes: int | None
    outbound_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """An image file of a pool; ``backing_image`` (same pool) is set only on qcow2 overlays."""

    pool: str
    image: str
    format: ImageFormat
    backing_image: str | None
    backing_format: ImageFormat | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One disk or cdrom drive. ``size_bytes`` is the virtual size seen by the guest; ``serial`` is never empty.

    ``source`` is ``None`` only for a cdrom drive without a medium.
    """

    name: str
    bus: DiskBus
    source: FileSource | None
    size_bytes: int
    read_only: bool
    cdrom: bool
    serial: str
    cache: CacheMode
    aio: AioMode
    discard: DiscardMode
    io_thread: bool
    throttle: Throttle | None
    boot_order: int | None
    unit: int | None  # port of the AHCI controller or LUN's target of the SCSI controller; None for Virtio and NVMe


@dataclass(frozen=True, slots=True, kw_only=True)
class HostForward:
    """``host_address:host_port`` on the node leads to ``guest_port`` in the guest."""

    protocol: Protocol
    host_address: str
    host_port: int
    guest_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserNet:
    """QEMU's user-mode network (slirp)."""

    host_forwards: tuple[HostForward, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeNet:
    """A tap that the agent puts on the named bridge of the node."""

    bridge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TapNet:
    """A tap handed to scripts of the node (names inside the scripts directory, never paths)."""

    up_script: str | None
    down_script: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolatedNet:
    """An interface with link and no peer."""


NetBackend = UserNet | BridgeNet | TapNet | IsolatedNet


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One network interface. ``tap`` is the host's interface name for bridge and tap backends, else ``None``."""

    name: str
    model: NicModel
    mac: str
    backend: NetBackend
    queues: int
    link_up: bool
    bandwidth: Bandwidth | None
    boot_order: int | None
    tap: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All that QEMU is given. ``tb_size_mib`` bounds TCG's translation cache (1 GiB by default otherwise)."""

    uuid: str
    name: str
    machine_type: str  # versioned: pc-q35-7.2
    accelerator: Accelerator
    tb_size_mib: int | None
    firmware: FirmwareType
    firmware_image: str | None  # file name of the UEFI code image, found in the node's firmware directories
    kernel: KernelBoot | None
    cpu: Cpu
    memory: Memory
    disks: tuple[Disk, ...]
    networks: tuple[Nic, ...]
    rng: bool
    balloon: bool
    watchdog: WatchdogAction | None
    pvpanic: bool
    serial_log: bool
    sandbox: bool  # the build has seccomp: -sandbox on,…
    pci: Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPaths:
    """What only this node knows and the command line needs: absolute paths and inherited descriptors.

    ``runtime_dir`` holds the sockets ``qmp``, ``observer`` and ``console``; ``state_dir`` holds ``qemu.pid``,
    ``serial.log`` and ``nvram.fd``. ``tap_fds[name]`` are the descriptors (one a queue) that QEMU inherits for NIC
    ``name``.
    """

    binary: str
    data_dirs: tuple[str, ...]
    state_dir: str
    runtime_dir: str
    pools: Mapping[str, str]
    firmware_code: str | None
    tap_fds: Mapping[str, tuple[int, ...]]

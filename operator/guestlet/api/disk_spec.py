"""What a user may ask of a disk: its image, how the guest sees it, how the host does its I/O.

The models hold what was asked, never what was resolved. Rules across several disks stand on the guest's spec.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from guestlet.api.base import ApiModel
from guestlet.api.cel import CelRule
from guestlet.api.quantity import Bounds, Quantity
from guestlet.api.text import DeviceName, ImageName, PciText, PoolName, SerialText
from guestlet.qemu.machine import AioMode, CacheMode, DiscardMode, DiskBus, ImageFormat

RATE = Bounds(what="a rate in bytes a second", low="1Ki", high="1Ti")
DISK_SIZE = Bounds(what="the size of a disk", low="1Mi", high="64Ti", step_bytes=512)


class OnDelete(StrEnum):
    """What becomes of an image that guestlet created when its disk or guest is deleted."""

    KEEP = "Keep"
    DELETE = "Delete"


class FileSourceSpec(ApiModel):
    """An image file in a pool of the node."""

    pool: PoolName = Field(description="Name of the node's pool that holds the image.")
    image: ImageName = Field(description="File name of the image inside the pool; never a path.")
    format: ImageFormat = Field(
        default=ImageFormat.QCOW2,
        description="Format of the image, Qcow2 or Raw; it is never guessed, an existing image of another is refused.",
    )
    backing_image: ImageName | None = Field(
        default=None,
        description="File name, in the same pool, of the image that this Qcow2 one is an overlay of; it is only read.",
    )

    cel_rules: ClassVar = (
        CelRule(
            rule="self.format == 'Qcow2' || !has(self.backingImage)",
            message="a Raw image has no backing image: remove backingImage or set format to Qcow2",
            field_path=".backingImage",
        ),
        CelRule(
            rule="!has(self.backingImage) || self.backingImage != self.image",
            message="an image cannot be its own backing image: name another file in backingImage",
            field_path=".backingImage",
        ),
    )


class SourceSpec(ApiModel):
    """Where the bytes of a disk are: exactly one member is set."""

    file: FileSourceSpec | None = Field(default=None, description="An image file in a pool of the node.")

    cel_rules: ClassVar = (
        CelRule(
            rule="has(self.file)",
            message="name exactly one source: set file with pool and image",
        ),
    )


class ThrottleSpec(ApiModel):
    """Limits of a disk's I/O; changed while the guest runs."""

    iops: int | None = Field(default=None, description="Requests a second, reads and writes.", ge=1, le=100_000_000)
    iops_burst: int | None = Field(
        default=None, description="Requests a second for a moment; at least iops.", ge=1, le=100_000_000
    )
    bandwidth: Annotated[Quantity, AfterValidator(RATE.check)] | None = Field(
        default=None, description="Bytes a second, reads and writes.", json_schema_extra=RATE.schema
    )
    bandwidth_burst: Annotated[Quantity, AfterValidator(RATE.check)] | None = Field(
        default=None, description="Bytes a second for a moment; at least bandwidth.", json_schema_extra=RATE.schema
    )

    cel_rules: ClassVar = (
        CelRule(
            rule="has(self.iops) || has(self.bandwidth)",
            message="throttle without iops and bandwidth limits nothing: set one, or remove throttle",
        ),
        CelRule(
            rule="!has(self.iopsBurst) || has(self.iops)",
            message="iopsBurst says how far beyond iops the disk may go: set iops too, or remove iopsBurst",
            field_path=".iopsBurst",
        ),
        CelRule(
            rule="!has(self.iopsBurst) || !has(self.iops) || self.iopsBurst >= self.iops",
            message="iopsBurst must be at least iops: raise it, or remove it",
            field_path=".iopsBurst",
        ),
        CelRule(
            rule="!has(self.bandwidthBurst) || has(self.bandwidth)",
            message="bandwidthBurst says how far beyond bandwidth the disk may go: set bandwidth too, or remove "
            "bandwidthBurst",
            field_path=".bandwidthBurst",
        ),
        CelRule(
            rule="!has(self.bandwidthBurst) || !has(self.bandwidth) || !isQuantity(self.bandwidthBurst)"
            " || !isQuantity(self.bandwidth)"
            " || quantity(self.bandwidthBurst).compareTo(quantity(self.bandwidth)) >= 0",
            message="bandwidthBurst must be at least bandwidth: raise it, or remove it",
            expression="'bandwidthBurst ' + self.bandwidthBurst + ' is less than bandwidth ' + self.bandwidth "
            "+ ': raise it, or remove it'",
            field_path=".bandwidthBurst",
        ),
    )


class DiskSpec(ApiModel):
    """One disk or cdrom drive."""

    name: DeviceName = Field(description="Name of the disk, unique among the guest's disks; status uses it too.")
    bus: DiskBus = Field(
        default=DiskBus.VIRTIO,
        description="How the guest sees it: Virtio (a PCI function of its own), SCSI (virtio-scsi), SATA or NVMe.",
    )
    source: SourceSpec | None = Field(
        default=None,
        description="Where the bytes of the disk are: exactly one member is set. Absent only for a cdrom: the drive "
        "is empty. Of a cdrom it may change while the guest runs.",
    )
    size: Annotated[Quantity, AfterValidator(DISK_SIZE.check)] | None = Field(
        default=None,
        description="Virtual size. With it, an image that never existed is created, once; an existing smaller one is "
        "grown, while the guest runs too; none is ever shrunk. Without it the image must exist, or has the size of its "
        "backingImage.",
        json_schema_extra=DISK_SIZE.schema,
    )
    read_only: bool = Field(default=False, description="The guest cannot write; the image is never changed or deleted.")
    cdrom: bool = Field(
        default=False, description="The guest sees a CD-ROM drive; needs bus SATA or SCSI, readOnly true and no size."
    )
    serial: SerialText | None = Field(
        default=None,
        description="Serial number the guest sees, unique in the guest; absent: the first 20 characters of name.",
    )
    cache: CacheMode = Field(
        default=CacheMode.WRITEBACK,
        description="Host caching, in QEMU's words. Writeback works on every file system and keeps the guest's "
        "flushes; None and Directsync need a file system with O_DIRECT; Unsafe ignores flushes.",
    )
    aio: AioMode = Field(
        default=AioMode.THREADS,
        description="How QEMU does the I/O: Threads, Native (needs cache None or Directsync) or IOUring.",
    )
    discard: DiscardMode = Field(
        default=DiscardMode.UNMAP, description="Whether blocks the guest discards are given back to the host."
    )
    io_thread: bool = Field(
        default=False, description="The disk's I/O runs in a thread of its own (SCSI disks: of their controller)."
    )
    throttle: ThrottleSpec | None = Field(
        default=None, description="Limits of the disk's I/O, changed while the guest runs; absent: none."
    )
    boot_order: int | None = Field(
        default=None,
        description="Place in the firmware's boot order, lowest first, unique over disks and networks.",
        ge=1,
        le=255,
    )
    on_delete: OnDelete = Field(
        default=OnDelete.KEEP,
        description="What becomes of the image when the disk or the guest is deleted. Delete removes only an image "
        "that guestlet created and nothing else uses.",
    )
    pci_address: PciText | None = Field(
        default=None,
        description="Place of the disk as <bus id>:<slot>.<function>, such as pcie.0:05.0; honoured exactly or "
        "refused. Absent: placed once and kept in status.pci. Virtio and NVMe only.",
    )

    cel_rules: ClassVar = (
        CelRule(
            rule="has(self.source) || self.cdrom",
            message="only a cdrom drive may be empty: set source, or make it a cdrom",
            expression="'disk ' + self.name + ' has no source, and only a cdrom drive may be empty: set source, or "
            "make it a cdrom'",
            field_path=".source",
        ),
        CelRule(
            rule="!self.cdrom || self.bus in ['SATA', 'SCSI']",
            message="a cdrom must be on bus SATA or SCSI",
            expression="'a cdrom cannot be on bus ' + self.bus + ': set bus to SATA or SCSI'",
            field_path=".bus",
        ),
        CelRule(
            rule="!self.cdrom || self.readOnly",
            message="a cdrom is read-only: set readOnly to true",
            field_path=".readOnly",
        ),
        CelRule(
            rule="!self.readOnly || !has(self.size)",
            message="a read-only disk or cdrom is never created or grown: remove size, or set readOnly to false",
            field_path=".size",
        ),
        CelRule(
            rule="!self.readOnly || self.cdrom || self.bus != 'SATA'",
            message="a SATA disk cannot be read-only: use bus Virtio or SCSI, or make it a cdrom",
            field_path=".readOnly",
        ),
        CelRule(
            rule="self.onDelete == 'Keep' || !self.readOnly",
            message="the image of a read-only disk is never deleted: set onDelete to Keep",
            field_path=".onDelete",
        ),
        CelRule(
            rule="self.onDelete == 'Keep' || has(self.size) || (has(self.source) && has(self.source.file) && "
            "has(self.source.file.backingImage))",
            message="onDelete Delete removes only images that guestlet creates, and it creates one only with size or "
            "backingImage: set size, or set onDelete to Keep",
            field_path=".onDelete",
        ),
        CelRule(
            rule="self.aio != 'Native' || self.cache in ['None', 'Directsync']",
            message="aio Native does not work with this cache: set cache to None or Directsync, or aio to Threads",
            expression="'aio Native does not work with cache ' + self.cache "
            "+ ': set cache to None or Directsync, or aio to Threads'",
            field_path=".aio",
        ),
        CelRule(
            rule="!self.ioThread || self.bus in ['Virtio', 'SCSI']",
            message="ioThread works on bus Virtio or SCSI only: change bus, or set ioThread to false",
            field_path=".ioThread",
        ),
        CelRule(
            rule="!has(self.pciAddress) || self.bus in ['Virtio', 'NVMe']",
            message="a SCSI or SATA disk shares its controller's PCI address: remove pciAddress, "
            "or set bus to Virtio or NVMe",
            field_path=".pciAddress",
        ),
    )

"""Disks of the next start: sources checked against what the pools hold, units given once and kept. Pure."""

import hashlib

from guestlet.api.disk_spec import DiskSpec, FileSourceSpec, ThrottleSpec
from guestlet.api.quantity import format_bytes, parse_quantity
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.observed import StorageFacts
from guestlet.host.facts import ImageFacts
from guestlet.qemu.machine import Disk, DiskBus, FileSource, ImageFormat, Machine, Throttle

_SERIAL_MAX = 20  # of virtio-blk (VIRTIO 1.2, 5.2.6.1) and ATA
# Five AHCI controllers of six ports each; a virtio-scsi controller addresses 256 targets (we use LUN 0 of each).
_UNITS = {DiskBus.SATA: 30, DiskBus.SCSI: 256}


def resolve_disks(specs: tuple[DiskSpec, ...], *, storage: StorageFacts, previous: Machine | None) -> tuple[Disk, ...]:
    """The disks in spec order.

    Raises:
        Refused: an image or pool is not as the spec says, or a bus has no unit left.
    """
    wanted = {spec.name for spec in specs}
    held = [disk for disk in previous.disks if disk.name in wanted] if previous else []
    disks = []
    for number, spec in enumerate(specs):
        disk = resolve_disk(spec, earlier=specs[:number], storage=storage, live=tuple(held))
        disks.append(disk)
        held = [each for each in held if each.name != disk.name] + [disk]
    return tuple(disks)


def resolve_disk(
    spec: DiskSpec, *, earlier: tuple[DiskSpec, ...], storage: StorageFacts, live: tuple[Disk, ...]
) -> Disk:
    """One disk; ``live``: those that the machine has and will have, ``earlier``: the spec's disks before this one.

    Raises:
        Refused: its image or pool is not as the spec says, its bus has no unit left, or its serial is an earlier one's.
    """
    _refuse_double_serial(spec, earlier)
    where = f"spec.disks[{spec.name}]"
    recorded = next((each for each in live if each.name == spec.name), None)
    source = file_source(spec)
    return Disk(
        name=spec.name,
        bus=spec.bus,
        source=_resolved_source(where, source, storage) if source else None,
        size_bytes=_size(where, spec, storage, recorded),
        read_only=spec.read_only or spec.cdrom,
        cdrom=spec.cdrom,
        serial=_serial(spec),
        cache=spec.cache,
        aio=spec.aio,
        discard=spec.discard,
        io_thread=spec.io_thread,
        throttle=_throttle(spec.throttle) if spec.throttle else None,
        boot_order=spec.boot_order,
        unit=_unit(spec, live),
    )


def _serial(spec: DiskSpec) -> str:
    """The user's serial, else the disk's name; one that is longer than a serial may be is told apart by its digest."""
    if spec.serial is not None:
        return spec.serial
    if len(spec.name) <= _SERIAL_MAX:
        return spec.name
    return f"{spec.name[: _SERIAL_MAX - 9]}-{hashlib.sha256(spec.name.encode()).hexdigest()[:8]}"


def _refuse_double_serial(spec: DiskSpec, earlier: tuple[DiskSpec, ...]) -> None:
    serial = _serial(spec)
    for other in earlier:
        if _serial(other) == serial:
            raise Refused(
                Reason.INVALID_SPEC,
                f"spec.disks[{spec.name}].serial: {serial!r} is also that of disk {other.name}; give another",
            )


def file_source(spec: DiskSpec) -> FileSourceSpec | None:
    """The disk's file source, the only kind of source of this version; ``None``: a cdrom drive without a medium.

    Raises:
        Refused: a disk names no source (an object older than the rule of the CRD).
    """
    if spec.source is None and spec.cdrom:
        return None
    if spec.source is None or spec.source.file is None:
        raise Refused(Reason.INVALID_SPEC, f"spec.disks[{spec.name}].source: name exactly one source, file")
    return spec.source.file


def _throttle(spec: ThrottleSpec) -> Throttle:
    return Throttle(
        iops=spec.iops,
        iops_burst=spec.iops_burst,
        bandwidth_bytes=parse_quantity(spec.bandwidth) if spec.bandwidth else None,
        bandwidth_burst_bytes=parse_quantity(spec.bandwidth_burst) if spec.bandwidth_burst else None,
    )


def _unit(spec: DiskSpec, live: tuple[Disk, ...]) -> int | None:
    """The unit that the disk has, else the first that no disk of its bus has."""
    limit = _UNITS.get(spec.bus)
    if limit is None:
        return None
    held = {disk.name: disk.unit for disk in live if disk.bus is spec.bus}
    if spec.name in held:
        return held[spec.name]
    taken = frozenset(held.values())
    free = next((unit for unit in range(limit) if unit not in taken), None)
    if free is None:
        raise Refused(
            Reason.PCI_EXHAUSTED,
            f"spec.disks[{spec.name}].bus: {spec.bus.value} has {limit} units and all are taken; use Virtio or SCSI",
        )
    return free


def _size(where: str, spec: DiskSpec, storage: StorageFacts, recorded: Disk | None) -> int:
    source = file_source(spec)
    if source is None:
        return 0
    found = _image(f"{where}.source.file", source, storage)
    if recorded is not None and _is_same_raw(source, recorded.source) and _is_file(found):
        # A guest may write anything into its raw disk, another image's header too: what was recorded counts.
        return max(parse_quantity(spec.size) if spec.size else 0, recorded.size_bytes)
    if isinstance(found, Refused):
        raise Refused(found.reason, f"{where}.source.file.image: {found.message}")
    return _checked_size(where, spec, source, found, storage)


def _resolved_source(where: str, source: FileSourceSpec, storage: StorageFacts) -> FileSource:
    return FileSource(
        pool=source.pool,
        image=source.image,
        format=source.format,
        backing_image=source.backing_image,
        backing_format=_backing_format(f"{where}.source.file", source, storage),
    )


def _is_same_raw(source: FileSourceSpec, recorded: FileSource | None) -> bool:
    if recorded is None or source.format is not ImageFormat.RAW or recorded.format is not ImageFormat.RAW:
        return False
    return (source.pool, source.image) == (recorded.pool, recorded.image)


def _is_file(found: ImageFacts | Refused | None) -> bool:
    return isinstance(found, ImageFacts) or (found is not None and found.reason == Reason.IMAGE_CORRUPT)


def _image(where: str, source: FileSourceSpec, storage: StorageFacts) -> ImageFacts | Refused | None:
    pool = storage.pools.get(source.pool)
    if pool is None:
        raise Refused(
            Reason.NO_SUCH_POOL, f"{where}.pool: the node has no pool {source.pool!r}; add it to the node's settings"
        )
    if pool.identity is None:
        raise Refused(
            Reason.POOL_NOT_READY,
            f"{where}.pool: pool {source.pool!r} has no identity file .guestlet-pool on this node, so its file system "
            "may not be mounted; mount it, or set it up with 'guestlet pool init'",
        )
    return storage.images.get((source.pool, source.image))


def _checked_size(
    where: str, spec: DiskSpec, source: FileSourceSpec, found: ImageFacts | None, storage: StorageFacts
) -> int:
    wanted = parse_quantity(spec.size) if spec.size is not None else None
    if found is None:
        return wanted if wanted is not None else _size_of_backing(source, storage)
    if found.format is not source.format:
        raise Refused(
            Reason.IMAGE_FORMAT_MISMATCH,
            f"{where}.source.file.format: {source.format.value}, but image {source.image!r} is {found.format.value}; "
            "correct the format or the image",
        )
    if found.backing_image != source.backing_image:
        raise Refused(
            Reason.BACKING_IMAGE_MISMATCH,
            f"{where}.source.file.backingImage: {source.backing_image!r}, but image {source.image!r} is backed by "
            f"{found.backing_image!r}; name exactly that image of the same pool",
        )
    if wanted is not None and wanted < found.virtual_size_bytes:
        raise Refused(
            Reason.IMAGE_SIZE_MISMATCH,
            f"{where}.size: {spec.size} is less than the {format_bytes(found.virtual_size_bytes)} of image "
            f"{source.image!r}; images are never shrunk: ask for at least that",
        )
    return max(wanted or 0, found.virtual_size_bytes)


def _size_of_backing(source: FileSourceSpec, storage: StorageFacts) -> int:
    backing = storage.images.get((source.pool, source.backing_image or ""))
    return backing.virtual_size_bytes if isinstance(backing, ImageFacts) else 0


def _backing_format(where: str, source: FileSourceSpec, storage: StorageFacts) -> ImageFormat | None:
    if source.backing_image is None:
        return None
    backing = storage.images.get((source.pool, source.backing_image))
    if isinstance(backing, Refused):
        raise Refused(backing.reason, f"{where}.backingImage: {backing.message}")
    if backing is None:
        raise Refused(
            Reason.BACKING_IMAGE_MISSING,
            f"{where}.backingImage: pool {source.pool} has no image {source.backing_image!r}; put it there",
        )
    if backing.backing_image is not None:
        raise Refused(
            Reason.BACKING_IMAGE_MISMATCH,
            f"{where}.backingImage: {source.backing_image!r} is itself backed by {backing.backing_image!r}; chains "
            "have one step: flatten it (qemu-img convert), or name another image",
        )
    return backing.format

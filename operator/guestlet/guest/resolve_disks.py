"""Disks of the next start: sources checked against what the pools hold, units given once and kept. Pure."""

import hashlib
from collections.abc import Iterable

from guestlet.api.disk_spec import DiskSpec, FileSourceSpec
from guestlet.api.quantity import format_bytes, parse_quantity
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.observed import StorageFacts
from guestlet.host.facts import ImageFacts
from guestlet.qemu.machine import Disk, DiskBus, FileSource, ImageFormat, Machine

_SERIAL_MAX = 20  # of virtio-blk (VIRTIO 1.2, 5.2.6.1) and ATA
# Five AHCI controllers of six ports each; a virtio-scsi controller addresses 256 targets (we use LUN 0 of each).
_UNITS = {DiskBus.SATA: 30, DiskBus.SCSI: 256}


def resolve_disks(specs: tuple[DiskSpec, ...], *, storage: StorageFacts, previous: Machine | None) -> tuple[Disk, ...]:
    """The disks in spec order.

    Raises:
        Refused: an image or pool is not as the spec says, or a bus has no unit left.
    """
    units = _units(specs, previous)
    _refuse_double_serials(specs)
    recorded = {disk.name: disk for disk in previous.disks} if previous else {}
    return tuple(
        _disk(number, spec, storage, unit=units[spec.name], recorded=recorded.get(spec.name))
        for number, spec in enumerate(specs)
    )


def _serial(spec: DiskSpec) -> str:
    """The user's serial, else the disk's name; one that is longer than a serial may be is told apart by its digest."""
    if spec.serial is not None:
        return spec.serial
    if len(spec.name) <= _SERIAL_MAX:
        return spec.name
    return f"{spec.name[: _SERIAL_MAX - 9]}-{hashlib.sha256(spec.name.encode()).hexdigest()[:8]}"


def _refuse_double_serials(specs: tuple[DiskSpec, ...]) -> None:
    owners: dict[str, str] = {}
    for spec in specs:
        serial = _serial(spec)
        if serial in owners:
            raise Refused(
                Reason.INVALID_SPEC,
                f"spec.disks[{spec.name}].serial: {serial!r} is also that of disk {owners[serial]}; give another",
            )
        owners[serial] = spec.name


def file_source(spec: DiskSpec) -> FileSourceSpec:
    """The disk's file source, the only kind of source of this version.

    Raises:
        Refused: the disk names no source (an object older than the rule of the CRD).
    """
    if spec.source.file is None:
        raise Refused(Reason.INVALID_SPEC, f"spec.disks[{spec.name}].source: name exactly one source, file")
    return spec.source.file


def _units(specs: tuple[DiskSpec, ...], previous: Machine | None) -> dict[str, int | None]:
    kept = {disk.name: (disk.bus, disk.unit) for disk in previous.disks} if previous else {}
    units: dict[str, int | None] = {}
    for spec in specs:
        bus, unit = kept.get(spec.name, (None, None))
        units[spec.name] = unit if bus is spec.bus else None
    for spec in specs:
        if spec.bus in _UNITS and units[spec.name] is None:
            taken = {units[other.name] for other in specs if other.bus is spec.bus}
            units[spec.name] = _first_free(taken, spec)
    return units


def _first_free(taken: Iterable[int | None], spec: DiskSpec) -> int:
    limit = _UNITS[spec.bus]
    free = next((unit for unit in range(limit) if unit not in set(taken)), None)
    if free is None:
        raise Refused(
            Reason.PCI_EXHAUSTED,
            f"spec.disks[{spec.name}].bus: {spec.bus.value} has {limit} units and all are taken; use Virtio or SCSI",
        )
    return free


def _disk(number: int, spec: DiskSpec, storage: StorageFacts, *, unit: int | None, recorded: Disk | None) -> Disk:
    where = f"spec.disks[{number}]"
    source = file_source(spec)
    found = _image(f"{where}.source.file", source, storage)
    if recorded is not None and _is_same_raw(source, recorded.source) and _is_file(found):
        # A guest may write anything into its raw disk, another image's header too: what was recorded counts.
        size = max(parse_quantity(spec.size) if spec.size else 0, recorded.size_bytes)
    elif isinstance(found, Refused):
        raise Refused(found.reason, f"{where}.source.file.image: {found.message}")
    else:
        size = _checked_size(where, spec, source, found, storage)
    return Disk(
        name=spec.name,
        bus=spec.bus,
        source=FileSource(
            pool=source.pool,
            image=source.image,
            format=source.format,
            backing_image=source.backing_image,
            backing_format=_backing_format(f"{where}.source.file", source, storage),
        ),
        size_bytes=size,
        read_only=spec.read_only or spec.cdrom,
        cdrom=spec.cdrom,
        serial=_serial(spec),
        cache=spec.cache,
        aio=spec.aio,
        discard=spec.discard,
        io_thread=spec.io_thread,
        boot_order=spec.boot_order,
        unit=unit,
    )


def _is_same_raw(source: FileSourceSpec, recorded: FileSource) -> bool:
    if source.format is not ImageFormat.RAW or recorded.format is not ImageFormat.RAW:
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

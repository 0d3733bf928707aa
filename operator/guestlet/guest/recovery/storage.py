"""The disks of a running QEMU: what holds their bytes, how the guest sees them, and what they may be called. Pure.

A disk gets a name only if all of it is known: its image is a plain file of a pool, its bus one that guestlet knows. It
must never guess an image, nor which of two disks is meant.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from guestlet.api.disk_spec import DiskSpec
from guestlet.guest.recovery.buses import Buses
from guestlet.guest.recovery.command_line import CommandLine, DriveHint
from guestlet.guest.recovery.description import Hints
from guestlet.guest.recovery.naming import default_serial, part_name
from guestlet.pci.controllers import Family
from guestlet.qemu.device_tree import TreeDevice
from guestlet.qemu.found import FoundDrive, FoundImage, FoundQemu
from guestlet.qemu.machine import AioMode, CacheMode, DiscardMode, Disk, DiskBus, FileSource, ImageFormat
from guestlet.qemu.names import SATA_PORTS, disk_device, disk_node, sata_controller
from guestlet.qemu.questions import NAMED, plain_driver

_FORMATS = {"raw": ImageFormat.RAW, "qcow2": ImageFormat.QCOW2}
_IMAGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~@-]{0,127}")  # api/text.py, ImageName
_SERIAL = re.compile(r"[A-Za-z0-9_.+-]{1,20}")  # api/text.py, SerialText
_AIO = {"threads": AioMode.THREADS, "native": AioMode.NATIVE, "io_uring": AioMode.IO_URING}
_DISCARD = {
    "unmap": DiscardMode.UNMAP,
    "on": DiscardMode.UNMAP,
    "ignore": DiscardMode.IGNORE,
    "off": DiscardMode.IGNORE,
}
_BUSES = {"virtio-blk-pci": DiskBus.VIRTIO, "nvme": DiskBus.NVME, "scsi-hd": DiskBus.SCSI, "scsi-cd": DiskBus.SCSI}
_SATA = ("ide-hd", "ide-cd")
_WRITETHROUGH = ("writethrough", "directsync")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDisk:
    """A device of the tree that is a disk: ``front`` what the guest sees, ``back`` what has drive and serial."""

    front: TreeDevice
    back: TreeDevice
    drive: FoundDrive | None
    path: str  # qdev id or QOM path; empty: QEMU cannot be told of it

    @property
    def label(self) -> str:
        """What a person knows it by."""
        backend = self.drive.backend if self.drive else ""
        return self.front.id or backend or self.path or self.front.driver


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where a disk is: its bus, its unit there, the device of the tree with the PCI address, and that one's id."""

    bus: DiskBus
    unit: int | None
    holder: TreeDevice
    controller: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """The disks that have a name; ``holders``: id by index in the tree of what has their PCI addresses."""

    disks: tuple[Disk, ...]
    holders: Mapping[int, str]
    devices: Mapping[str, str]
    nodes: Mapping[str, str]
    doubts: tuple[str, ...]


def read_disks(found: FoundQemu, hints: Hints, *, line: CommandLine, buses: Buses) -> Disks:
    """The disks, in the order of the user's spec where there is one, else in QEMU's."""
    disks: list[Disk] = []
    holders: dict[int, str] = {}
    devices: dict[str, str] = {}
    nodes: dict[str, str] = {}
    doubts: list[str] = []
    seats = _Seats(found, buses)
    wanted = _wanted(hints)
    for each in found_disks(found):
        seat, source = seats.seat(each), source_of(each.drive, hints) if each.drive else None
        why = seat if isinstance(seat, str) else source if isinstance(source, str) else None
        if why is not None or isinstance(seat, str) or isinstance(source, str):
            doubts.append(f"disk {each.label}: {why}; it is left alone, and not part of the next start")
            continue
        name = _name(each, source, wanted, {disk.name for disk in disks})
        disk, unsure = _disk(each, name, found=found, source=source, seat=seat, hint=_hint(each, name, line, hints))
        disks.append(disk)
        doubts += unsure
        holders[seat.holder.index] = seat.controller or disk_device(name)
        if seat.controller and seat.holder.id != seat.controller and seat.holder.place != "1f.2":
            devices[seat.controller] = seat.holder.id or found.paths.get(seat.holder.index, "")
        if each.path != disk_device(name):
            devices[disk_device(name)] = each.path
        if each.drive is not None and each.drive.node not in ("", disk_node(name)):
            nodes[disk_node(name)] = each.drive.node
    doubts += _unclaimed(found)
    order = {spec.name: number for number, spec in enumerate(hints.spec.disks)} if hints.spec else {}
    return Disks(
        disks=tuple(sorted(disks, key=lambda disk: order.get(disk.name, len(order)))),
        holders=holders,
        devices=devices,
        nodes=nodes,
        doubts=tuple(doubts),
    )


def found_disks(found: FoundQemu) -> tuple[FoundDisk, ...]:
    """Every disk device of the tree with its drive: by what its ``drive`` names, then by where ``query-block`` puts it.

    In the order of ``query-block``, which is that of creation.
    """
    some = [_found_disk(found, each) for each in found.tree if plain_driver(each.driver) in (*_BUSES, *_SATA)]
    order = {id(drive): number for number, drive in enumerate(found.drives)}
    return tuple(sorted(some, key=lambda each: (order.get(id(each.drive), len(order)), -each.front.index)))


def _found_disk(found: FoundQemu, front: TreeDevice) -> FoundDisk:
    back = next((each for each in found.tree if each.above == front.index and "drive" in each.properties), front)
    reads = back.text("drive")
    drive = next((each for each in found.drives if reads and reads in (each.backend, each.node)), None)
    if drive is None:
        drive = next(
            (each for each in found.drives if front.id and each.path in (front.id, f"{NAMED}/{front.id}")), None
        )
    path = front.id or (drive.path if drive else "") or found.paths.get(front.index, "")
    return FoundDisk(front=front, back=back, drive=drive, path=path)


class _Seats:
    """Which controller is which: one virtio-scsi, and AHCIs of six ports each, in the order of their places."""

    def __init__(self, found: FoundQemu, buses: Buses) -> None:
        self._tree = {each.index: each for each in found.tree}
        self._places = buses.places
        self._family = buses.family
        scsi = [
            each for each in found.tree if plain_driver(each.driver) == "virtio-scsi-pci" and each.index in buses.places
        ]
        self._scsi = next(iter(sorted(scsi, key=lambda each: (each.id != "scsi", buses.places[each.index]))), None)
        ahci = [each for each in found.tree if each.driver == "ich9-ahci" and each.index in buses.places]
        self._ahci = sorted(ahci, key=lambda each: (each.place != "1f.2", each.id, buses.places[each.index]))

    def seat(self, disk: FoundDisk) -> Seat | str:
        """Where the disk is, or why that cannot be said in guestlet's words."""
        bus = _BUSES.get(plain_driver(disk.front.driver))
        if bus in (DiskBus.VIRTIO, DiskBus.NVME):
            if disk.front.index not in self._places:
                return "it is behind a controller that guestlet does not know"
            return Seat(bus=bus, unit=None, holder=disk.front, controller=None)
        return self._scsi_seat(disk) if bus is DiskBus.SCSI else self._sata_seat(disk)

    def _scsi_seat(self, disk: FoundDisk) -> Seat | str:
        holder = self._holder(disk.front)
        if holder is None or holder is not self._scsi:
            return "it is on a SCSI controller beside the first, or on none of virtio, and guestlet makes one"
        channel, target, lun = (disk.front.number(name) for name in ("channel", "scsi-id", "lun"))
        if channel or lun or target is None:
            return f"it is LUN {lun} of channel {channel}, and guestlet makes LUN 0 of channel 0 only"
        return Seat(bus=DiskBus.SCSI, unit=target, holder=holder, controller="scsi")

    def _sata_seat(self, disk: FoundDisk) -> Seat | str:
        holder = self._holder(disk.front)
        port = disk.front.bus.rpartition(".")[2]
        if holder is None or holder not in self._ahci or not port.isdecimal():
            return "it is on an IDE controller, which guestlet does not make (name it in spec with bus SATA, say)"
        first = 0 if self._family is Family.PC or self._ahci[0].place == "1f.2" else 1
        unit = (self._ahci.index(holder) + first) * SATA_PORTS + int(port)
        return Seat(bus=DiskBus.SATA, unit=unit, holder=holder, controller=sata_controller(unit))

    def _holder(self, device: TreeDevice) -> TreeDevice | None:
        """The PCI device that the disk hangs on."""
        above = self._tree.get(device.above) if device.above is not None else None
        while above is not None and above.index not in self._places:
            above = self._tree.get(above.above) if above.above is not None else None
        return above


def source_of(drive: FoundDrive, hints: Hints) -> FileSource | str | None:
    """The image in the words of the API, why there are none for it, or ``None`` for a drive without a medium."""
    if not drive.layers:
        return None
    if len(drive.layers) > 2:
        return f"its image {drive.layers[0].file} has a chain of {len(drive.layers)} images, and guestlet knows two"
    places = [_placed(each, hints) for each in drive.layers]
    wrong = next((each for each in places if isinstance(each, str)), None)
    if wrong is not None:
        return wrong
    (pool, image, kind), *below = [each for each in places if not isinstance(each, str)]
    if below and below[0][0] != pool:
        return f"its image {drive.layers[0].file} and the image it is backed by are in two pools"
    return FileSource(
        pool=pool,
        image=image,
        format=kind,
        backing_image=below[0][1] if below else None,
        backing_format=below[0][2] if below else None,
    )


def outside_pools(found: FoundQemu, hints: Hints) -> tuple[str, ...]:
    """The files of disks that are in no pool of the node, so that the disks can have no name."""
    drives = [each.drive for each in found_disks(found) if each.drive is not None]
    files = {
        layer.file for drive in drives for layer in drive.layers if layer.plain and hints.image(layer.file) is None
    }
    return tuple(sorted(files))


def _placed(layer: FoundImage, hints: Hints) -> tuple[str, str, ImageFormat] | str:
    """Pool, image and format of one layer, or why it has none."""
    kind = _FORMATS.get(layer.format)
    if kind is None or not layer.plain:
        return f"its image {layer.file} is {layer.format or 'of no known format'}, not a Raw or Qcow2 file"
    place = hints.image(layer.file)
    if place is None:
        return f"its image {layer.file} is in no pool of this node"
    if _IMAGE.fullmatch(place[1]) is None:
        return f"the name of its image {layer.file} is not one that the API can hold"
    return *place, kind


def _wanted(hints: Hints) -> Mapping[tuple[str, str], str]:
    """The user's names by pool and image, of images that one disk alone names."""
    found: dict[tuple[str, str], list[str]] = {}
    for spec in hints.spec.disks if hints.spec else ():
        if spec.source is not None and spec.source.file is not None:
            found.setdefault((spec.source.file.pool, spec.source.file.image), []).append(spec.name)
    return {key: names[0] for key, names in found.items() if len(names) == 1}


def _name(disk: FoundDisk, source: FileSource | None, wanted: Mapping[tuple[str, str], str], taken: set[str]) -> str:
    """By our own id, then by the image that spec names, then after what QEMU calls it."""
    if not disk.front.id.startswith("disk-") and source is not None:
        named = wanted.get((source.pool, source.image))
        if named is not None and named not in taken:
            return named
    backend = disk.drive.backend if disk.drive else ""
    return part_name("disk-", found=disk.front.id or backend, taken=taken, otherwise="disk")


def _hint(disk: FoundDisk, name: str, line: CommandLine, hints: Hints) -> DriveHint | DiskSpec | None:
    drive = disk.drive
    given = (line.drives.get(drive.backend) or line.drives.get(drive.node)) if drive else None
    if given is not None:
        return given
    return next((each for each in hints.spec.disks if each.name == name), None) if hints.spec else None


def _disk(
    found_disk: FoundDisk,
    name: str,
    *,
    found: FoundQemu,
    source: FileSource | None,
    seat: Seat,
    hint: DriveHint | DiskSpec | None,
) -> tuple[Disk, tuple[str, ...]]:
    drive, back = found_disk.drive, found_disk.back
    serial = back.text("serial")
    aio, discard, unsure = _options(name, hint, there=source is not None)
    if _SERIAL.fullmatch(serial) is None:
        unsure = (
            *unsure,
            f"disk {name} has {'the serial ' + serial if serial else 'no serial'}: from the next start "
            f"on it has {default_serial(name)}",
        )
        serial = default_serial(name)
    if drive is not None and drive.odd:
        unsure = (*unsure, f"disk {name} is throttled in one direction only: such limits are not kept")
    if plain_driver(found_disk.front.driver) != found_disk.front.driver:
        unsure = (*unsure, f"disk {name} is a {found_disk.front.driver}: from the next start on it is a plain one")
    cdrom = found_disk.front.driver.endswith("-cd")
    path = f"{NAMED}/{found_disk.path}" if found_disk.path and found_disk.path[0] != "/" else found_disk.path
    boot = found.settings.get(f"{path} bootindex", -1)
    disk = Disk(
        name=name,
        bus=seat.bus,
        source=source,
        size_bytes=drive.size_bytes if drive else 0,
        read_only=cdrom or (drive.read_only if drive else False),
        cdrom=cdrom,
        serial=serial,
        cache=_cache(found_disk, hint),
        aio=aio,
        discard=discard,
        io_thread=_io_thread(found, seat, path),
        throttle=drive.throttle if drive else None,
        boot_order=boot if isinstance(boot, int) and boot >= 0 else None,
        unit=seat.unit,
    )
    return disk, unsure


def _options(
    name: str, hint: DriveHint | DiskSpec | None, *, there: bool
) -> tuple[AioMode, DiscardMode, tuple[str, ...]]:
    """How QEMU does the disk's I/O, which it cannot be asked: as its command line said, else as spec says."""
    if isinstance(hint, DiskSpec):
        return hint.aio, hint.discard, ()
    if hint is None:
        doubt = f"how disk {name} does its I/O cannot be asked: aio Threads and discard Ignore are taken"
        return AioMode.THREADS, DiscardMode.IGNORE, (doubt,) if there else ()
    aio = _AIO.get(hint.aio or "threads", AioMode.THREADS)
    return aio, _DISCARD.get(hint.discard or "ignore", DiscardMode.IGNORE), ()


def _cache(disk: FoundDisk, hint: DriveHint | DiskSpec | None) -> CacheMode:
    """From the two things QEMU says for certain, and whether writes are cached as the device was told.

    What ``query-block`` says of that is the guest's choice where the device leaves it open (virtio-blk).
    """
    drive = disk.drive
    if drive is None or not drive.layers:
        return CacheMode.WRITEBACK
    told = disk.back.text("write-cache")
    writeback = drive.writeback if disk.front is disk.back else True
    if isinstance(hint, DriveHint) and hint.cache is not None:
        writeback = hint.cache not in _WRITETHROUGH
    writeback = {"on": True, "off": False}.get(told, writeback)
    if drive.no_flush:
        return CacheMode.UNSAFE
    if drive.direct:
        return CacheMode.NONE if writeback else CacheMode.DIRECTSYNC
    return CacheMode.WRITEBACK if writeback else CacheMode.WRITETHROUGH


def _io_thread(found: FoundQemu, seat: Seat, path: str) -> bool:
    if seat.bus is DiskBus.SCSI:
        path = f"{NAMED}/{seat.holder.id}" if seat.holder.id else found.paths.get(seat.holder.index, "")
    return bool(found.settings.get(f"{path} iothread", ""))


def _unclaimed(found: FoundQemu) -> Iterator[str]:
    """Images that QEMU has open for something that is no disk of guestlet's: a floppy, a USB stick, firmware."""
    claimed = {id(each.drive) for each in found_disks(found)}
    for drive in found.drives:
        flash = drive.backend.startswith("pflash") or drive.node in _flash(found)
        if drive.layers and id(drive) not in claimed and not flash:
            yield f"QEMU has {drive.layers[0].file} open for {drive.backend or drive.path}, which is left alone"


def _flash(found: FoundQemu) -> frozenset[str]:
    return frozenset(str(found.settings.get(f"/machine pflash{number}", "")) for number in (0, 1))

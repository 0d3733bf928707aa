"""Disks: block nodes by name, iothreads, the controllers of SCSI and SATA disks, and one device a disk.

Nothing here is probed: every node's format and backing node are said, so that no byte of an image chooses a file.
"""

from guestlet.api.reasons import Reason
from guestlet.errors import Broken
from guestlet.pci.controllers import CHIPSET_SATA
from guestlet.pci.layout import DeviceKind
from guestlet.qemu.machine import (
    AioMode,
    CacheMode,
    DiscardMode,
    Disk,
    DiskBus,
    HostPaths,
    ImageFormat,
    Machine,
)
from guestlet.qemu.names import (
    SATA_PORTS,
    SCSI_CONTROLLER,
    SCSI_IOTHREAD,
    backing_node,
    disk_device,
    disk_node,
    iothread,
    protocol_node,
    sata_controller,
)
from guestlet.qemu.options import OptionValue, json_option
from guestlet.qemu.sections.buses import placement

Option = dict[str, OptionValue]

_DIRECT = (CacheMode.NONE, CacheMode.DIRECTSYNC)
_WRITE_CACHE = (CacheMode.NONE, CacheMode.WRITEBACK, CacheMode.UNSAFE)
_AIO = {AioMode.THREADS: "threads", AioMode.NATIVE: "native", AioMode.IO_URING: "io_uring"}
_DISCARD = {DiscardMode.UNMAP: "unmap", DiscardMode.IGNORE: "ignore"}


def image_path(paths: HostPaths, pool: str, image: str) -> str:
    """The absolute path of an image on this node.

    Raises:
        Broken: ``HostFailure`` when this node's paths have no such pool.
    """
    if pool not in paths.pools:
        raise Broken(Reason.HOST_FAILURE, f"this node has no path for the pool {pool}")
    return f"{paths.pools[pool]}/{image}"


def storage_args(machine: Machine, paths: HostPaths) -> list[str]:
    """Iothreads and controllers first, then each disk's nodes and its device, in the order of the machine."""
    args = [*_iothread_args(machine), *_controller_args(machine)]
    for disk in machine.disks:
        for node in block_nodes(disk, paths):
            args += ["-blockdev", json_option(node)]
        args += ["-device", json_option(disk_option(machine, disk))]
    return args


def block_nodes(disk: Disk, paths: HostPaths) -> tuple[Option, ...]:
    """The disk's nodes, lower ones first: backing file, backing format, file, format; none of an empty drive.

    Raises:
        Broken: ``HostFailure`` when a backing image has no format or its pool no path.
    """
    source = disk.source
    if source is None:
        return ()
    top = disk_node(disk.name)
    path = image_path(paths, source.pool, source.image)
    read_only = disk.read_only or disk.cdrom
    if source.backing_image is None:
        return _image(disk, path, _layer(top, source.format, backing=None), read_only=read_only)
    if source.backing_format is None:
        raise Broken(Reason.INVALID_SPEC, f"disk {disk.name}: the backing image's format is not known")
    below = backing_node(disk.name)
    backing_path = image_path(paths, source.pool, source.backing_image)
    return (
        *_image(disk, backing_path, _layer(below, source.backing_format, backing=None), read_only=True),
        *_image(disk, path, _layer(top, source.format, backing=below), read_only=read_only),
    )


def node_names(disk: Disk) -> tuple[str, ...]:
    """The node-names of ``block_nodes``, in its order."""
    if disk.source is None:
        return ()
    below = () if disk.source.backing_image is None else (backing_node(disk.name),)
    return tuple(name for each in (*below, disk_node(disk.name)) for name in (protocol_node(each), each))


def _layer(node: str, image_format: ImageFormat, *, backing: str | None) -> Option:
    match image_format:
        case ImageFormat.RAW:
            return {"driver": "raw", "node-name": node}
        case ImageFormat.QCOW2:
            # null is said too: QEMU opens what the image's header names unless told that there is nothing below.
            return {"driver": "qcow2", "node-name": node, "backing": backing}


def _image(disk: Disk, path: str, layer: Option, *, read_only: bool) -> tuple[Option, Option]:
    shared: Option = {
        "read-only": read_only,
        "cache": {"direct": disk.cache in _DIRECT, "no-flush": disk.cache is CacheMode.UNSAFE},
        "discard": _DISCARD[disk.discard],
    }
    name = protocol_node(str(layer["node-name"]))
    file: Option = {"driver": "file", "node-name": name, "filename": path, "aio": _AIO[disk.aio], **shared}
    return file, {**layer, "file": name, **shared}


def disk_option(machine: Machine, disk: Disk) -> Option:
    """The disk's ``-device``; ``device_add`` takes the same."""
    option = _front_end(machine, disk)
    option["id"] = disk_device(disk.name)
    if disk.source is not None:  # a cdrom drive may be empty
        option["drive"] = disk_node(disk.name)
    option["serial"] = disk.serial
    option["write-cache"] = "on" if disk.cache in _WRITE_CACHE else "off"
    if disk.bus is not DiskBus.NVME:  # its model has no error policy: errors go to the guest
        option |= {"werror": "stop", "rerror": "stop"}
    if disk.boot_order is not None:
        option["bootindex"] = disk.boot_order
    return option


def _front_end(machine: Machine, disk: Disk) -> Option:
    match disk.bus:
        case DiskBus.VIRTIO:
            option: Option = {"driver": "virtio-blk-pci", **placement(machine.pci, disk_device(disk.name))}
            return {**option, "iothread": iothread(disk.name)} if disk.io_thread else option
        case DiskBus.NVME:
            return {"driver": "nvme", **placement(machine.pci, disk_device(disk.name))}
        case DiskBus.SCSI:
            driver = "scsi-cd" if disk.cdrom else "scsi-hd"
            return {"driver": driver, "bus": f"{SCSI_CONTROLLER}.0", "channel": 0, "scsi-id": _unit(disk), "lun": 0}
        case DiskBus.SATA:
            return {"driver": "ide-cd" if disk.cdrom else "ide-hd", "bus": _sata_bus(machine, _unit(disk))}


def _unit(disk: Disk) -> int:
    if disk.unit is None:
        raise Broken(Reason.INVALID_SPEC, f"disk {disk.name} on {disk.bus} has no unit")
    return disk.unit


def _sata_bus(machine: Machine, unit: int) -> str:
    controller = sata_controller(unit)
    if _is_chipset(machine, controller):
        controller = "ide"  # the chipset's own AHCI, which takes no id of ours
    return f"{controller}.{unit % SATA_PORTS}"


def _is_chipset(machine: Machine, controller: str) -> bool:
    """Whether it is q35's own AHCI, which QEMU makes by itself; a guest that was adopted may have another beside it."""
    return any(each.id == controller and each.address == CHIPSET_SATA for each in machine.pci.devices)


def iothread_option(disk: Disk) -> Option | None:
    """The object of the iothread that the disk asks for, ``None`` when it asks for none; ``object-add`` takes the same.

    A SCSI disk has none of its own: its controller has one for all of them.
    """
    if not disk.io_thread:
        return None
    name = SCSI_IOTHREAD if disk.bus is DiskBus.SCSI else iothread(disk.name)
    return {"qom-type": "iothread", "id": name}


def _iothread_args(machine: Machine) -> list[str]:
    own = [iothread_option(each) for each in machine.disks if each.bus is DiskBus.VIRTIO]
    shared = [iothread_option(each) for each in machine.disks if each.bus is DiskBus.SCSI and each.io_thread]
    options = (*own, *shared[:1])
    return [arg for each in options if each is not None for arg in ("-object", json_option(each))]


def _scsi_io_thread(machine: Machine) -> bool:
    return any(each.io_thread for each in machine.disks if each.bus is DiskBus.SCSI)


def _controller_args(machine: Machine) -> list[str]:
    return [arg for each in controller_options(machine) for arg in ("-device", json_option(each))]


def controller_options(machine: Machine) -> tuple[Option, ...]:
    """The controllers of SCSI and SATA disks; ``device_add`` takes the same.

    Those that have a place in the layout, because a controller stays when its last disk was unplugged.

    Raises:
        Broken: ``InvalidSpec`` when a disk's controller has no place.
    """
    options: list[Option] = []
    placed = machine.pci.devices
    if any(each.kind is DeviceKind.SCSI for each in placed) or any(each.bus is DiskBus.SCSI for each in machine.disks):
        options.append(scsi_controller_option(machine))
    used = (sata_controller(_unit(each)) for each in machine.disks if each.bus is DiskBus.SATA)
    for name in dict.fromkeys((*used, *(each.id for each in placed if each.kind is DeviceKind.SATA))):
        if not _is_chipset(machine, name):
            options.append({"driver": "ich9-ahci", "id": name, **placement(machine.pci, name)})
    return tuple(options)


def scsi_controller_option(machine: Machine) -> Option:
    """The controller of the SCSI disks; ``device_add`` takes the same.

    Raises:
        Broken: ``InvalidSpec`` when it has no place.
    """
    option: Option = {"driver": "virtio-scsi-pci", "id": SCSI_CONTROLLER, **placement(machine.pci, SCSI_CONTROLLER)}
    return {**option, "iothread": SCSI_IOTHREAD} if _scsi_io_thread(machine) else option

"""Disks: block nodes by name, iothreads, the controllers of SCSI and SATA disks, and one device a disk.

Nothing here is probed: every node's format and backing node are said, so that no byte of an image chooses a file.
"""

from guestlet.api.reasons import Reason
from guestlet.errors import Broken
from guestlet.pci.controllers import Family, family_of
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
    """The disk's nodes, lower ones first: backing file, backing format, file, format.

    Raises:
        Broken: ``HostFailure`` when a backing image has no format or its pool no path.
    """
    source = disk.source
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
    option |= {"id": disk_device(disk.name), "drive": disk_node(disk.name), "serial": disk.serial}
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
            return {"driver": driver, "bus": "scsi.0", "channel": 0, "scsi-id": _unit(disk), "lun": 0}
        case DiskBus.SATA:
            return {"driver": "ide-cd" if disk.cdrom else "ide-hd", "bus": _sata_bus(machine, _unit(disk))}


def _unit(disk: Disk) -> int:
    if disk.unit is None:
        raise Broken(Reason.INVALID_SPEC, f"disk {disk.name} on {disk.bus} has no unit")
    return disk.unit


def _sata_bus(machine: Machine, unit: int) -> str:
    controller = sata_controller(unit)
    if controller == "sata" and family_of(machine.pci.controllers) is Family.Q35:
        controller = "ide"  # the chipset's own AHCI, which takes no id of ours
    return f"{controller}.{unit % SATA_PORTS}"


def _iothread_args(machine: Machine) -> list[str]:
    names = [each.name for each in machine.disks if each.io_thread and each.bus is DiskBus.VIRTIO]
    threads = [iothread(each) for each in names]
    if _scsi_io_thread(machine):
        threads.append(SCSI_IOTHREAD)
    return [arg for each in threads for arg in ("-object", json_option({"qom-type": "iothread", "id": each}))]


def _scsi_io_thread(machine: Machine) -> bool:
    return any(each.io_thread for each in machine.disks if each.bus is DiskBus.SCSI)


def _controller_args(machine: Machine) -> list[str]:
    options: list[Option] = []
    if any(each.bus is DiskBus.SCSI for each in machine.disks):
        scsi: Option = {"driver": "virtio-scsi-pci", "id": "scsi", **placement(machine.pci, "scsi")}
        options.append({**scsi, "iothread": SCSI_IOTHREAD} if _scsi_io_thread(machine) else scsi)
    for name in dict.fromkeys(sata_controller(_unit(each)) for each in machine.disks if each.bus is DiskBus.SATA):
        if name != "sata" or family_of(machine.pci.controllers) is Family.PC:
            options.append({"driver": "ich9-ahci", "id": name, **placement(machine.pci, name)})
    return [arg for each in options for arg in ("-device", json_option(each))]

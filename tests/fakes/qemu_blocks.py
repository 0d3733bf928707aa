"""The block layer of a QEMU in memory: nodes, the drives of devices, their media and limits.

It must never be kinder than the real one: what is in use stays, and what is opened twice for writing is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from guestlet.errors import Broken
from guestlet.qemu.commands import Command
from guestlet.qemu.machine import Disk, DiskBus, FileSource, ImageFormat, Machine
from guestlet.qemu.names import backing_node, disk_device, disk_node, protocol_node

Reply = object
# What only this project's own tests would see as a dictionary: QMP replies as they come over the wire.
Entry = dict[str, object]
Answer = Callable[[Command], Reply]

_LIMITS = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")
_UNLIMITED: Mapping[str, int] = MappingProxyType({})
_FORMATS = ("raw", "qcow2")
_FILE_BYTES = 197_120  # of an empty qcow2 image; nobody looks at what a protocol node says of its size
_SECTOR_BYTES = 512


def refused(command: Command, description: str, error_class: str = "GenericError") -> Broken:
    """QEMU's error reply, as ``host.qmp`` tells it."""
    return Broken("QmpRefused", f"{command.name}: {error_class}: {description}")


def not_found(command: Command, name: str) -> Broken:
    """QEMU's error reply for a device or object that is not there."""
    return refused(command, f"Device '{name}' not found", "DeviceNotFound")


def text(command: Command, name: str) -> str:
    """An argument that QEMU insists on."""
    if name not in command.arguments:
        raise refused(command, f"Parameter '{name}' is missing")
    return str(command.arguments[name])


def number(value: object) -> int:
    """An argument that is a number."""
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is not a number")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A block node; ``below`` are the nodes it reads, ``backing`` the one of them that it reads through."""

    driver: str
    filename: str
    size_bytes: int
    read_only: bool
    below: tuple[str, ...] = ()
    backing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveState:
    """What a device reads; ``node`` is ``None`` for a drive without a medium."""

    qdev: str
    node: str | None
    removable: bool
    tray_open: bool = False
    limits: Mapping[str, int] = field(default_factory=lambda: _UNLIMITED)
    group: str = ""


class Blocks:
    """``image_bytes`` tells the size of a file that is opened, ``None`` for no file; ``resized`` hears of another size.

    ``jobs``: running block jobs and the nodes that each uses.
    """

    def __init__(self, machine: Machine, on_event: Callable[[str, Entry], None]) -> None:
        self.nodes: dict[str, Node] = {}
        self.drives: dict[str, DriveState] = {}
        self.jobs: dict[str, tuple[str, ...]] = {}
        self.image_bytes: Callable[[str], int | None] = lambda _: 1 << 30
        self.resized: Callable[[str, int], None] = lambda _name, _size: None
        self._on_event = on_event
        for disk in machine.disks:
            self._start_with(disk)

    def _start_with(self, disk: Disk) -> None:
        source = disk.source
        node = None if source is None else disk_node(disk.name)
        if source is not None:
            self._open_images(disk, source)
        drive = DriveState(
            qdev=qdev_name(disk_device(disk.name), disk.bus),
            node=node,
            removable=disk.cdrom,
        )
        self.drives[disk_device(disk.name)] = drive

    def _open_images(self, disk: Disk, source: FileSource) -> None:
        top, below = disk_node(disk.name), backing_node(disk.name)
        read_only = disk.read_only or disk.cdrom
        if source.backing_image is not None:
            self._open(below, f"/pools/{source.pool}/{source.backing_image}", source.backing_format, disk.size_bytes)
            self._protect(below)
        self._open(top, f"/pools/{source.pool}/{source.image}", source.format, disk.size_bytes)
        if read_only:
            self._protect(top)
        if source.backing_image is not None:
            self.nodes[top] = replace(self.nodes[top], backing=below, below=(protocol_node(top), below))

    def _open(self, node: str, filename: str, image_format: ImageFormat | None, size_bytes: int) -> None:
        driver = "raw" if image_format is ImageFormat.RAW else "qcow2"
        file = protocol_node(node)
        self.nodes[file] = Node(driver="file", filename=filename, size_bytes=_FILE_BYTES, read_only=False)
        self.nodes[node] = Node(driver=driver, filename=filename, size_bytes=size_bytes, read_only=False, below=(file,))

    def _protect(self, node: str) -> None:
        for each in (node, protocol_node(node)):
            self.nodes[each] = replace(self.nodes[each], read_only=True)

    def answers(self) -> Mapping[str, Answer]:
        """What this layer answers, by command."""
        return {
            "blockdev-add": self._add,
            "blockdev-del": self._delete,
            "block_resize": self._resize,
            "block_set_io_throttle": self._throttle,
            "blockdev-open-tray": lambda command: self._move_tray(command, is_open=True),
            "blockdev-close-tray": lambda command: self._move_tray(command, is_open=False),
            "blockdev-remove-medium": self._remove_medium,
            "blockdev-insert-medium": self._insert_medium,
            "query-named-block-nodes": lambda _: [self._node_entry(name) for name in reversed(self.nodes)],
            "query-block": lambda _: [self._drive_entry(each) for each in self.drives.values()],
            "query-jobs": lambda _: [{"id": name, "type": "mirror", "status": "running"} for name in self.jobs],
            "x-debug-query-block-graph": lambda _: self._graph(),
        }

    # for devices

    def attach(self, command: Command, device: str, drive: DriveState) -> None:
        """The device's drive takes its node.

        Raises:
            Broken: QmpRefused, another device writes there.
        """
        node = drive.node
        others = [each.qdev for each in self.drives.values() if node is not None and each.node == node]
        if others and node is not None and not self.nodes[node].read_only:
            raise refused(
                command,
                f"Permission conflict on node '{node}': permissions 'write' are both required by block device "
                f"'{others[0]}' (uses node '{node}' as 'root' child) and unshared by block device '{drive.qdev}' "
                f"(uses node '{node}' as 'root' child).",
            )
        self.drives[device] = drive

    def detach(self, device: str) -> None:
        """The device and its drive are no more."""
        self.drives.pop(device, None)

    # nodes

    def _add(self, command: Command) -> Reply:
        driver, name = text(command, "driver"), text(command, "node-name")
        if driver != "file" and driver not in _FORMATS:
            raise refused(command, f"Parameter 'driver' does not accept value '{driver}'")
        node = self._file(command) if driver == "file" else self._image(command, name, driver)
        if name in self.nodes:
            raise refused(command, f"Duplicate nodes with node-name='{name}'")
        self.nodes[name] = node
        return {}

    def _file(self, command: Command) -> Node:
        filename = text(command, "filename")
        if self.image_bytes(filename) is None:
            raise refused(command, f"Could not open '{filename}': No such file or directory")
        read_only = bool(command.arguments.get("read-only", False))
        return Node(driver="file", filename=filename, size_bytes=_FILE_BYTES, read_only=read_only)

    def _image(self, command: Command, name: str, driver: str) -> Node:
        file = text(command, "file")
        backing = command.arguments.get("backing")
        for each in (file, *((str(backing),) if backing is not None else ())):
            if each not in self.nodes:
                raise refused(command, f"Cannot find device='{each}' nor node-name='{each}'")
        filename = self.nodes[file].filename
        read_only = bool(command.arguments.get("read-only", False))
        users = [other for other, each in self.nodes.items() if file in each.below and not each.read_only]
        if users and not read_only:
            raise refused(
                command,
                f"Permission conflict on node '{file}': permissions 'write, resize' are both required by node "
                f"'{users[0]}' (uses node '{file}' as 'file' child) and unshared by node '{name}' (uses node '{file}' "
                "as 'file' child).",
            )
        if not read_only and any(each.filename == filename and self._writes(each) for each in self.nodes.values()):
            raise refused(command, 'Failed to get "write" lock')
        below = (file,) if backing is None else (file, str(backing))
        return Node(
            driver=driver,
            filename=filename,
            size_bytes=self.image_bytes(filename) or 0,
            read_only=read_only,
            below=below,
            backing=None if backing is None else str(backing),
        )

    @staticmethod
    def _writes(node: Node) -> bool:
        return node.driver in _FORMATS and not node.read_only

    def _delete(self, command: Command) -> Reply:
        name = text(command, "node-name")
        if name not in self.nodes:
            raise refused(command, f"Failed to find node with node-name='{name}'")
        busy = any(name in nodes for nodes in self.jobs.values())
        if busy or any(each.node == name for each in self.drives.values()):
            raise refused(command, f"Node {name} is in use")
        if any(name in each.below for each in self.nodes.values()):
            raise refused(command, f"Block device {name} is in use")
        del self.nodes[name]
        return {}

    def _resize(self, command: Command) -> Reply:
        name, size = text(command, "node-name"), number(command.arguments["size"])
        if name not in self.nodes:
            raise refused(command, f"Cannot find device='' nor node-name='{name}'")
        if any(name in nodes for nodes in self.jobs.values()):
            raise refused(command, f"Node '{name}' is busy: block device is in use by block job: mirror")
        if size % _SECTOR_BYTES:
            raise refused(command, f"The new size must be a multiple of {_SECTOR_BYTES}")
        node = self.nodes[name]
        if node.read_only:
            raise refused(command, f"Permission conflict on node '{name}': permissions 'resize' are both required …")
        self.nodes[name] = replace(node, size_bytes=size)  # smaller too: QEMU does not ask
        self.resized(node.filename, size)
        return {}

    # drives

    def _drive(self, command: Command) -> tuple[str, DriveState]:
        """The drive that the command names, by what QEMU knows it by."""
        name = text(command, "id")
        for device, each in self.drives.items():
            if name in (each.qdev, f"/machine/peripheral/{each.qdev}"):
                return device, each
            if name in (device, f"/machine/peripheral/{device}"):
                raise refused(command, "Device does not have a block device backend")
        raise not_found(command, name)

    def _throttle(self, command: Command) -> Reply:
        device, drive = self._drive(command)
        if drive.node is None:
            raise refused(command, "Device has no medium")
        limits = {each: number(command.arguments[each]) for each in _LIMITS}
        for each in ("bps", "iops"):
            burst = command.arguments.get(f"{each}_max")
            if burst is None:
                continue
            if not limits[each]:
                raise refused(command, "bps_max/iops_max require corresponding bps/iops values")
            if number(burst) < limits[each]:
                raise refused(command, "bps_max/iops_max cannot be lower than bps/iops")
            limits[f"{each}_max"] = number(burst)
        if any(limits.values()):
            group = str(command.arguments.get("group", drive.qdev))
            self.drives[device] = replace(drive, limits=limits, group=group)
        else:
            self.drives[device] = replace(drive, limits=_UNLIMITED, group="")
        return {}

    def _move_tray(self, command: Command, *, is_open: bool) -> Reply:
        device, drive = self._drive(command)
        if not drive.removable:
            raise refused(command, f"Device '{device}' is not removable")
        if drive.tray_open is not is_open:
            self.drives[device] = replace(drive, tray_open=is_open)
            self._on_event("DEVICE_TRAY_MOVED", {"device": "", "tray-open": is_open, "id": drive.qdev})
        return {}

    def _remove_medium(self, command: Command) -> Reply:
        device, drive = self._drive(command)
        if not drive.removable:
            raise refused(command, f"Device '{device}' is not removable")
        if not drive.tray_open:
            raise refused(command, f"Tray of device '{device}' is not open")
        self.drives[device] = replace(drive, node=None)  # its limits wait for the next medium
        return {}

    def _insert_medium(self, command: Command) -> Reply:
        device, drive = self._drive(command)
        node = text(command, "node-name")
        if node not in self.nodes:
            raise refused(command, f"Node '{node}' not found")
        if any(each.node == node for each in self.drives.values()):
            raise refused(command, f"Node '{node}' is already in use")
        if not drive.tray_open:
            raise refused(command, "Tray of the device is not open")
        if drive.node is not None:
            raise refused(command, "There already is a medium in the device")
        self.drives[device] = replace(drive, node=node)
        return {}

    # replies

    def _node_entry(self, name: str) -> Entry:
        node = self.nodes[name]
        entry: Entry = {
            "node-name": name,
            "drv": node.driver,
            "file": node.filename,
            "ro": node.read_only,
            "image": {"virtual-size": node.size_bytes, "filename": node.filename, "format": node.driver},
        }
        if node.backing is not None:
            entry["backing_file"] = self.nodes[node.backing].filename
        return entry

    def _drive_entry(self, drive: DriveState) -> Entry:
        entry: Entry = {"device": "", "qdev": drive.qdev, "type": "unknown", "removable": drive.removable}
        entry |= {"locked": False, "io-status": "ok"}
        if drive.removable:
            entry["tray_open"] = drive.tray_open
        if drive.node is not None:
            node = self.nodes[drive.node]
            limits = {**dict.fromkeys(_LIMITS, 0), **drive.limits}
            group = {"group": drive.group} if drive.group else {}
            inserted: Entry = {"node-name": drive.node, "ro": node.read_only, "file": node.filename, "drv": node.driver}
            entry["inserted"] = inserted | limits | group
        return entry

    def _graph(self) -> Entry:
        ids = {name: index for index, name in enumerate((*self.jobs, *self.nodes), start=1)}
        nodes = [{"id": ids[each], "type": "block-job", "name": each} for each in self.jobs]
        nodes += [{"id": ids[each], "type": "block-driver", "name": each} for each in self.nodes]
        used = [(job, each) for job, names in self.jobs.items() for each in names]
        used += [(name, each) for name, node in self.nodes.items() for each in node.below]
        return {"nodes": nodes, "edges": [{"parent": ids[user], "child": ids[each]} for user, each in used]}


def qdev_name(device: str, bus: DiskBus) -> str:
    """What QEMU calls the drive of a device: a virtio-blk one is known by its back end."""
    return f"/machine/peripheral/{device}/virtio-backend" if bus is DiskBus.VIRTIO else device

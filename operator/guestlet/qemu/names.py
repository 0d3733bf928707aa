"""The ids under which QEMU knows a guest's devices, nodes and objects: made from the user's names, and only here."""

import hashlib

from guestlet.pci.layout import DeviceKind

SCSI_CONTROLLER = "scsi"
FIRST_SATA_CONTROLLER = "sata"
SCSI_IOTHREAD = "scsi-iothread"  # not iothread-scsi, which is the iothread of a disk of that name
MEMORY_DEVICE = "memory"  # the virtio-mem device
VIRTIO_MEMORY = "mem-virtio"  # and the memory object behind it
SATA_PORTS = 6  # of one AHCI controller (QEMU hw/ide/ich.c)

_NODE_NAME_MAX = 31  # QEMU refuses longer node names (BlockDriverState.node_name is char[32])
_LONGEST_SUFFIX = len("-file")


def disk_device(name: str) -> str:
    """The qdev id of a disk."""
    return f"disk-{name}"


def nic_device(name: str) -> str:
    """The qdev id of a network interface."""
    return f"nic-{name}"


def net_backend(name: str) -> str:
    """The netdev id behind a network interface."""
    return f"net-{name}"


def iothread(name: str) -> str:
    """The object id of a disk's iothread."""
    return f"iothread-{name}"


def hub(name: str) -> int:
    """The number of the hub that an isolated network is alone on.

    It is made from the name, because a network's place among the others changes when one of them goes.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") & 0x7FFFFFFF  # hubid is an int32


def pci_device(kind: DeviceKind, name: str) -> str:
    """The qdev id of a device with a PCI address of its own: of ``name`` the user's word, else the id itself."""
    match kind:
        case DeviceKind.DISK:
            return disk_device(name)
        case DeviceKind.NIC:
            return nic_device(name)
        case _:
            return name


def disk_node(name: str) -> str:
    """The node-name of a disk's image as the guest sees it."""
    return _node("disk", name)


def backing_node(name: str) -> str:
    """The node-name of a disk's backing image."""
    return _node("back", name)


def protocol_node(node: str) -> str:
    """The node-name of the file below a format node."""
    return f"{node}-file"


def sata_controller(unit: int) -> str:
    """The id of the AHCI controller that has the unit; the first is ``sata``."""
    return FIRST_SATA_CONTROLLER if unit < SATA_PORTS else f"{FIRST_SATA_CONTROLLER}-{unit // SATA_PORTS}"


def cpu_device(index: int) -> str:
    """The qdev id of a virtual CPU that was plugged; those of the start have none."""
    return f"cpu-{index}"


def dimm_device(slot: int) -> str:
    """The qdev id of a memory module."""
    return f"dimm-{slot}"


def dimm_memory(slot: int) -> str:
    """The id of the memory object behind a memory module."""
    return f"mem-{slot}"


def _node(role: str, name: str) -> str:
    """``role-name``; a name too long for QEMU is cut and told apart by its digest."""
    room = _NODE_NAME_MAX - _LONGEST_SUFFIX - len(role) - 1
    if len(name) > room:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[: room - 9]}-{digest}"
    return f"{role}-{name}"

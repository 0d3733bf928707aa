"""The ids under which QEMU knows a guest's devices, nodes and objects: made from the user's names, and only here."""

import hashlib

SCSI_IOTHREAD = "scsi-iothread"  # not iothread-scsi, which is the iothread of a disk of that name
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
    return "sata" if unit < SATA_PORTS else f"sata-{unit // SATA_PORTS}"


def _node(role: str, name: str) -> str:
    """``role-name``; a name too long for QEMU is cut and told apart by its digest."""
    room = _NODE_NAME_MAX - _LONGEST_SUFFIX - len(role) - 1
    if len(name) > room:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[: room - 9]}-{digest}"
    return f"{role}-{name}"

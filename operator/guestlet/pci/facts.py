"""What is recorded of a guest's PCI buses, as values: devices at their places, the layout, and what asks for a place.

It must never decide where anything goes.
"""

from dataclasses import dataclass
from enum import StrEnum

from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import Controller, Family


class DeviceBus(StrEnum):
    """Where disks and NICs go on q35."""

    ROOT_PORT = "RootPort"
    PCI_BRIDGE = "PCIBridge"


class DeviceKind(StrEnum):
    """What a placed device is to the guest's owner; the qdev driver is the command line's business."""

    DISK = "disk"  # virtio-blk or NVMe: a function of its own
    NIC = "nic"
    SCSI = "scsi"  # virtio-scsi controller
    SATA = "sata"  # AHCI controller (chipset's own on q35: fixed at pcie.0:1f.2)
    RNG = "rng"
    BALLOON = "balloon"
    WATCHDOG = "watchdog"
    MEMORY = "memory"  # virtio-mem


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A device at its place: ``id`` is its qdev id (``disk-root``), ``name`` the user's name for it (``root``)."""

    id: str
    name: str
    kind: DeviceKind
    address: PciAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Anonymous:
    """A device that was found on the guest's buses and that nobody here placed: its address stays reserved.

    ``vendor``, ``device`` and ``device_class`` as four hexadecimal digits; ``id`` is its qdev id, mostly empty.
    """

    address: PciAddress
    id: str
    vendor: str
    device: str
    device_class: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Everything on the guest's PCI buses; ``freed`` are addresses once used, oldest first, reused last."""

    family: Family
    device_bus: DeviceBus
    controllers: tuple[Controller, ...]
    devices: tuple[Placed, ...]
    anonymous: tuple[Anonymous, ...]
    freed: tuple[PciAddress, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One device that needs an address; ``conventional``: a plain PCI model (e1000, i6300esb)."""

    id: str
    name: str
    kind: DeviceKind
    conventional: bool
    explicit: PciAddress | None

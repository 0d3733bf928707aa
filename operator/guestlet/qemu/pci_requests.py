"""Which of a machine's parts need a PCI address of their own: the input of ``pci.layout.place``.

It must never choose an address.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from guestlet.pci.address import PciAddress
from guestlet.pci.layout import DeviceKind, Request
from guestlet.qemu.machine import Disk, DiskBus, Nic, NicModel
from guestlet.qemu.names import MEMORY_DEVICE, SCSI_CONTROLLER, disk_device, nic_device, sata_controller


def pci_requests(
    *,
    disks: tuple[Disk, ...],
    networks: tuple[Nic, ...],
    small: frozenset[DeviceKind],
    explicit: Mapping[str, PciAddress],
) -> tuple[Request, ...]:
    """The devices in spec order: disks, networks, controllers, then those of ``small`` that have an address.

    ``explicit`` are the addresses that the user chose, by qdev id (``disk-root``, ``nic-lan``); only disks on Virtio
    and NVMe and networks have an address to choose.
    """
    requests = [disk_request(each) for each in disks if each.bus in (DiskBus.VIRTIO, DiskBus.NVME)]
    requests += [nic_request(each) for each in networks]
    if any(each.bus is DiskBus.SCSI for each in disks):
        requests.append(scsi_request())
    requests += [_request(each, each, DeviceKind.SATA, True) for each in _sata_controllers(disks)]
    requests += [each for each in _SMALL if each.kind in small]
    return tuple(replace(each, explicit=explicit.get(each.id)) for each in requests)


def disk_request(disk: Disk) -> Request:
    """What a disk on Virtio or NVMe asks for; one on SCSI or SATA is a unit of its controller."""
    return _request(disk_device(disk.name), disk.name, DeviceKind.DISK, False)


def nic_request(nic: Nic) -> Request:
    """What a network interface asks for."""
    return _request(nic_device(nic.name), nic.name, DeviceKind.NIC, nic.model is NicModel.E1000)


def scsi_request() -> Request:
    """What the SCSI controller asks for."""
    return _request(SCSI_CONTROLLER, SCSI_CONTROLLER, DeviceKind.SCSI, False)


def _sata_controllers(disks: Iterable[Disk]) -> tuple[str, ...]:
    units = sorted(each.unit for each in disks if each.bus is DiskBus.SATA and each.unit is not None)
    return tuple(dict.fromkeys(sata_controller(each) for each in units))


def _request(device: str, name: str, kind: DeviceKind, conventional: bool) -> Request:
    return Request(id=device, name=name, kind=kind, conventional=conventional, explicit=None)


_SMALL = (
    _request("rng", "rng", DeviceKind.RNG, False),
    _request("balloon", "balloon", DeviceKind.BALLOON, False),
    _request("watchdog", "watchdog", DeviceKind.WATCHDOG, True),
    _request(MEMORY_DEVICE, MEMORY_DEVICE, DeviceKind.MEMORY, False),
)

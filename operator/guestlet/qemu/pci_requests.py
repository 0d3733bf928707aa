"""Which of a machine's parts need a PCI address of their own: the input of ``pci.layout.place``.

It must never choose an address.
"""

from collections.abc import Iterable, Mapping

from guestlet.pci.address import PciAddress
from guestlet.pci.layout import DeviceKind, Request
from guestlet.qemu.machine import Disk, DiskBus, Nic, NicModel
from guestlet.qemu.names import disk_device, nic_device, sata_controller


def pci_requests(
    *,
    disks: tuple[Disk, ...],
    networks: tuple[Nic, ...],
    rng: bool,
    balloon: bool,
    watchdog: bool,
    explicit: Mapping[str, PciAddress],
) -> tuple[Request, ...]:
    """The devices in spec order: disks, networks, controllers, then the small ones.

    ``explicit`` are the addresses that the user chose, by qdev id (``disk-root``, ``nic-lan``); only disks on Virtio
    and NVMe and networks have an address to choose.
    """
    requests = [_disk(each) for each in disks if each.bus in (DiskBus.VIRTIO, DiskBus.NVME)]
    requests += [_nic(each) for each in networks]
    if any(each.bus is DiskBus.SCSI for each in disks):
        requests.append(_request("scsi", "scsi", DeviceKind.SCSI, False))
    requests += [_request(each, each, DeviceKind.SATA, True) for each in _sata_controllers(disks)]
    if rng:
        requests.append(_request("rng", "rng", DeviceKind.RNG, False))
    if balloon:
        requests.append(_request("balloon", "balloon", DeviceKind.BALLOON, False))
    if watchdog:
        requests.append(_request("watchdog", "watchdog", DeviceKind.WATCHDOG, True))
    return tuple(_at(each, explicit.get(each.id)) for each in requests)


def _disk(disk: Disk) -> Request:
    return _request(disk_device(disk.name), disk.name, DeviceKind.DISK, False)


def _nic(nic: Nic) -> Request:
    return _request(nic_device(nic.name), nic.name, DeviceKind.NIC, nic.model is NicModel.E1000)


def _sata_controllers(disks: Iterable[Disk]) -> tuple[str, ...]:
    units = sorted(each.unit for each in disks if each.bus is DiskBus.SATA and each.unit is not None)
    return tuple(dict.fromkeys(sata_controller(each) for each in units))


def _request(device: str, name: str, kind: DeviceKind, conventional: bool) -> Request:
    return Request(id=device, name=name, kind=kind, conventional=conventional, explicit=None)


def _at(request: Request, address: PciAddress | None) -> Request:
    return Request(
        id=request.id, name=request.name, kind=request.kind, conventional=request.conventional, explicit=address
    )

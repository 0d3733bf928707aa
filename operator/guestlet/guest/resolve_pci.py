"""The PCI layout of the next start: the user's explicit addresses, and everything else where it was or fits. Pure."""

from guestlet.api.disk_spec import DiskSpec
from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.api.network_spec import NetworkSpec
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.pci.address import PciAddress, parse_address
from guestlet.pci.controllers import Family
from guestlet.pci.layout import DeviceKind, Layout, place
from guestlet.qemu.machine import Disk, DiskBus, Nic
from guestlet.qemu.names import disk_device, nic_device
from guestlet.qemu.pci_requests import pci_requests


def resolve_pci(
    spec: VirtualGuestSpec,
    *,
    disks: tuple[Disk, ...],
    networks: tuple[Nic, ...],
    virtio_mem: bool,
    previous: Layout | None,
) -> Layout:
    """The layout of the next start: what had an address keeps it, the rest follows in spec order.

    Raises:
        Refused: an explicit address cannot be had, or the machine is full.
    """
    return place(
        family=Family(spec.machine.type.value),
        device_bus=spec.pci.device_bus,
        hotplug_ports=spec.pci.hotplug_ports,
        requests=pci_requests(
            disks=disks,
            networks=networks,
            small=_small(spec, virtio_mem=virtio_mem),
            explicit=explicit_addresses(spec),
        ),
        previous=previous,
    )


def _small(spec: VirtualGuestSpec, *, virtio_mem: bool) -> frozenset[DeviceKind]:
    present = {
        DeviceKind.RNG: spec.devices.rng,
        DeviceKind.BALLOON: spec.devices.balloon,
        DeviceKind.WATCHDOG: spec.devices.watchdog is not None,
        DeviceKind.MEMORY: virtio_mem,
    }
    return frozenset(kind for kind, there in present.items() if there)


def explicit_addresses(spec: VirtualGuestSpec) -> dict[str, PciAddress]:
    """The addresses that the user chose, by qdev id.

    Raises:
        Refused: one of them is of a disk without an address of its own, or is no address.
    """
    disks = ((disk_device(each.name), disk_address(each)) for each in spec.disks)
    networks = ((nic_device(each.name), network_address(each)) for each in spec.networks)
    return {device: address for device, address in (*disks, *networks) if address is not None}


def disk_address(disk: DiskSpec) -> PciAddress | None:
    """The address that the user chose for the disk.

    Raises:
        Refused: the disk has no address of its own, or it is no address.
    """
    if disk.pci_address is not None and disk.bus in (DiskBus.SCSI, DiskBus.SATA):
        raise Refused(
            Reason.PCI_ADDRESS_REFUSED,
            f"spec.disks[{disk.name}].pciAddress: a {disk.bus.value} disk is a unit of its controller and has no "
            "PCI address of its own; leave it out, or use bus Virtio or NVMe",
        )
    return _parsed(f"spec.disks[{disk.name}]", disk.pci_address)


def network_address(nic: NetworkSpec) -> PciAddress | None:
    """The address that the user chose for the interface.

    Raises:
        Refused: it is no address.
    """
    return _parsed(f"spec.networks[{nic.name}]", nic.pci_address)


def _parsed(where: str, text: str | None) -> PciAddress | None:
    if text is None:
        return None
    try:
        return parse_address(text)
    except ValueError as error:
        raise Refused(Reason.PCI_ADDRESS_REFUSED, f"{where}.pciAddress: {error}") from error

"""The PCI layout of the next start: the user's explicit addresses, and everything else where it was or fits. Pure."""

from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.pci.address import PciAddress, parse_address
from guestlet.pci.controllers import Family
from guestlet.pci.layout import Layout, place
from guestlet.qemu.machine import Disk, DiskBus, Machine, Nic
from guestlet.qemu.names import disk_device, nic_device
from guestlet.qemu.pci_requests import pci_requests


def resolve_pci(
    spec: VirtualGuestSpec, *, disks: tuple[Disk, ...], networks: tuple[Nic, ...], previous: Machine | None
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
            rng=spec.devices.rng,
            balloon=spec.devices.balloon,
            watchdog=spec.devices.watchdog is not None,
            explicit=_explicit(spec),
        ),
        previous=previous.pci if previous else None,
    )


def _explicit(spec: VirtualGuestSpec) -> dict[str, PciAddress]:
    found: dict[str, PciAddress] = {}
    for disk in spec.disks:
        if disk.pci_address is None:
            continue
        if disk.bus in (DiskBus.SCSI, DiskBus.SATA):
            raise Refused(
                Reason.PCI_ADDRESS_REFUSED,
                f"spec.disks[{disk.name}].pciAddress: a {disk.bus.value} disk is a unit of its controller and has no "
                "PCI address of its own; leave it out, or use bus Virtio or NVMe",
            )
        found[disk_device(disk.name)] = _parsed(f"spec.disks[{disk.name}]", disk.pci_address)
    for nic in spec.networks:
        if nic.pci_address is not None:
            found[nic_device(nic.name)] = _parsed(f"spec.networks[{nic.name}]", nic.pci_address)
    return found


def _parsed(where: str, text: str) -> PciAddress:
    try:
        return parse_address(text)
    except ValueError as error:
        raise Refused(Reason.PCI_ADDRESS_REFUSED, f"{where}.pciAddress: {error}") from error

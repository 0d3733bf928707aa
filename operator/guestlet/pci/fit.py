"""Whether a device fits an address that somebody chose, and the sentence when it does not. Pure."""

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import (
    CHIPSET_SATA,
    PORTS,
    Controller,
    ControllerKind,
    Family,
    reserved_for,
    root_bus,
)
from guestlet.pci.facts import DeviceKind, Request
from guestlet.pci.venues import controller_of


def is_chipset_sata(family: Family, request: Request) -> bool:
    """Whether the device is q35's own AHCI controller, which nobody places."""
    return family is Family.Q35 and request.kind is DeviceKind.SATA and request.id == "sata"


def refusal(reason: Reason, request: Request, address: PciAddress, why: str) -> Refused:
    """The refusal of a chosen address, with the field that names it."""
    match request.kind:
        case DeviceKind.DISK:
            field = f"disks[{request.name}].pciAddress"
        case DeviceKind.NIC:
            field = f"networks[{request.name}].pciAddress"
        case _:
            field = f"{request.name}.pciAddress"
    return Refused(reason, f"{field} {address}: {why}; choose another or leave it out")


def refuse_reserved(family: Family, controllers: tuple[Controller, ...], request: Request, address: PciAddress) -> None:
    """Refuse an address of the chipset, or in the slot of a controller.

    Raises:
        Refused: ``PciAddressRefused``, ``PciAddressTaken``.
    """
    keeper = reserved_for(family, address)
    if keeper is not None:
        raise refusal(Reason.PCI_ADDRESS_REFUSED, request, address, f"the slot belongs to {keeper}")
    here = (address.bus, address.slot)
    maker = next((each for each in controllers if (each.address.bus, each.address.slot) == here), None)
    if maker is not None:
        raise refusal(Reason.PCI_ADDRESS_TAKEN, request, address, f"the controller {maker.id} has the slot")


def why_unsuitable(
    family: Family, controllers: tuple[Controller, ...], request: Request, address: PciAddress
) -> str | None:
    """Why the device cannot be at the address, or ``None``."""
    if is_chipset_sata(family, request):
        return None if address == CHIPSET_SATA else "the chipset's AHCI controller cannot be moved"
    if address.bus == root_bus(family):
        return None
    maker = controller_of(controllers, address.bus)
    if maker is None:
        known = ", ".join((root_bus(family), *(each.id for each in controllers)))
        return f"there is no bus {address.bus} (there are {known}; spec.pci.hotplugPorts adds root ports)"
    return _why_unsuitable_below(maker, request, address)


def _why_unsuitable_below(maker: Controller, request: Request, address: PciAddress) -> str | None:
    if maker.kind in PORTS:
        what = "root port" if maker.kind is ControllerKind.ROOT_PORT else maker.kind.value
        if request.conventional:
            return f"a conventional PCI device cannot be below the {what} {maker.id}, only on a bridge"
        return None if address.slot == 0 else f"the {what} {maker.id} has slot 00 only"
    if maker.kind is ControllerKind.UPSTREAM_PORT:
        return f"only downstream ports can be below the upstream port {maker.id}"
    if maker.kind in (ControllerKind.PCIE_PCI_BRIDGE, ControllerKind.PCI_BRIDGE):
        # Slot 0 is not valid for the bridge's standard hotplug controller (QEMU hw/pci/shpc.c).
        return None if address.slot > 0 else f"slot 00 of the bridge {maker.id} cannot be used"
    return None

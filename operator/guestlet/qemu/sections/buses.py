"""PCI controllers, and the place of a device as QEMU's ``bus`` and ``addr`` properties."""

from guestlet.api.reasons import Reason
from guestlet.errors import Broken
from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import Controller, ControllerKind
from guestlet.pci.layout import Layout
from guestlet.qemu.options import OptionValue, json_option


def controller_args(layout: Layout) -> list[str]:
    """One ``-device`` a controller, in recorded order, so that every bus exists before what is on it."""
    return [arg for each in layout.controllers for arg in ("-device", json_option(_controller(layout, each)))]


def placement(layout: Layout, device_id: str) -> dict[str, OptionValue]:
    """The recorded place of the device, as properties.

    Raises:
        Broken: ``InvalidSpec`` when the layout has no such device.
    """
    for each in layout.devices:
        if each.id == device_id:
            return _properties(layout, each.address)
    raise Broken(Reason.INVALID_SPEC, f"the PCI layout has no address for {device_id}")


def _controller(layout: Layout, controller: Controller) -> dict[str, OptionValue]:
    option: dict[str, OptionValue] = {"driver": controller.kind.value, "id": controller.id}
    match controller.kind:
        case ControllerKind.ROOT_PORT:
            # Always multifunction: a port is packed beside it at a later cold start without changing this one.
            place: dict[str, OptionValue] = {
                "bus": controller.address.bus,
                "addr": controller.address.on_bus,
                "multifunction": True,
                "chassis": controller.index,
                "port": controller.index - 1,
            }
        case ControllerKind.PCI_BRIDGE:
            place = {**_properties(layout, controller.address), "chassis_nr": controller.index}
        case ControllerKind.PCIE_PCI_BRIDGE:
            place = _properties(layout, controller.address)
    return {**option, **place}


def _properties(layout: Layout, address: PciAddress) -> dict[str, OptionValue]:
    properties: dict[str, OptionValue] = {"bus": address.bus, "addr": address.on_bus}
    everything = (*(each.address for each in layout.controllers), *(each.address for each in layout.devices))
    if sum((each.bus, each.slot) == (address.bus, address.slot) for each in everything) > 1:
        properties["multifunction"] = True
    return properties

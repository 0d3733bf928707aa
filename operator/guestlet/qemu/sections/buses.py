"""PCI controllers, and the place of a device as QEMU's ``bus`` and ``addr`` properties."""

from typing import assert_never

from guestlet.api.reasons import Reason
from guestlet.errors import Broken
from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import Controller, ControllerKind, parents_first
from guestlet.pci.layout import Layout
from guestlet.pci.venues import occupied
from guestlet.qemu.options import OptionValue, json_option


def controller_args(layout: Layout) -> list[str]:
    """One ``-device`` a controller, in recorded order, but none before the bus that it is on."""
    ordered = parents_first(layout.controllers)
    return [arg for each in ordered for arg in ("-device", json_option(_controller(layout, each)))]


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
        case ControllerKind.ROOT_PORT | ControllerKind.INTEL_ROOT_PORT | ControllerKind.DOWNSTREAM_PORT:
            # Always multifunction: a port is packed beside it at a later cold start without changing this one.
            place: dict[str, OptionValue] = {
                "bus": controller.address.bus,
                "addr": controller.address.on_bus,
                "multifunction": True,
                "chassis": controller.index,
                "port": max(controller.index - 1, 0),
            }
        case ControllerKind.PCI_BRIDGE:
            place = {**_properties(layout, controller.address), "chassis_nr": controller.index}
            if controller.memory_bytes is not None:
                place["mem-reserve"] = controller.memory_bytes
        case ControllerKind.EXPANDER:
            place = {**_properties(layout, controller.address), "bus_nr": controller.index}
        case ControllerKind.PCIE_PCI_BRIDGE | ControllerKind.DMI_BRIDGE | ControllerKind.UPSTREAM_PORT:
            place = _properties(layout, controller.address)
        case never:
            assert_never(never)
    return {**option, **place}


def _properties(layout: Layout, address: PciAddress) -> dict[str, OptionValue]:
    properties: dict[str, OptionValue] = {"bus": address.bus, "addr": address.on_bus}
    if sum((each.bus, each.slot) == (address.bus, address.slot) for each in occupied(layout)) > 1:
        properties["multifunction"] = True
    return properties

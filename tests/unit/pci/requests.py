"""What tests ask the layout for."""

from guestlet.pci.address import parse_address
from guestlet.pci.layout import DeviceBus, DeviceKind, Family, Layout, Request, place


def disk(name: str, at: str | None = None) -> Request:
    return request(f"disk-{name}", DeviceKind.DISK, at=at)


def nic(name: str, at: str | None = None, *, conventional: bool = False) -> Request:
    return request(f"nic-{name}", DeviceKind.NIC, at=at, conventional=conventional)


def request(device: str, kind: DeviceKind, *, at: str | None = None, conventional: bool = False) -> Request:
    explicit = None if at is None else parse_address(at)
    name = device.partition("-")[2] or device
    return Request(id=device, name=name, kind=kind, conventional=conventional, explicit=explicit)


def q35(*requests: Request, previous: Layout | None = None, spares: int = 0) -> Layout:
    return place(
        family=Family.Q35,
        device_bus=DeviceBus.ROOT_PORT,
        hotplug_ports=spares,
        requests=requests,
        previous=previous,
    )


def q35_bridged(*requests: Request, previous: Layout | None = None, spares: int = 0) -> Layout:
    return place(
        family=Family.Q35,
        device_bus=DeviceBus.PCI_BRIDGE,
        hotplug_ports=spares,
        requests=requests,
        previous=previous,
    )


def pc(*requests: Request, previous: Layout | None = None, spares: int = 0) -> Layout:
    return place(
        family=Family.PC, device_bus=DeviceBus.ROOT_PORT, hotplug_ports=spares, requests=requests, previous=previous
    )


def addresses(layout: Layout) -> dict[str, str]:
    return {each.id: str(each.address) for each in layout.devices}


def controllers(layout: Layout) -> dict[str, str]:
    return {each.id: str(each.address) for each in layout.controllers}

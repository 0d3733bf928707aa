"""Layouts of guests that somebody else started: controllers of other kinds and names, devices that nobody knows."""

from guestlet.pci.address import parse_address
from guestlet.pci.controllers import Controller, ControllerKind, Family
from guestlet.pci.layout import Anonymous, DeviceBus, DeviceKind, Layout, Placed

INTEL, DMI, UP = ControllerKind.INTEL_ROOT_PORT, ControllerKind.DMI_BRIDGE, ControllerKind.UPSTREAM_PORT
DOWN, EXPANDER = ControllerKind.DOWNSTREAM_PORT, ControllerKind.EXPANDER
PORT, EXPRESS_BRIDGE, BRIDGE = ControllerKind.ROOT_PORT, ControllerKind.PCIE_PCI_BRIDGE, ControllerKind.PCI_BRIDGE


def maker(name: str, kind: ControllerKind, at: str, index: int = 0) -> Controller:
    return Controller(id=name, kind=kind, address=parse_address(at), index=index)


def placed(name: str, at: str) -> Placed:
    return Placed(id=f"disk-{name}", name=name, kind=DeviceKind.DISK, address=parse_address(at))


def stranger(at: str, name: str = "") -> Anonymous:
    return Anonymous(address=parse_address(at), id=name, vendor="1234", device="1111", device_class="0300")


def found(
    *controllers: Controller,
    devices: tuple[Placed, ...] = (),
    anonymous: tuple[Anonymous, ...] = (),
    family: Family = Family.Q35,
    device_bus: DeviceBus = DeviceBus.ROOT_PORT,
) -> Layout:
    return Layout(
        family=family, device_bus=device_bus, controllers=controllers, devices=devices, anonymous=anonymous, freed=()
    )


# As virt-install makes it: fourteen root ports named after their buses, packed from slot 2 on.
LIBVIRT_LIKE = found(
    *(
        maker(f"pci.{index}", PORT, f"pcie.0:{1 + (index + 7) // 8:02x}.{(index - 1) % 8}", index)
        for index in range(1, 15)
    ),
    devices=(placed("vda", "pci.4:00.0"),),
    anonymous=(stranger("pcie.0:01.0", "video0"), stranger("pci.2:00.0", "usb")),
)
# Every kind at once, three bridges behind one another.
EVERYTHING = found(
    maker("ioh", INTEL, "pcie.0:03.0", 20),
    maker("dmi", DMI, "pcie.0:04.0"),
    maker("dmib", BRIDGE, "dmi:01.0", 2),
    maker("nest", BRIDGE, "dmib:02.0", 3),
    maker("rp", PORT, "pcie.0:05.0", 21),
    maker("up", UP, "rp:00.0"),
    maker("down0", DOWN, "up:00.0", 22),
    maker("down1", DOWN, "up:01.0", 23),
    maker("pxb", EXPANDER, "pcie.0:06.0", 128),
    maker("prp", PORT, "pxb:00.0", 24),
    maker("rp2", PORT, "pcie.0:07.0", 25),
    maker("ppb", EXPRESS_BRIDGE, "rp2:00.0"),
    maker("ppbb", BRIDGE, "ppb:02.0", 4),
)
PLAIN_PC = found(family=Family.PC, anonymous=(stranger("pci.0:02.0"),), devices=(placed("hda", "pci.0:04.0"),))
PLAIN_Q35 = found(anonymous=(stranger("pcie.0:01.0"),), devices=(placed("hda", "pcie.0:02.0"),))

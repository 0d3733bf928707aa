"""``query-pci`` of a QEMU in memory: what the guest's buses have, numbered as the firmware does it, depth first.

It must never be kinder than the real one: behind bridges nothing is listed before the firmware has run.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fakes.qemu_blocks import Entry
from fakes.qemu_devices import CHIPSET_ID, Part
from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import ControllerKind, Family, root_bus

_BRIDGE_CLASS = 0x0604
_BRIDGES = {
    ControllerKind.ROOT_PORT.value: (0x1B36, 0x000C),
    ControllerKind.PCIE_PCI_BRIDGE.value: (0x1B36, 0x000E),
    ControllerKind.PCI_BRIDGE.value: (0x1B36, 0x0001),
    ControllerKind.INTEL_ROOT_PORT.value: (0x8086, 0x3420),
    ControllerKind.DMI_BRIDGE.value: (0x8086, 0x244E),
    ControllerKind.UPSTREAM_PORT.value: (0x104C, 0x8232),
    ControllerKind.DOWNSTREAM_PORT.value: (0x104C, 0x8233),
}
# vendor, device, class; of virtio the id below a port, and the one on any other bus, where old drivers know it too
_VIRTIO = {
    "virtio-net-pci": (0x1041, 0x1000, 0x0200),
    "virtio-blk-pci": (0x1042, 0x1001, 0x0100),
    "virtio-rng-pci": (0x1044, 0x1005, 0x00FF),
    "virtio-balloon-pci": (0x1045, 0x1002, 0x00FF),
    "virtio-scsi-pci": (0x1048, 0x1004, 0x0100),
    "virtio-mem-pci": (0x1058, 0x1058, 0x00FF),
}
_OTHERS = {
    "nvme": (0x1B36, 0x0010, 0x0108),
    "e1000": (0x8086, 0x100E, 0x0200),
    "ich9-ahci": (0x8086, 0x2922, 0x0106),
    "i6300esb": (0x8086, 0x25AB, 0x0880),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Buses:
    """The parts by id, each where QEMU has it; ``numbered`` once the firmware has run."""

    family: Family
    parts: Mapping[str, Part]
    numbered: bool

    def reply(self) -> list[Entry]:
        """``query-pci``."""
        return [{"bus": 0, "devices": self._functions(root_bus(self.family), 0, self._numbers())}]

    def _on(self, bus: str) -> list[tuple[str, Part, PciAddress]]:
        there = [(name, part, part.address) for name, part in self.parts.items() if part.address is not None]
        return sorted((each for each in there if each[2].bus == bus), key=lambda each: (each[2], each[0]))

    def _functions(self, bus: str, number: int, numbers: Mapping[str, tuple[int, int]]) -> list[Entry]:
        entries: list[Entry] = []
        for name, part, address in self._on(bus):
            vendor, device, device_class = self._ids(part, address)
            entry: Entry = {
                "bus": number,
                "slot": address.slot,
                "function": address.function,
                "id": {"vendor": vendor, "device": device},
                "class_info": {"class": device_class},
                "qdev_id": "" if name == CHIPSET_ID else name,
            }
            if part.driver in _BRIDGES:
                first, last = numbers.get(name, (0, 0))
                bridge: Entry = {"bus": {"number": number, "secondary": first, "subordinate": last}}
                entry["pci_bridge"] = {**bridge, "devices": self._functions(name, first, numbers)} if first else bridge
            entries.append(entry)
        return entries

    def _ids(self, part: Part, address: PciAddress) -> tuple[int, int, int]:
        if part.driver in _BRIDGES:
            return (*_BRIDGES[part.driver], _BRIDGE_CLASS)
        if part.driver in _OTHERS:
            return _OTHERS[part.driver]
        modern, transitional, device_class = _VIRTIO[part.driver]
        maker = self.parts.get(address.bus)
        below_port = maker is not None and maker.driver == ControllerKind.ROOT_PORT.value
        return 0x1AF4, modern if below_port else transitional, device_class

    def _numbers(self) -> dict[str, tuple[int, int]]:
        """Secondary and subordinate bus of each bridge."""
        numbers: dict[str, tuple[int, int]] = {}
        if not self.numbered:
            return numbers

        def visit(bus: str, last: int) -> int:
            for name, part, _ in self._on(bus):
                if part.driver in _BRIDGES:
                    first = last + 1
                    last = visit(name, first)
                    numbers[name] = (first, last)
            return last

        visit(root_bus(self.family), 0)
        return numbers

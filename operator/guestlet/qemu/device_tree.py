"""``info qtree`` as values: every bus and every device of a running QEMU, by one question. Pure.

Why this and not QOM alone: it shows devices without an id beside those with one, it is never blind (``query-pci`` is,
before the firmware has run), and it is one answer where QOM would give three for each device. As it is text for people,
those who use it hold it against ``qom-list`` and ``query-pci``. It must never guess: a line that is no bus, device,
property or PCI summary is passed over.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

_BUS = re.compile(r"bus: (?P<name>.+)")
_TYPE = re.compile(r"type (?P<type>\S+)")
_DEVICE = re.compile(r'dev: (?P<driver>[^,]+), id "(?P<id>.*)"')
_PROPERTY = re.compile(r"(?P<name>[A-Za-z][\w.\[\]-]*) = (?P<value>.*)")
_SUMMARY = re.compile(
    r"class (?P<class>.*), addr [0-9a-f]+:[0-9a-f]+\.[0-7], pci id (?P<vendor>[0-9a-f]{4}):(?P<device>[0-9a-f]{4})"
)
_PLACE = re.compile(r"[0-9a-f]{2}\.[0-7]")
_STEP = 2  # columns a level (QEMU qdev-monitor.c, qbus_print and qdev_print)
_PCI_BUSES = ("PCI", "PCIE", "pxb-bus", "pxb-pcie-bus", "CXL")


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeDevice:
    """One device: ``index`` counts the tree's devices, ``above`` is that of the device whose bus it is on.

    ``bus`` and ``bus_type`` are empty on the main system bus. ``place`` is slot and function (``05.0``) of a PCI
    device, else empty; ``vendor`` and ``device`` are then four hexadecimal digits, ``pci_class`` QEMU's words for its
    class. ``makes``: the PCI bus it makes, if any. ``properties`` as QEMU prints them.
    """

    index: int
    driver: str
    id: str
    bus: str
    bus_type: str
    above: int | None
    properties: Mapping[str, str]
    place: str
    vendor: str
    device: str
    pci_class: str
    makes: str | None

    def text(self, name: str) -> str:
        """A property that is text, without its quotes; empty when there is none."""
        value = self.properties.get(name, "")
        return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else ""

    def number(self, name: str) -> int | None:
        """A property that is a number (``3 (0x3)``)."""
        found = re.match(r"-?\d+", self.properties.get(name, ""))
        return int(found[0]) if found else None

    def truth(self, name: str) -> bool:
        """A property that is true or false."""
        return self.properties.get(name) == "true"


class _Growing:
    """A device whose lines are being read."""

    def __init__(self, *, indent: int, index: int, driver: str, name: str, bus: "_Bus") -> None:
        self.indent = indent
        self.index = index
        self.driver = driver
        self.id = name
        self.bus = bus
        self.properties: dict[str, str] = {}
        self.vendor = self.device = self.pci_class = ""
        self.makes: str | None = None

    def read(self, words: str) -> None:
        """One line of the device's own."""
        if summary := _SUMMARY.match(words):
            self.vendor, self.device, self.pci_class = summary["vendor"], summary["device"], summary["class"]
        elif found := _PROPERTY.fullmatch(words):
            self.properties[found["name"]] = found["value"]


class _Bus:
    def __init__(self, *, indent: int, name: str, maker: _Growing | None) -> None:
        self.indent = indent
        self.name = name
        self.maker = maker
        self.type = ""

    def read(self, kind: str) -> None:
        """The line that says its type."""
        self.type = kind
        if self.maker is not None and kind in _PCI_BUSES and self.maker.makes is None:
            self.maker.makes = self.name


class _Reader:
    """Where in the tree the lines are: the buses and devices that the next line may belong to."""

    def __init__(self) -> None:
        self.devices: list[_Growing] = []
        self._buses: list[_Bus] = []
        self._owners: list[_Growing] = []

    def read(self, line: str) -> None:
        words = line.strip()
        indent = len(line) - len(line.lstrip())
        if bus := _BUS.fullmatch(words):
            self._leave(indent)
            self._buses.append(_Bus(indent=indent, name=bus["name"], maker=self._owners[-1] if self._owners else None))
        elif device := _DEVICE.fullmatch(words):
            self._leave(indent)
            if self._buses:
                self._begin(indent, device["driver"], device["id"])
        elif (kind := _TYPE.fullmatch(words)) and self._buses and indent == self._buses[-1].indent + _STEP:
            self._buses[-1].read(kind["type"])
        elif self._owners and indent == self._owners[-1].indent + _STEP:
            self._owners[-1].read(words)

    def _leave(self, indent: int) -> None:
        self._owners = [each for each in self._owners if each.indent < indent]
        self._buses = [each for each in self._buses if each.indent < indent]

    def _begin(self, indent: int, driver: str, name: str) -> None:
        device = _Growing(indent=indent, index=len(self.devices), driver=driver, name=name, bus=self._buses[-1])
        self._owners.append(device)
        self.devices.append(device)


@lru_cache(maxsize=1)  # what is to be asked next is read from the same text as the answer
def parse_device_tree(text: str) -> tuple[TreeDevice, ...]:
    """The devices in the order in which QEMU prints them: each after the one whose bus it is on."""
    reader = _Reader()
    for line in text.splitlines():
        reader.read(line)
    return tuple(_grown(each) for each in reader.devices)


def _grown(device: _Growing) -> TreeDevice:
    place = device.properties.get("addr", "")
    return TreeDevice(
        index=device.index,
        driver=device.driver,
        id=device.id,
        bus=device.bus.name if device.bus.maker is not None else "",
        bus_type=device.bus.type if device.bus.maker is not None else "",
        above=device.bus.maker.index if device.bus.maker is not None else None,
        properties=device.properties,
        place=place if device.vendor and _PLACE.fullmatch(place) else "",
        vendor=device.vendor,
        device=device.device,
        pci_class=device.pci_class,
        makes=device.makes,
    )

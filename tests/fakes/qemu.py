"""A QEMU in memory: run states, the PCI devices of a layout, the power button. It answers QMP commands as QEMU does.

It must never be kinder than the real one: behind bridges nothing is listed before the firmware has run.
"""

from collections.abc import Callable

from guestlet.errors import Broken
from guestlet.host.facts import ProcessIdentity
from guestlet.pci.address import PciAddress
from guestlet.pci.layout import ControllerKind, Layout
from guestlet.qemu.commands import Command
from guestlet.qemu.machine import Machine
from guestlet.qemu.names import nic_device
from guestlet.qemu.replies import RunState

_BRIDGE_CLASS, _DEVICE_CLASS = 0x0604, 0x0100
_BRIDGE_IDS = {
    ControllerKind.ROOT_PORT: (0x1B36, 0x000C),
    ControllerKind.PCIE_PCI_BRIDGE: (0x1B36, 0x000E),
    ControllerKind.PCI_BRIDGE: (0x1B36, 0x0001),
}
Reply = object
# What only this project's own tests would see as a dictionary: QMP replies as they come over the wire.
Entry = dict[str, object]


class Switches:
    """How this guest behaves; a scenario turns them."""

    def __init__(self) -> None:
        self.obeys_power_button = True
        self.firmware_numbers_buses = True
        self.silent = False  # its monitor takes commands and never answers
        self.moved: dict[str, PciAddress] = {}  # devices that QEMU has elsewhere than recorded
        self.missing: set[str] = set()


class FakeQemu:
    """One QEMU, started frozen. ``end`` is called with code and word when it ends by itself."""

    def __init__(
        self, *, identity: ProcessIdentity, machine: Machine, argv: tuple[str, ...], end: Callable[[int, str], None]
    ) -> None:
        self.identity = identity
        self.machine = machine
        self.argv = argv
        self.run_state = RunState.PRELAUNCH
        self.firmware_has_run = False
        self.links = {nic.name: True for nic in machine.networks}
        self.resets = 0
        self.power_button_presses = 0
        self.switches = Switches()
        self._end = end

    def answer(self, command: Command) -> Reply:
        """The reply, as QEMU would give it over the wire.

        Raises:
            Broken: QmpRefused.
        """
        answers: dict[str, Callable[[Command], Reply]] = {
            "query-status": self._status,
            "query-pci": lambda _: [{"bus": 0, "devices": self._functions(self._root, 0)}],
            "query-uuid": lambda _: {"UUID": self.machine.uuid},
            "query-name": lambda _: {"name": self.machine.name},
            "qom-get": self._property,
            "cont": self._cont,
            "stop": self._stop,
            "set_link": self._set_link,
            "system_powerdown": self._power_button,
            "system_reset": self._reset,
            "quit": self._quit,
        }
        if command.name not in answers:
            raise Broken(
                "QmpRefused", f"{command.name}: CommandNotFound: The command {command.name} has not been found"
            )
        return answers[command.name](command)

    def _status(self, _: Command) -> Reply:
        return {"status": self.run_state.value, "running": self.run_state is RunState.RUNNING}

    def _cont(self, _: Command) -> Reply:
        self.run_state = RunState.RUNNING
        self.firmware_has_run = self.switches.firmware_numbers_buses
        return {}

    def _stop(self, _: Command) -> Reply:
        if self.run_state is RunState.RUNNING:
            self.run_state = RunState.PAUSED
        return {}

    def _set_link(self, command: Command) -> Reply:
        name = str(command.arguments["name"])
        for network in self.links:
            if name == nic_device(network):
                self.links[network] = bool(command.arguments["up"])
                return {}
        raise Broken("QmpRefused", f"set_link: DeviceNotFound: Device '{name}' not found")

    def _power_button(self, _: Command) -> Reply:
        self.power_button_presses += 1
        if self.run_state is RunState.RUNNING and self.switches.obeys_power_button:
            self._end(0, "guest-shutdown")
        return {}

    def _reset(self, _: Command) -> Reply:
        self.resets += 1
        self.firmware_has_run = self.run_state is RunState.RUNNING and self.switches.firmware_numbers_buses
        return {}

    def _quit(self, _: Command) -> Reply:
        self._end(0, "host-qmp-quit")
        return {}

    # PCI

    @property
    def _layout(self) -> Layout:
        return self.machine.pci

    @property
    def _root(self) -> str:
        roots = [each.address.bus for each in self._layout.controllers if each.address.bus in ("pcie.0", "pci.0")]
        return roots[0] if roots else "pci.0"

    def _places(self) -> dict[str, PciAddress]:
        recorded = {each.id: each.address for each in self._layout.controllers}
        recorded |= {each.id: each.address for each in self._layout.devices}
        return {name: at for name, at in (recorded | self.switches.moved).items() if name not in self.switches.missing}

    def _functions(self, bus: str, number: int) -> list[Entry]:
        numbers = self._bus_numbers()
        kinds = {each.id: each.kind for each in self._layout.controllers}
        entries: list[Entry] = []
        for name, address in sorted(self._places().items(), key=lambda each: (each[1], each[0])):
            if address.bus != bus:
                continue
            vendor, device = _BRIDGE_IDS[kinds[name]] if name in kinds else (0x1AF4, 0x1042)
            entry: Entry = {
                "bus": number,
                "slot": address.slot,
                "function": address.function,
                "id": {"vendor": vendor, "device": device},
                "class_info": {"class": _BRIDGE_CLASS if name in kinds else _DEVICE_CLASS},
                "qdev_id": name,
            }
            if name in kinds:
                first, last = numbers.get(name, (0, 0))
                entry["pci_bridge"] = {"bus": {"number": number, "secondary": first, "subordinate": last}}
                if first:
                    entry["pci_bridge"] = {
                        "bus": {"number": number, "secondary": first, "subordinate": last},
                        "devices": self._functions(name, first),
                    }
            entries.append(entry)
        return entries

    def _bus_numbers(self) -> dict[str, tuple[int, int]]:
        """Depth first, as firmware does."""
        numbers: dict[str, tuple[int, int]] = {}
        if not self.firmware_has_run:
            return numbers
        ids = {each.id for each in self._layout.controllers}

        def visit(bus: str, last: int) -> int:
            for name, address in sorted(self._places().items(), key=lambda each: (each[1], each[0])):
                if address.bus == bus and name in ids:
                    first = last + 1
                    last = visit(name, first)
                    numbers[name] = (first, last)
            return last

        visit(self._root, 0)
        return numbers

    def _property(self, command: Command) -> Reply:
        device = str(command.arguments["path"]).rpartition("/")[2]
        address = self._places().get(device)
        if address is None:
            raise Broken("QmpRefused", f"qom-get: DeviceNotFound: Device '{device}' not found")
        if command.arguments["property"] == "legacy-addr":
            return f"{address.slot:02x}.{address.function}"
        return f"/machine/peripheral/{address.bus}/{address.bus}"

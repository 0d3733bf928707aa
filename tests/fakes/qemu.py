"""A QEMU in memory: run states, devices, disks, the power button. It answers QMP commands as QEMU does.

It must never be kinder than the real one: behind bridges nothing is listed before the firmware has run, a device goes
only when the guest has let go of it, and a look just after the question still finds it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fakes.qemu_blocks import Blocks, Entry, Reply, not_found, number, refused, text
from fakes.qemu_devices import CHIPSET_ID, Devices, Part
from fakes.qemu_pci import Buses
from guestlet.errors import Unknown
from guestlet.host.facts import ProcessIdentity
from guestlet.pci.address import PciAddress
from guestlet.qemu.commands import Command
from guestlet.qemu.machine import Accelerator, Machine
from guestlet.qemu.names import nic_device
from guestlet.qemu.replies import RunState

_PERIPHERAL = "/machine/peripheral"
_CRASH_CODE = 139
_FULL = 0.9


class Switches:
    """How this guest behaves; a scenario turns them."""

    def __init__(self) -> None:
        self.obeys_power_button = True
        self.firmware_numbers_buses = True
        self.silent = False  # its monitor takes commands and never answers
        self.moved: dict[str, PciAddress] = {}  # devices that QEMU has elsewhere than recorded
        self.missing: set[str] = set()
        self.has_booted = True  # its kernel hears what it is asked; else a request to let go is lost
        self.lets_go = True  # of devices, when it is asked to
        self.refuses = False  # says that it does not let go
        self.lingers = False  # what it let go of is in use for one look more, as for 50 ms of a real QEMU
        self.takes_memory = True  # that virtio-mem offers
        self.migrating = False
        self.translation_cache_used = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The guest was asked to let go of a device; ``heard`` when its kernel was there to hear it."""

    heard: bool
    blocks: bool  # asked before the guest's clock had run at all: QEMU takes no second request (7.2 and 10.0)


class FakeQemu:
    """One QEMU, started frozen. ``end`` is called with code and word when it ends by itself.

    ``on_event`` hears events as they come over the wire; ``clock`` stamps them.
    """

    def __init__(
        self,
        *,
        identity: ProcessIdentity,
        machine: Machine,
        argv: tuple[str, ...],
        end: Callable[[int, str], None],
        clock: Callable[[], float] = lambda: 0.0,
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
        self.on_event: Callable[[Entry], None] = lambda _: None
        self.requests: dict[str, Request] = {}
        self._clock = clock
        self._clock_runs = False
        self._lost_a_cpu = False
        self._leaving: dict[str, Part] = {}
        self._end = end
        self.blocks = Blocks(machine, self._say)
        self.devices = Devices(machine, self.blocks, self._say)
        own: Mapping[str, Callable[[Command], Reply]] = {
            "query-status": lambda _: {"status": self.run_state.value, "running": self.run_state is RunState.RUNNING},
            "query-pci": lambda _: self._buses().reply(),
            "query-uuid": lambda _: {"UUID": self.machine.uuid},
            "query-name": lambda _: {"name": self.machine.name},
            "query-version": lambda _: {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""},
            "query-migrate": lambda _: {"status": "active"} if self.switches.migrating else {},
            "query-chardev": lambda _: [
                {"label": name, "frontend-open": True} for name in ("qmp", "observer", "console")
            ],
            "query-kvm": lambda _: {"enabled": self.machine.accelerator is Accelerator.KVM, "present": True},
            "human-monitor-command": self._human,
            "qom-list": self._children,
            "qom-get": self._property,
            "qom-set": self._set_property,
            "device_del": self._unplug,
            "cont": self._cont,
            "stop": self._stop,
            "set_link": self._set_link,
            "system_powerdown": self._power_button,
            "system_reset": self._reset,
            "quit": self._quit,
        }
        self._answers = {**self.blocks.answers(), **self.devices.answers(), **own}

    def answer(self, command: Command) -> Reply:
        """The reply, as QEMU would give it over the wire.

        Raises:
            Broken: QmpRefused. Unknown: QemuUnknown, QEMU died of it.
        """
        if command.name not in self._answers:
            raise refused(command, f"The command {command.name} has not been found", "CommandNotFound")
        self.devices.migrating = self.switches.migrating
        if command.name == "device_add" and self._dies_of(command):
            self._end(_CRASH_CODE, "")
            raise Unknown("QemuUnknown", f"{command.name}: the monitor broke off, QEMU may have done it")
        reply = self._answers[command.name](command)
        if command.name == "device_add":
            self._follow_links()
        if command.name == "query-block":
            self.let_guest_act()
        return reply

    def _dies_of(self, command: Command) -> bool:
        """Measured under TCG: QEMU 7.2 dies of what follows the unplugging of a CPU (10.0 of the next CPU), and both of
        a CPU that finds no free part of the translation cache.
        """
        cpu = str(command.arguments.get("driver", "")).endswith("-cpu")
        full = self.machine.accelerator is Accelerator.TCG and self.switches.translation_cache_used > _FULL
        return self._lost_a_cpu or (cpu and full)

    # what tests do to it

    def take_fd(self, name: str) -> None:
        """A descriptor came with ``getfd``."""
        self.devices.fds.add(name)

    @property
    def fds(self) -> set[str]:
        """Descriptors that came and that nobody took."""
        return self.devices.fds

    def let_guest_act(self) -> None:
        """Time passes: the guest does what it was asked to, if it is one that does."""
        self._finish_leaving()
        if self.run_state is not RunState.RUNNING or not (self.firmware_has_run and self.switches.has_booted):
            return
        if self.switches.refuses:
            self._refuse()
        elif self.switches.lets_go:
            self.guest_answers()
        self._take_memory()

    def guest_answers(self) -> None:
        """The guest lets go of everything that it was asked for."""
        for name in [name for name, request in self.requests.items() if request.heard]:
            self.guest_ejects(name)

    def guest_ejects(self, name: str) -> None:
        """The guest lets go of a device (by id, a CPU by QOM path), asked or not."""
        self.requests.pop(name, None)
        cpu = self._cpu_index(name)
        if cpu is not None:
            self.devices.eject_cpu(cpu)
            self._lost_a_cpu = self.machine.accelerator is Accelerator.TCG
            return
        part = self.devices.parts.get(name)
        if part is None:
            return
        self._leave(name, part)
        if not self.switches.lingers:
            self._finish_leaving()

    def guest_resets(self) -> None:
        """The guest resets its machine by itself."""
        self._reset_machine(guest=True, reason="guest-reset")

    def _say(self, event: str, data: Entry) -> None:
        at = self._clock()
        stamp = {"seconds": int(at), "microseconds": int(at % 1 * 1_000_000)}
        self.on_event({"event": event, "data": data, "timestamp": stamp})

    # running

    def _cont(self, _: Command) -> Reply:
        if self.run_state is not RunState.RUNNING:
            self.run_state = RunState.RUNNING
            self._clock_runs = True
            self.firmware_has_run = self.firmware_has_run or self.switches.firmware_numbers_buses
            self._say("RESUME", {})
        return {}

    def _stop(self, _: Command) -> Reply:
        if self.run_state is RunState.RUNNING:
            self.run_state = RunState.PAUSED
            self._say("STOP", {})
        return {}

    def _set_link(self, command: Command) -> Reply:
        name, up = text(command, "name"), bool(command.arguments["up"])
        for network in self.links:
            if name == nic_device(network):
                self.links[network] = up
                return {}
        if name in self.devices.parts or name in self.devices.netdevs:
            return {}
        raise not_found(command, name)

    def _follow_links(self) -> None:
        """Cables of interfaces that came are plugged in; those of interfaces that went are gone."""
        there = {name.removeprefix("nic-"): name for name, part in self.devices.parts.items() if part.netdev}
        self.links = {name: self.links.get(name, True) for name in there}

    def _power_button(self, _: Command) -> Reply:
        self.power_button_presses += 1
        self._say("POWERDOWN", {})
        if self.run_state is RunState.RUNNING and self.switches.obeys_power_button:
            self._end(0, "guest-shutdown")
        return {}

    def _reset(self, _: Command) -> Reply:
        self._reset_machine(guest=False, reason="host-qmp-system-reset")
        return {}

    def _reset_machine(self, *, guest: bool, reason: str) -> None:
        """Every device that was asked for goes; the firmware begins anew, and a stopped guest stands before it."""
        self.resets += 1
        self.firmware_has_run = self.run_state is RunState.RUNNING and self.switches.firmware_numbers_buses
        if self.run_state is not RunState.RUNNING:
            self.run_state = RunState.PRELAUNCH
        self._say("RESET", {"guest": guest, "reason": reason})
        for name in tuple(self.requests):
            part = self.devices.parts.get(name)
            if part is not None and part.address is not None:
                self.requests.pop(name)
                self._leave(name, part)
        self._finish_leaving()
        self.requests.clear()
        self.devices.memory_taken_bytes = 0  # virtio-mem gives it again when the driver asks

    def _quit(self, _: Command) -> Reply:
        self._end(0, "host-qmp-quit")
        return {}

    # letting go of devices

    def _unplug(self, command: Command) -> Reply:
        name = text(command, "id").removeprefix(f"{_PERIPHERAL}/")
        cpu = self._cpu_index(name)
        if name not in self.devices.parts and cpu is None:
            raise not_found(command, name)
        if cpu is not None:
            self._ask_for_cpu(command, cpu)
            return {}
        part = self.devices.parts[name]
        if name in self.requests and self.requests[name].blocks:
            raise refused(command, f"Device {name} is already in the process of unplug")
        self._refuse_fixed(command, part)
        if self.switches.migrating:
            raise refused(command, "device_del not allowed while migrating")
        if part.driver.startswith("scsi-"):
            self._leave(name, part)  # at once, but its node is in use until the next look is over
        else:
            self.requests[name] = Request(heard=self._hears(), blocks=not self._clock_runs)
        return {}

    def _hears(self) -> bool:
        return self._clock_runs and self.firmware_has_run and self.switches.has_booted

    def _refuse_fixed(self, command: Command, part: Part) -> None:
        bus = part.address.bus if part.address is not None else part.unit[0] if part.unit is not None else ""
        if bus == "pcie.0" or part.driver.startswith("ide-"):
            raise refused(command, f"Bus '{bus}' does not support hotplugging")
        if part.driver == "virtio-mem-pci":
            raise refused(command, "virtio based memory devices cannot be unplugged.")

    def _ask_for_cpu(self, command: Command, index: int) -> None:
        driver = f"{self.machine.cpu.model}-x86_64-cpu"
        if not self._hears():
            raise refused(command, f"acpi: device unplug request for not supported device type: {driver}")
        if index == 0:
            raise refused(command, "Boot CPU is unpluggable")
        path = self.devices.cpus[index].path
        if path is not None:
            self.requests[path] = Request(heard=True, blocks=False)

    def _cpu_index(self, name: str) -> int | None:
        paths = (name, f"{_PERIPHERAL}/{name}")
        return next((index for index, each in enumerate(self.devices.cpus) if each.path in paths), None)

    def _finish_leaving(self) -> None:
        """What left QEMU's tree is finally no more."""
        for name, part in self._leaving.items():
            self.devices.finish(name, part)
        self._leaving.clear()

    def _leave(self, name: str, part: Part) -> None:
        self.devices.lets_go(name)
        self._leaving[name] = part
        self._follow_links()

    def _refuse(self) -> None:
        for name in [name for name, request in self.requests.items() if request.heard]:
            del self.requests[name]
            self.devices.refuse(name)

    def _take_memory(self) -> None:
        asked = self.devices.memory_requested_bytes
        if self.switches.takes_memory and self.devices.memory_taken_bytes != asked and "memory" in self.devices.parts:
            self.devices.memory_taken_bytes = asked
            data: Entry = {"id": "memory", "size": asked, "qom-path": f"{_PERIPHERAL}/memory"}
            self._say("MEMORY_DEVICE_SIZE_CHANGE", data)

    # QOM and PCI

    def _buses(self) -> Buses:
        return Buses(family=self.machine.pci.family, parts=self._placed(), numbered=self.firmware_has_run)

    def _placed(self) -> dict[str, Part]:
        """The parts where QEMU has them, which is where the test says."""
        parts = {name: part for name, part in self.devices.parts.items() if name not in self.switches.missing}
        for name, address in self.switches.moved.items():
            if name in parts:
                parts[name] = replace(parts[name], address=address)
        return parts

    def _children(self, command: Command) -> Reply:
        path = text(command, "path")
        if path == _PERIPHERAL:
            names = [(name, part.driver) for name, part in self.devices.parts.items() if name != CHIPSET_ID]
            cpus = [each.path for each in self.devices.cpus if each.path and each.path.startswith(_PERIPHERAL)]
            names += [(each.rpartition("/")[2], f"{self.machine.cpu.model}-x86_64-cpu") for each in cpus]
        elif path == "/objects":
            names = [(name, "memory-backend-ram" if size else "iothread") for name, size in self._objects()]
        else:
            raise not_found(command, path)
        return [{"name": "type", "type": "string"}, *({"name": name, "type": f"child<{kind}>"} for name, kind in names)]

    def _objects(self) -> list[tuple[str, int]]:
        return list(self.devices.objects.items())

    def _property(self, command: Command) -> Reply:
        device = text(command, "path").rpartition("/")[2]
        part = self._placed().get(device)
        if part is None:
            raise not_found(command, text(command, "path"))
        if command.arguments["property"] == "requested-size":
            return self.devices.memory_requested_bytes
        if part.address is None:
            raise refused(command, f"Property '{part.driver}.{command.arguments['property']}' not found")
        if command.arguments["property"] == "legacy-addr":
            return f"{part.address.slot:02x}.{part.address.function}"
        return f"{_PERIPHERAL}/{part.address.bus}/{part.address.bus}"

    def _set_property(self, command: Command) -> Reply:
        path, name, value = text(command, "path"), text(command, "property"), command.arguments["value"]
        part = self.devices.parts.get(path.removeprefix(f"{_PERIPHERAL}/"))
        if part is None:
            raise not_found(command, path)
        virtio = self.machine.memory.virtio_mem
        if name != "requested-size" or part.driver != "virtio-mem-pci" or virtio is None:
            raise refused(command, f"Property '{part.driver}.{name}' not found")
        asked = number(value)
        if asked % virtio.block_bytes:
            raise refused(command, f"'{name}' has to be multiples of 'block-size' ({virtio.block_bytes:#x})")
        if asked > virtio.max_bytes:
            raise refused(command, f"'{name}' cannot exceed the memory backend size({virtio.max_bytes:#x})")
        self.devices.memory_requested_bytes = asked
        return {}

    def _human(self, command: Command) -> Reply:
        match text(command, "command-line"):
            case "info network":
                return self.devices.network_text(self.devices.parts | self._leaving)
            case "info jit" if self.machine.accelerator is Accelerator.TCG:
                return f"gen code size       {round(self.switches.translation_cache_used * 1000)}/1000\r\n"
            case "info jit":
                return "JIT information is only available with accel=tcg\r\n"
            case other:
                return f"unknown command: '{other}'\r\n"

"""The devices of a QEMU in memory, with their objects, network backends, processors and memory modules.

It must never be kinder than the real one: a device goes when the guest lets go of it and not when it was asked to, and
what is taken from under a device is taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fakes.qemu_blocks import Answer, Blocks, DriveState, Entry, Reply, not_found, number, qdev_name, refused, text
from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import CHIPSET_SATA, root_bus
from guestlet.pci.layout import DeviceKind
from guestlet.qemu.commands import Command
from guestlet.qemu.machine import Disk, DiskBus, IsolatedNet, Machine, Nic, NicModel, UserNet
from guestlet.qemu.names import dimm_device, dimm_memory, disk_device, iothread, net_backend, nic_device
from guestlet.qemu.sections.memory import SLOTS, address_bytes, may_grow

_DISK_DRIVERS = {
    (DiskBus.VIRTIO, False): "virtio-blk-pci",
    (DiskBus.NVME, False): "nvme",
    (DiskBus.SCSI, False): "scsi-hd",
    (DiskBus.SCSI, True): "scsi-cd",
    (DiskBus.SATA, False): "ide-hd",
    (DiskBus.SATA, True): "ide-cd",
}
_NIC_DRIVERS = {NicModel.VIRTIO: "virtio-net-pci", NicModel.E1000: "e1000"}
_OTHER_DRIVERS = {
    DeviceKind.SCSI: "virtio-scsi-pci",
    DeviceKind.SATA: "ich9-ahci",
    DeviceKind.RNG: "virtio-rng-pci",
    DeviceKind.BALLOON: "virtio-balloon-pci",
    DeviceKind.WATCHDOG: "i6300esb",
    DeviceKind.MEMORY: "virtio-mem-pci",
}
_PCI_DRIVERS = {"virtio-blk-pci", "nvme", *_NIC_DRIVERS.values(), *_OTHER_DRIVERS.values()}
_DRIVE_DRIVERS = set(_DISK_DRIVERS.values())
CHIPSET_ID = "the chipset's AHCI"  # it has no id that QEMU knows
_ALIGNMENT_BYTES = 2 * 1024 * 1024  # of memory modules (QEMU hw/mem/pc-dimm.c: a huge page of the host)
_EJECTION, _IN_PROGRESS, _BUSY = 3, 0x84, 0x82  # ACPI 6.4, 6.3.5 _OST


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A device. ``address`` of those on PCI, ``unit`` of those on a bus without addresses (``scsi.0`` 3)."""

    driver: str
    address: PciAddress | None = None
    unit: tuple[str, int] | None = None
    netdev: str | None = None
    mac: str = ""
    memdev: str | None = None
    slot: int | None = None
    hotplugged: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuPlace:
    """A place for a processor, with the QOM path of the one that is there."""

    properties: Mapping[str, int]
    path: str | None


class Devices:
    """``fds`` are descriptors that ``getfd`` brought. ``migrating``: QEMU takes no device meanwhile."""

    def __init__(self, machine: Machine, blocks: Blocks, on_event: Callable[[str, Entry], None]) -> None:
        self.machine = machine
        self.blocks = blocks
        self._on_event = on_event
        self.fds: set[str] = set()
        self.migrating = False
        self.parts: dict[str, Part] = {}
        self.objects: dict[str, int] = {"ram": machine.memory.boot_bytes}
        self.netdevs: dict[str, str] = {}
        self.orphaned_netdevs: dict[str, str] = {}  # taken away while an interface used them
        self.told_of_slots: dict[tuple[str, str], Entry] = {}
        self.cpus = _places(machine)
        self.memory_taken_bytes = 0
        self.memory_requested_bytes = machine.memory.virtio_mem.requested_bytes if machine.memory.virtio_mem else 0
        self._start()

    # what QEMU was started with

    def _start(self) -> None:
        layout = self.machine.pci
        for controller in layout.controllers:
            self.parts[controller.id] = Part(driver=controller.kind.value, address=controller.address)
        placed = {each.id: each.address for each in layout.devices}
        for each in layout.devices:
            if each.kind in _OTHER_DRIVERS:
                name = CHIPSET_ID if each.address == CHIPSET_SATA else each.id
                self.parts[name] = Part(driver=_OTHER_DRIVERS[each.kind], address=each.address)
        for disk in self.machine.disks:
            self._start_disk(disk, placed.get(disk_device(disk.name)))
        for nic in self.machine.networks:
            self.netdevs[net_backend(nic.name)] = _backend_type(nic)
            self.parts[nic_device(nic.name)] = Part(
                driver=_NIC_DRIVERS[nic.model],
                address=placed.get(nic_device(nic.name)),
                netdev=net_backend(nic.name),
                mac=nic.mac,
            )
        self._start_memory()
        self.parts["serial"] = Part(driver="isa-serial")
        if self.machine.pvpanic:
            self.parts["pvpanic"] = Part(driver="pvpanic")
        if self.machine.rng:
            self.objects["rng-source"] = 0

    def _start_disk(self, disk: Disk, address: PciAddress | None) -> None:
        unit = None if disk.unit is None else (disk.bus.value, disk.unit)
        self.parts[disk_device(disk.name)] = Part(
            driver=_DISK_DRIVERS[disk.bus, disk.cdrom], address=address, unit=_unit_of(disk.bus, unit)
        )
        if disk.io_thread:
            self.objects["scsi-iothread" if disk.bus is DiskBus.SCSI else iothread(disk.name)] = 0

    def _start_memory(self) -> None:
        memory = self.machine.memory
        if memory.virtio_mem is not None:
            self.objects["mem-virtio"] = memory.virtio_mem.max_bytes
            if "memory" in self.parts:
                self.parts["memory"] = replace(self.parts["memory"], memdev="mem-virtio")
        for dimm in memory.dimms:
            self.objects[dimm_memory(dimm.slot)] = dimm.size_bytes
            part = Part(driver="pc-dimm", memdev=dimm_memory(dimm.slot), slot=dimm.slot, hotplugged=False)
            self.parts[dimm_device(dimm.slot)] = part

    def answers(self) -> Mapping[str, Answer]:
        """What the devices answer, by command."""
        return {
            "device_add": self._plug,
            "netdev_add": self._add_netdev,
            "netdev_del": self._delete_netdev,
            "object-add": self._add_object,
            "object-del": self._delete_object,
            "getfd": self._take_fd,
            "closefd": self._close_fd,
            "query-hotpluggable-cpus": lambda _: [self._cpu_entry(each) for each in reversed(self.cpus)],
            "query-cpus-fast": lambda _: self._running_cpus(),
            "query-memory-devices": lambda _: self._memory_entries(),
            "query-memory-size-summary": lambda _: {
                "base-memory": self.machine.memory.boot_bytes,
                "plugged-memory": self._plugged_bytes(),
            },
            "query-acpi-ospm-status": lambda _: list(self.told_of_slots.values()),
            "query-rx-filter": lambda _: [
                {"name": name, "main-mac": part.mac}
                for name, part in self.parts.items()
                if part.driver == "virtio-net-pci"
            ],
            "query-memdev": lambda _: [{"id": name, "size": size} for name, size in self.objects.items() if size],
        }

    # plugging

    def _plug(self, command: Command) -> Reply:
        driver = text(command, "driver")
        if driver not in (_PCI_DRIVERS | _DRIVE_DRIVERS | {"pc-dimm"}) and not driver.endswith("-x86_64-cpu"):
            raise refused(command, f"'{driver}' is not a valid device model name")
        self._check_bus(command, driver)
        if self.migrating:
            raise refused(command, "device_add not allowed while migrating")
        name = str(command.arguments.get("id", ""))
        if name in self.parts or any(each.path == f"/machine/peripheral/{name}" for each in self.cpus):
            raise refused(command, f"Duplicate device ID '{name}'")
        if driver.endswith("-x86_64-cpu"):
            self._plug_cpu(command, name)
        elif driver == "pc-dimm":
            self._plug_dimm(command, name)
        else:
            self._plug_on_bus(command, name, driver)
        return {}

    def _check_bus(self, command: Command, driver: str) -> None:
        if driver == "pc-dimm" or driver.endswith("-x86_64-cpu"):
            return
        bus = str(command.arguments.get("bus", ""))
        fixed = bus == "pcie.0" or bus.startswith(("ide.", "sata"))
        scsi = bus == "scsi.0" and "scsi" in self.parts
        if not (fixed or scsi or bus in self.parts or bus == root_bus(self.machine.pci.family)):
            raise refused(command, f"Bus '{bus}' not found")
        if fixed:
            raise refused(command, f"Bus '{bus}' does not support hotplugging")

    def _plug_on_bus(self, command: Command, name: str, driver: str) -> None:
        node = command.arguments.get("drive")
        short = driver.replace("-pci", "-device") if driver.startswith("virtio") else driver
        if node is not None and node not in self.blocks.nodes:
            raise refused(command, f"Property '{short}.drive' can't find value '{node}'")
        self._check_links(command, short)
        part = Part(
            driver=driver,
            address=self._address(command, driver) if driver in _PCI_DRIVERS else None,
            unit=self._unit(command) if driver.startswith("scsi") else None,
            netdev=str(command.arguments["netdev"]) if "netdev" in command.arguments else None,
            mac=str(command.arguments.get("mac", "52:54:00:12:34:56")),
        )
        if driver in _DRIVE_DRIVERS:
            bus = DiskBus.VIRTIO if driver == "virtio-blk-pci" else DiskBus.SCSI
            drive = DriveState(
                qdev=qdev_name(name, bus), node=None if node is None else str(node), removable=driver == "scsi-cd"
            )
            self.blocks.attach(command, name, drive)
        self.parts[name] = part

    def _check_links(self, command: Command, short: str) -> None:
        netdev = command.arguments.get("netdev")
        if netdev is not None and netdev not in self.netdevs:
            raise refused(command, f"Property '{short}.netdev' can't find value '{netdev}'")
        if netdev is not None and any(each.netdev == netdev for each in self.parts.values()):
            raise refused(command, f"Property '{short}.netdev' can't take value '{netdev}', it's in use")
        thread = command.arguments.get("iothread")
        if thread is not None and thread not in self.objects:
            raise not_found(command, str(thread))

    def _address(self, command: Command, driver: str) -> PciAddress:
        slot, _, function = str(command.arguments.get("addr", "0")).partition(".")
        at = PciAddress(bus=text(command, "bus"), slot=int(slot, 16), function=int(function or "0", 16))
        for name, each in self.parts.items():
            if each.address == at:
                raise refused(
                    command,
                    f"PCI: slot {at.slot} function {at.function} not available for {driver}, in use by "
                    f"{each.driver},id={name}",
                )
            if at.function and each.address == replace(at, function=0):
                raise refused(
                    command,
                    f"PCI: slot {at.slot} function 0 already occupied by {each.driver}, new func {driver} cannot be "
                    "exposed to guest.",
                )
        return at

    def _unit(self, command: Command) -> tuple[str, int]:
        unit = ("scsi.0", number(command.arguments.get("scsi-id", 0)))
        for name, each in self.parts.items():
            if each.unit == unit:
                raise refused(command, f"lun already used by '{name}'")
        return unit

    def _plug_dimm(self, command: Command, name: str) -> None:
        memdev, slot = text(command, "memdev"), number(command.arguments.get("slot", 0))
        if memdev not in self.objects:
            raise not_found(command, memdev)
        memory = self.machine.memory
        slots = SLOTS if may_grow(memory) else 0
        if any(each.memdev == memdev for each in self.parts.values()) or memdev == "ram":
            raise refused(command, f"can't use already busy memdev: {memdev}")
        if slot >= slots:
            raise refused(command, f"invalid slot number {slot}, valid range is [0-{(slots - 1) % (1 << 64)}]")
        if any(each.slot == slot for each in self.parts.values()):
            raise refused(command, f"slot {slot} is busy")
        size = self.objects[memdev]
        if size % _ALIGNMENT_BYTES:
            raise refused(command, f"backend memory size must be multiple of {_ALIGNMENT_BYTES:#x}")
        used = sum(self.objects[each.memdev] for each in self.parts.values() if each.memdev is not None)
        total = address_bytes(memory) - memory.boot_bytes
        if used + size > total:
            raise refused(
                command,
                f"not enough space, currently {used:#x} in use of total space for memory devices {total:#x}",
            )
        self.parts[name] = Part(driver="pc-dimm", memdev=memdev, slot=slot)
        self._say_ost(name, str(slot), "DIMM", 1, 0)

    def _plug_cpu(self, command: Command, name: str) -> None:
        expected = f"{self.machine.cpu.model}-x86_64-cpu"
        if command.arguments["driver"] != expected:
            raise refused(command, f"Invalid CPU type, expected cpu type: '{expected}'")
        keys = ("socket-id", "core-id", "thread-id")
        for key in keys:
            if key not in command.arguments:
                raise refused(command, f"CPU {key} is not set")
        wanted = {key: command.arguments[key] for key in keys}
        for index, place in enumerate(self.cpus):
            if {key: place.properties[key] for key in keys} == wanted:
                if place.path is not None:
                    raise refused(command, f"CPU[{index}] with APIC ID {index} exists")
                self.cpus[index] = replace(place, path=f"/machine/peripheral/{name}")
                return
        limit = self.machine.cpu.sockets - 1
        raise refused(command, f"Invalid CPU socket-id: {wanted['socket-id']} must be in range 0:{limit}")

    # letting go

    def lets_go(self, name: str) -> None:
        """The device leaves QEMU's tree; what it uses is in use until ``finish``."""
        part = self.parts.pop(name)
        if part.slot is not None:
            self._say_ost(name, str(part.slot), "DIMM", _EJECTION, _IN_PROGRESS)

    def finish(self, name: str, part: Part) -> None:
        """The device is no more, and DEVICE_DELETED says so."""
        self.blocks.detach(name)
        if part.netdev is not None:
            self.orphaned_netdevs.pop(part.netdev, None)
        if part.driver.startswith("virtio") and part.driver != "virtio-mem-pci":
            self._on_event("DEVICE_DELETED", {"path": f"/machine/peripheral/{name}/virtio-backend"})
        self._on_event("DEVICE_DELETED", {"device": name, "path": f"/machine/peripheral/{name}"})
        if part.slot is not None:
            self._say_ost("", str(part.slot), "DIMM", _EJECTION, 0)

    def eject_cpu(self, index: int) -> None:
        """The guest lets go of a processor. No event names it, only its local interrupt controller."""
        path = self.cpus[index].path
        self._say_ost(_id_of(path), str(index), "CPU", _EJECTION, _IN_PROGRESS)
        self._on_event("DEVICE_DELETED", {"path": f"{path}/lapic"})
        self.cpus[index] = replace(self.cpus[index], path=None)
        self._say_ost("", str(index), "CPU", _EJECTION, 0)

    def refuse(self, name: str) -> None:
        """The guest says that it will not let go."""
        part = self.parts.get(name)
        if part is not None and part.slot is not None:
            for status in (_IN_PROGRESS, _BUSY):
                self._say_ost(name, str(part.slot), "DIMM", _EJECTION, status)
        elif part is not None:
            self._on_event("DEVICE_UNPLUG_GUEST_ERROR", {"device": name, "path": f"/machine/peripheral/{name}"})
        else:
            index = next(index for index, each in enumerate(self.cpus) if each.path == name)
            self._say_ost(_id_of(name), str(index), "CPU", _EJECTION, _BUSY)

    def _say_ost(self, device: str, slot: str, kind: str, source: int, status: int) -> None:
        info: Entry = {"slot": slot, "slot-type": kind, "source": source, "status": status}
        info |= {"device": device} if device else {}
        self.told_of_slots[kind, slot] = info
        self._on_event("ACPI_DEVICE_OST", {"info": info})

    # backends and objects

    def _add_netdev(self, command: Command) -> Reply:
        kind, name = text(command, "type"), text(command, "id")
        if name in self.netdevs:
            raise refused(command, f"Duplicate ID '{name}'")
        wanted = [str(command.arguments[key]) for key in ("fd", "fds") if key in command.arguments]
        names = wanted[0].split(":") if wanted else []
        for each in names:
            if each not in self.fds:
                raise refused(command, f"File descriptor named '{each}' has not been found")
        self.fds -= set(names)
        self.netdevs[name] = kind
        return {}

    def _delete_netdev(self, command: Command) -> Reply:
        name = text(command, "id")
        if name not in self.netdevs:
            raise not_found(command, name)
        kind = self.netdevs.pop(name)
        if any(each.netdev == name for each in self.parts.values()):
            self.orphaned_netdevs[name] = kind
        return {}

    def _add_object(self, command: Command) -> Reply:
        kind, name = text(command, "qom-type"), text(command, "id")
        if kind.startswith("memory-backend") and "size" not in command.arguments:
            raise refused(command, "Parameter 'size' is missing")
        if name in self.objects:
            raise refused(command, f"attempt to add duplicate property '{name}' to object (type 'container')")
        self.objects[name] = number(command.arguments.get("size", 0))
        return {}

    def _delete_object(self, command: Command) -> Reply:
        """Memory is kept while a device has it; an iothread in use is let go from under its disk, as QEMU does."""
        name = text(command, "id")
        if name not in self.objects:
            raise refused(command, f"object '{name}' not found")
        if name == "ram" or any(each.memdev == name for each in self.parts.values()):
            raise refused(command, f"object '{name}' is in use, can not be deleted")
        del self.objects[name]
        return {}

    def _take_fd(self, command: Command) -> Reply:
        self.fds.add(text(command, "fdname"))
        return {}

    def _close_fd(self, command: Command) -> Reply:
        name = text(command, "fdname")
        if name not in self.fds:
            raise refused(command, f"File descriptor named '{name}' not found")
        self.fds.remove(name)
        return {}

    # replies

    def network_text(self, interfaces: Mapping[str, Part]) -> str:
        """``info network``: hub ports with their interface, the others the other way round."""
        lines = []
        backends = self.netdevs | self.orphaned_netdevs
        users = {part.netdev: (name, part) for name, part in interfaces.items() if part.netdev is not None}
        for number_, (name, kind) in enumerate(backends.items(), start=1):
            client = f"index=0,type={kind}"
            user = users.get(name)
            shown = "" if user is None else f"{user[0]}: index=0,type=nic,model={user[1].driver},macaddr={user[1].mac}"
            if kind == "hubport":
                lines += [f"hub {number_}", f" \\ {name}: {shown}" if shown else f" \\ {name}"]
            else:
                lines += [shown, f" \\ {name}: {client}"] if shown else [f"{name}: {client}"]
        return "".join(f"{line}\r\n" for line in lines)

    def _cpu_entry(self, place: CpuPlace) -> Entry:
        driver = f"{self.machine.cpu.model}-x86_64-cpu"
        entry: Entry = {"props": dict(place.properties), "vcpus-count": 1, "type": driver}
        return entry if place.path is None else {**entry, "qom-path": place.path}

    def _running_cpus(self) -> list[Entry]:
        there = [(index, each.path) for index, each in enumerate(self.cpus) if each.path is not None]
        return [
            {"cpu-index": index, "thread-id": 10_000 + index, "qom-path": path, "target": "x86_64"}
            for index, path in there
        ]

    def _memory_entries(self) -> list[Entry]:
        entries: list[Entry] = []
        for name, part in self.parts.items():
            data: Entry = {"id": name, "memdev": f"/objects/{part.memdev}", "node": 0}
            if part.driver == "pc-dimm" and part.memdev is not None:
                data |= {"size": self.objects[part.memdev], "slot": part.slot, "hotplugged": part.hotplugged}
                entries.append({"type": "dimm", "data": data | {"hotpluggable": True, "addr": 1 << 32}})
            virtio = self.machine.memory.virtio_mem
            if part.driver == "virtio-mem-pci" and virtio is not None:
                data |= {"size": self.memory_taken_bytes, "requested-size": self.memory_requested_bytes}
                data |= {"max-size": virtio.max_bytes, "block-size": virtio.block_bytes, "memaddr": 1 << 33}
                entries.append({"type": "virtio-mem", "data": data})
        return entries

    def _plugged_bytes(self) -> int:
        dimms = (each.memdev for each in self.parts.values() if each.driver == "pc-dimm")
        return self.memory_taken_bytes + sum(self.objects[each] for each in dimms if each is not None)


def _places(machine: Machine) -> list[CpuPlace]:
    cpu = machine.cpu
    node = {"node-id": 0} if may_grow(machine.memory) else {}
    all_of = [
        {"socket-id": socket, "core-id": core, "thread-id": thread, **node}
        for socket in range(cpu.sockets)
        for core in range(cpu.cores)
        for thread in range(cpu.threads)
    ]
    return [
        CpuPlace(properties=each, path=f"/machine/unattached/device[{index}]" if index < cpu.count else None)
        for index, each in enumerate(all_of)
    ]


def _unit_of(bus: DiskBus, unit: tuple[str, int] | None) -> tuple[str, int] | None:
    return None if unit is None else ("scsi.0" if bus is DiskBus.SCSI else "ide", unit[1])


def _backend_type(nic: Nic) -> str:
    if isinstance(nic.backend, UserNet):
        return "user"
    return "hubport" if isinstance(nic.backend, IsolatedNet) else "tap"


def _id_of(path: str | None) -> str:
    """The qdev id in a QOM path; those of the start have none."""
    return (path or "").removeprefix("/machine/peripheral/") if "peripheral" in (path or "") else ""

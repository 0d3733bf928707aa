"""The description of a running QEMU that has none, from its own answers. Pure.

Parts are matched by qdev id, then by what is behind them (image, MAC, place), and by nothing less. What cannot be named
goes to ``machine.pci.anonymous``, so that its address stays reserved, and nothing is ever done to it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from guestlet.guest.record import Aliases
from guestlet.guest.recovery.board import read_cpu, read_firmware, read_kernel, read_memory, watchdog_action
from guestlet.guest.recovery.buses import Buses, nameless_devices, read_buses
from guestlet.guest.recovery.command_line import CommandLine, read_command_line
from guestlet.guest.recovery.description import Description, Hints
from guestlet.guest.recovery.network import Networks, read_networks
from guestlet.guest.recovery.storage import Disks, outside_pools, read_disks
from guestlet.guest.resolve import TB_SIZE_MIB
from guestlet.pci.controllers import BRIDGES, Family
from guestlet.pci.facts import DeviceBus, DeviceKind, Layout, Placed
from guestlet.qemu.found import FoundQemu
from guestlet.qemu.machine import Accelerator, DiskBus, Machine, NicModel
from guestlet.qemu.names import cpu_device, dimm_device, disk_device, nic_device
from guestlet.qemu.questions import NAMED, NAMELESS, plain_driver

_NO_UUID = "00000000-0000-0000-0000-000000000000"
_SMALL = {
    "virtio-rng-pci": ("rng", DeviceKind.RNG),
    "virtio-balloon-pci": ("balloon", DeviceKind.BALLOON),
    "i6300esb": ("watchdog", DeviceKind.WATCHDOG),
    "virtio-mem-pci": ("memory", DeviceKind.MEMORY),
}
_IOMMUS = ("intel-iommu", "amd-iommu", "virtio-iommu-pci")
_KINDS = {name: kind for name, kind in _SMALL.values()} | {"scsi": DeviceKind.SCSI}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Small:
    """The small devices, one of each kind: names by index in the tree, and aliases."""

    holders: Mapping[int, str]
    devices: Mapping[str, str]
    doubts: tuple[str, ...]


def describe_running(found: FoundQemu, hints: Hints) -> Description:
    """The machine that runs, in guestlet's words.

    Raises:
        Refused: RecordLost, the machine is one that guestlet cannot describe at all; the message says why.
    """
    line = read_command_line(hints.argv)
    buses = read_buses(found)
    disks = read_disks(found, hints, line=line, buses=buses)
    networks = read_networks(found, hints, buses=buses)
    small = _small_devices(found, buses)
    machine, doubts = _machine(found, hints, line=line, disks=disks, networks=networks, small=small)
    layout = _layout(found, hints, buses=buses, disks=disks, networks=networks, small=small)
    devices = {**buses.aliases, **disks.devices, **networks.devices, **small.devices, **_plugged_aliases(found)}
    return Description(
        machine=_boot_orders(replace(machine, pci=layout)),
        qemu_version=found.version,
        run_state=found.run_state,
        aliases=Aliases(
            devices={ours: its for ours, its in devices.items() if its},
            nodes=disks.nodes,
            netdevs=networks.netdevs,
        ),
        outside=outside_pools(found, hints),
        doubts=(
            *buses.doubts,
            *disks.doubts,
            *networks.doubts,
            *small.doubts,
            *doubts,
            *_unseen(found),
            *_left_out(found, layout),
        ),
    )


def _small_devices(found: FoundQemu, buses: Buses) -> _Small:
    holders: dict[int, str] = {}
    devices: dict[str, str] = {}
    doubts: list[str] = []
    for device in sorted(found.tree, key=lambda each: (each.id not in _KINDS, -each.index)):
        name, _ = _SMALL.get(plain_driver(device.driver), ("", None))
        if not name or device.index not in buses.places:
            continue
        if name in holders.values():
            doubts.append(f"there is more than one {device.driver}: {device.id or 'one without an id'} is left alone")
            continue
        holders[device.index] = name
        if device.id != name:
            devices[name] = device.id or found.paths.get(device.index, "")
    return _Small(holders=holders, devices=devices, doubts=tuple(doubts))


def _machine(
    found: FoundQemu, hints: Hints, *, line: CommandLine, disks: Disks, networks: Networks, small: _Small
) -> tuple[Machine, tuple[str, ...]]:
    cpu, cpu_doubts = read_cpu(found, hints, line)
    memory, memory_doubts = read_memory(found, line)
    firmware, image, firmware_doubts = read_firmware(found, line)
    kernel, kernel_doubts = read_kernel(found, hints)
    names = set(small.holders.values())
    action, action_doubts = watchdog_action(line) if "watchdog" in names else (None, ())
    accelerator = Accelerator.KVM if found.kvm else Accelerator.TCG
    console = "console" in found.character_devices
    machine = Machine(
        uuid=found.uuid if found.uuid != _NO_UUID else hints.uuid,
        name=hints.name,
        machine_type=str(found.settings["/machine type"]).removesuffix("-machine"),
        accelerator=accelerator,
        tb_size_mib=_tb_size_mib(line) if accelerator is Accelerator.TCG else None,
        firmware=firmware,
        firmware_image=image,
        kernel=kernel,
        cpu=cpu,
        memory=memory,
        disks=disks.disks,
        networks=networks.networks,
        rng="rng" in names,
        balloon="balloon" in names,
        watchdog=action,
        pvpanic=any(each.driver == "pvpanic" for each in found.tree),
        serial_log=console and _logged(hints),
        sandbox="-sandbox" in line.options,
        pci=_NOWHERE,
    )
    unreachable = () if console else ("it has no console of guestlet's: guestlet console works after the next start",)
    given = () if found.uuid != _NO_UUID else (f"it was given no UUID: from the next start on it has {hints.uuid}",)
    doubts = (*given, *cpu_doubts, *memory_doubts, *firmware_doubts, *kernel_doubts, *action_doubts, *unreachable)
    return machine, doubts


_NOWHERE = Layout(family=Family.PC, device_bus=DeviceBus.ROOT_PORT, controllers=(), devices=(), anonymous=(), freed=())


def _tb_size_mib(line: CommandLine) -> int:
    told = line.setting("-accel", "tb-size") or ""
    return int(told) if told.isdecimal() and int(told) > 0 else TB_SIZE_MIB


def _logged(hints: Hints) -> bool:
    return any(re.search(r"(^|,)id=console(,|$)", each) and "logfile=" in each for each in hints.argv)


def _layout(found: FoundQemu, hints: Hints, *, buses: Buses, disks: Disks, networks: Networks, small: _Small) -> Layout:
    named = {**disks.holders, **networks.holders, **small.holders}
    index_of = {name: index for index, name in named.items()}
    devices = []
    for name, kind, label in _order(disks, networks, small):
        devices.append(Placed(id=name, name=label, kind=kind, address=buses.places[index_of[name]]))
    return Layout(
        family=buses.family,
        device_bus=_device_bus(buses, disks, networks, hints),
        controllers=buses.controllers,
        devices=tuple(devices),
        anonymous=nameless_devices(found, buses, frozenset(named)),
        freed=(),
    )


def _order(disks: Disks, networks: Networks, small: _Small) -> list[tuple[str, DeviceKind, str]]:
    """Id, kind and name of what has an address, in the order of ``qemu.pci_requests``."""
    own = [each for each in disks.disks if each.bus in (DiskBus.VIRTIO, DiskBus.NVME)]
    order = [(disk_device(each.name), DeviceKind.DISK, each.name) for each in own]
    order += [(nic_device(each.name), DeviceKind.NIC, each.name) for each in networks.networks]
    shared = sorted({name for name in disks.holders.values() if not name.startswith("disk-")}, key=_controller_order)
    order += [(name, _KINDS.get(name, DeviceKind.SATA), name) for name in shared]
    order += [(name, kind, name) for name, kind in _SMALL.values() if name in small.holders.values()]
    return order


def _controller_order(name: str) -> tuple[bool, int]:
    return name != "scsi", int(name.rpartition("-")[2]) if "-" in name else 0


def _device_bus(buses: Buses, disks: Disks, networks: Networks, hints: Hints) -> DeviceBus:
    """Where disks and interfaces go on q35: on bridges if all that might be elsewhere are; else as spec says.

    Conventional cards say nothing: they are on a bridge in any case.
    """
    bridges = {each.id for each in buses.controllers if each.kind in BRIDGES}
    express = {disk_device(each.name) for each in disks.disks if each.bus in (DiskBus.VIRTIO, DiskBus.NVME)}
    express |= {nic_device(each.name) for each in networks.networks if each.model is NicModel.VIRTIO}
    indexes = {name: index for index, name in {**disks.holders, **networks.holders}.items()}
    behind = [buses.places[indexes[name]].bus in bridges for name in sorted(express)]
    if buses.family is Family.PC or (behind and not all(behind)):
        return DeviceBus.ROOT_PORT
    if behind:
        return DeviceBus.PCI_BRIDGE
    return hints.spec.pci.device_bus if hints.spec is not None else DeviceBus.ROOT_PORT


def _boot_orders(machine: Machine) -> Machine:
    """QEMU counts from 0, the API from 1: every number is one higher as soon as there is a 0."""
    disks = [each.boot_order for each in machine.disks if each.boot_order is not None]
    nics = [each.boot_order for each in machine.networks if each.boot_order is not None]
    if 0 not in (*disks, *nics):
        return machine
    up = {order: order + 1 for order in (*disks, *nics)}
    return replace(
        machine,
        disks=tuple(replace(each, boot_order=_risen(each.boot_order, up)) for each in machine.disks),
        networks=tuple(replace(each, boot_order=_risen(each.boot_order, up)) for each in machine.networks),
    )


def _risen(order: int | None, up: Mapping[int, int]) -> int | None:
    return None if order is None else up[order]


def _plugged_aliases(found: FoundQemu) -> dict[str, str]:
    """What QEMU calls plugged processors and memory modules; those of the start have no id with us either."""
    aliases: dict[str, str] = {}
    for index, slot in enumerate(found.cpu_slots):
        path = slot.path or ""
        if path.startswith(NAMELESS):
            aliases[cpu_device(index)] = path
        elif path.startswith(f"{NAMED}/") and path != f"{NAMED}/{cpu_device(index)}":
            aliases[cpu_device(index)] = path.removeprefix(f"{NAMED}/")
    slots = {found.settings[key]: key.rpartition(" ")[0] for key in sorted(found.settings) if key.endswith(" slot")}
    for each in found.memory_devices:
        if each.slot is not None and each.id != dimm_device(each.slot):
            aliases[dimm_device(each.slot)] = each.id or slots.get(each.slot, "")
    return aliases


def _left_out(found: FoundQemu, layout: Layout) -> tuple[str, ...]:
    """What the machine has and the next start will not."""
    doubts = [
        f"it has an {each.driver}: the next start has none, and its devices go without it"
        for each in found.tree
        if each.driver in _IOMMUS
    ]
    if layout.anonymous:
        some = ", ".join(f"{each.id or f'{each.vendor}:{each.device}'} at {each.address}" for each in layout.anonymous)
        doubts.append(f"not part of the next start, with their addresses kept free: {some}")
    return tuple(doubts)


def _unseen(found: FoundQemu) -> tuple[str, ...]:
    """Devices with an id that QOM has on its list and the tree does not show, such as DIMMs and CPUs have none."""
    shown = {each.id for each in found.tree} | {each.id for each in found.memory_devices}
    missing = sorted(found.named - shown)
    return tuple(f"device {each} is not in QEMU's device tree; where it is is not known" for each in missing)

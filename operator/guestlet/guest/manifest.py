"""The words of the API for a machine that is there: the spec that would give it, and a manifest to apply. Pure.

Used where a machine exists before anybody wrote a spec for it (an adopted or recovered guest). It must never ask for
anything that the machine does not have; what the API cannot say is not said.
"""

import json
from collections.abc import Mapping

from guestlet.api.guest import API_VERSION, KIND
from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.api.quantity import format_bytes, parse_quantity
from guestlet.errors import Refused
from guestlet.guest.desired import GuestKey
from guestlet.guest.recovery.naming import default_serial
from guestlet.guest.resolve import topology
from guestlet.pci.controllers import PORTS, Family
from guestlet.pci.facts import Layout
from guestlet.pci.venues import hotplug_ports_free, occupied
from guestlet.qemu.machine import (
    Bandwidth,
    BridgeNet,
    Disk,
    IsolatedNet,
    Machine,
    Nic,
    TapNet,
    Throttle,
    UserNet,
)
from guestlet.qemu.names import disk_device, nic_device

Words = dict[str, object]

_SPARES_MAX = 32  # api/guest_spec.py, PciSpec
_MODELS = {"host": "Host", "max": "Max"}
# What speaks of the guest's life, or of an image's end, and not of the machine.
OF_LIFE = frozenset({"nodeName", "runStrategy", "paused", "restart", "terminationGracePeriodSeconds", "onDelete"})
_PLAIN = ("machine", "firmware", "boot", "memory", "console", "devices")
_AMOUNTS = frozenset({"size", "maxSize", "bandwidth", "bandwidthBurst", "inbound", "outbound"})


def spec_of(machine: Machine) -> VirtualGuestSpec:
    """The spec that gives this machine to a guest that has it already, with every address, MAC and serial number said.

    Images are taken to be there: no size is said, so that one that is missing later is never made anew, blank.

    Raises:
        ValueError: the machine has something that the API has no words for (more disks than a spec may list, …).
    """
    return VirtualGuestSpec.model_validate(_spec(machine))


def manifest_of(machine: Machine, *, key: GuestKey, node: str, paused: bool) -> Mapping[str, object]:
    """The VirtualGuest to apply, so that the guest that runs on the node as this machine becomes the cluster's.

    Raises:
        ValueError: as ``spec_of``.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": {"nodeName": node, **({"paused": True} if paused else {}), **_without_defaults(spec_of(machine))},
    }


def source_for(machine: Machine, spec: VirtualGuestSpec) -> str:
    """The spec that this machine was made from, as far as it can be told: the user's words where they give what is
    there, the machine's own where they do not, so that what waits for a change or a restart is still named.
    """
    made, asked = _spec(machine), spec.to_wire()
    source: Words = {name: asked[name] for name in sorted(OF_LIFE) if name in asked}
    source |= _merged({name: asked.get(name) for name in _PLAIN}, {name: made.get(name) for name in _PLAIN})
    source["accelerator"] = (
        asked["accelerator"] if asked["accelerator"] in ("Auto", made["accelerator"]) else made["accelerator"]
    )
    source["pci"] = {**_merged(asked["pci"], made["pci"]), "hotplugPorts": spec.pci.hotplug_ports}
    source["cpu"] = _cpu_source(machine, spec, made["cpu"])
    source["disks"] = [_disk_source(each, spec, machine.pci) for each in machine.disks]
    source["networks"] = [_network_source(each, spec, machine.pci) for each in machine.networks]
    return json.dumps(source, sort_keys=True)


def _cpu_source(machine: Machine, spec: VirtualGuestSpec, made: object) -> Words:
    words = _merged(spec.cpu.to_wire(), made)
    if spec.cpu.model is None or machine.cpu.model.startswith(f"{spec.cpu.model}-v"):
        words.pop("model")  # left open, or the name of which this is a version: kept as it is
    if spec.cpu.model is not None and "model" not in words:
        words["model"] = spec.cpu.model
    if spec.cpu.max_count == machine.cpu.max_count:
        words["maxCount"] = (
            machine.cpu.max_count
        )  # said although no more can come: the machine's own words leave it out
    arranged = spec.cpu.model_copy(update={"count": machine.cpu.count, "max_count": machine.cpu.max_count})
    try:
        same = topology(arranged) == (machine.cpu.sockets, machine.cpu.cores, machine.cpu.threads)
    except Refused:
        same = False
    for level in ("sockets", "cores", "threads"):
        if same and getattr(spec.cpu, level) is None:
            words.pop(level)
    return words


def _disk_source(disk: Disk, spec: VirtualGuestSpec, layout: Layout) -> Words:
    """One disk; what becomes of its image is the user's alone, and its size unless the image is smaller."""
    made = _disk(disk, layout)
    asked = next((each for each in spec.disks if each.name == disk.name), None)
    if asked is None:
        return made
    left = {"pciAddress"} | ({"serial"} if disk.serial == default_serial(disk.name) else set())
    words = _merged(asked.to_wire(), made, left_open=left)
    if asked.size is not None and parse_quantity(asked.size) <= disk.size_bytes:
        words["size"] = asked.size
    return {**words, "onDelete": asked.on_delete.value}


def _network_source(nic: Nic, spec: VirtualGuestSpec, layout: Layout) -> Words:
    made = _network(nic, layout)
    asked = next((each for each in spec.networks if each.name == nic.name), None)
    return made if asked is None else _merged(asked.to_wire(), made, left_open={"macAddress", "pciAddress"})


def _merged(asked: object, made: object, *, left_open: frozenset[str] | set[str] = frozenset()) -> Words:
    """What was asked where it means what was made, else what was made; what may be left open stays open."""
    wanted, there = _words(asked), _words(made)
    merged: Words = {}
    for name, value in there.items():
        if name not in wanted and name in left_open:
            continue
        if isinstance(value, Mapping) and isinstance(wanted.get(name), Mapping):
            merged[name] = _merged(wanted[name], value)
        else:
            merged[name] = wanted[name] if _means(name, wanted.get(name), value) else value
    return {name: value for name, value in merged.items() if value is not None}


def _words(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _means(name: str, asked: object, made: object) -> bool:
    if name in _AMOUNTS and isinstance(asked, str) and isinstance(made, str):
        return parse_quantity(asked) == parse_quantity(made)
    return asked == made or (name == "macAddress" and str(asked).lower() == made)


def _spec(machine: Machine) -> Words:
    kernel, memory = machine.kernel, machine.memory
    size = memory.asked_bytes
    boot: Words = {}
    if kernel is not None:
        files = {"pool": kernel.pool, "image": kernel.image, "initrd": kernel.initrd, "cmdline": kernel.cmdline}
        boot = {"boot": {"kernel": {name: value for name, value in files.items() if value is not None}}}
    return {
        "machine": {"type": machine.pci.family.value},
        "accelerator": machine.accelerator.value,
        "firmware": {"type": machine.firmware.value},
        **boot,
        "cpu": {
            "count": machine.cpu.count,
            **({"maxCount": machine.cpu.max_count} if machine.cpu.max_count > machine.cpu.count else {}),
            "sockets": machine.cpu.sockets,
            "cores": machine.cpu.cores,
            "threads": machine.cpu.threads,
            "model": _MODELS.get(machine.cpu.model, machine.cpu.model),
        },
        "memory": {
            "size": format_bytes(size),
            **({"maxSize": format_bytes(memory.max_bytes)} if memory.max_bytes > memory.boot_bytes else {}),
        },
        "disks": [_disk(each, machine.pci) for each in machine.disks],
        "networks": [_network(each, machine.pci) for each in machine.networks],
        "console": {"serialLog": machine.serial_log},
        "devices": {
            "rng": machine.rng,
            "balloon": machine.balloon,
            **({"watchdog": {"action": machine.watchdog.value}} if machine.watchdog else {}),
            "pvpanic": machine.pvpanic,
        },
        "pci": {"hotplugPorts": min(_spares(machine.pci), _SPARES_MAX), "deviceBus": machine.pci.device_bus.value},
    }


def _spares(layout: Layout) -> int:
    """Free root ports on q35, where that is what is kept free; else free slots."""
    if layout.family is Family.PC:
        return hotplug_ports_free(layout)[1]
    taken = {each.bus for each in occupied(layout)}
    return sum(each.kind in PORTS and each.id not in taken for each in layout.controllers)


def _address(layout: Layout, device: str) -> Words:
    found = next((each.address for each in layout.devices if each.id == device), None)
    return {"pciAddress": str(found)} if found is not None else {}


def _disk(disk: Disk, layout: Layout) -> Words:
    words: Words = {"name": disk.name, "bus": disk.bus.value}
    if disk.source is not None:
        file = {
            "pool": disk.source.pool,
            "image": disk.source.image,
            "format": disk.source.format.value,
            "backingImage": disk.source.backing_image,
        }
        words["source"] = {"file": {name: value for name, value in file.items() if value is not None}}
    words |= {
        "readOnly": disk.read_only,
        "cdrom": disk.cdrom,
        "serial": disk.serial,
        "cache": disk.cache.value,
        "aio": disk.aio.value,
        "discard": disk.discard.value,
        "ioThread": disk.io_thread,
        "throttle": _throttle(disk.throttle),
        "bootOrder": disk.boot_order,
        **_address(layout, disk_device(disk.name)),
    }
    return {name: value for name, value in words.items() if value is not None}


def _throttle(throttle: Throttle | None) -> Words | None:
    if throttle is None:
        return None
    words: Words = {
        "iops": throttle.iops,
        "iopsBurst": throttle.iops_burst,
        "bandwidth": _amount(throttle.bandwidth_bytes),
        "bandwidthBurst": _amount(throttle.bandwidth_burst_bytes),
    }
    return {name: value for name, value in words.items() if value is not None}


def _amount(count: int | None) -> str | None:
    return None if count is None else format_bytes(count)


def _network(nic: Nic, layout: Layout) -> Words:
    words: Words = {
        "name": nic.name,
        "model": nic.model.value,
        "macAddress": nic.mac,
        **_backend(nic),
        "queues": nic.queues,
        "linkUp": nic.link_up,
        "bandwidth": _bandwidth(nic.bandwidth),
        "bootOrder": nic.boot_order,
        **_address(layout, nic_device(nic.name)),
    }
    return {name: value for name, value in words.items() if value is not None}


def _backend(nic: Nic) -> Words:
    match nic.backend:
        case UserNet(host_forwards=forwards):
            leads = [
                {
                    "protocol": each.protocol.value,
                    "hostAddress": each.host_address,
                    "hostPort": each.host_port,
                    "guestPort": each.guest_port,
                }
                for each in forwards
            ]
            return {"user": {"hostForwards": leads}}
        case BridgeNet(bridge=bridge):
            return {"bridge": {"name": bridge}}
        case TapNet(up_script=up, down_script=down):
            scripts = {"upScript": up, "downScript": down}
            return {"tap": {name: value for name, value in scripts.items() if value is not None}}
        case IsolatedNet():
            return {"isolated": {}}


def _bandwidth(bandwidth: Bandwidth | None) -> Words | None:
    if bandwidth is None:
        return None
    words: Words = {"inbound": _amount(bandwidth.inbound_bytes), "outbound": _amount(bandwidth.outbound_bytes)}
    return {name: value for name, value in words.items() if value is not None}


def _without_defaults(spec: VirtualGuestSpec) -> Words:
    """The spec without what says the default anyway, so that a person can read it; parts stay as they are."""
    plain = VirtualGuestSpec().to_wire()
    words = spec.to_wire()
    return {name: value for name, value in words.items() if plain.get(name) != value}

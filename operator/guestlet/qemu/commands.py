"""The QMP commands that guestlet sends, as values: what to say and how long to wait for the answer.

It must never send anything. A command whose deadline passes may have been carried out: ``errors.Unknown``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from guestlet.qemu.machine import DiskBus, Throttle
from guestlet.qemu.options import OptionValue

_QUERY_DEADLINE_S = 5.0
_CHANGE_DEADLINE_S = 10.0
_NOTHING: Mapping[str, OptionValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: ``deadline_s`` is how long QEMU may take to answer before the outcome counts as unknown."""

    name: str
    arguments: Mapping[str, OptionValue] = field(default_factory=lambda: _NOTHING)
    deadline_s: float = _CHANGE_DEADLINE_S


def cont() -> Command:
    """Let the guest run."""
    return Command(name="cont")


def stop() -> Command:
    """Freeze the guest's virtual CPUs; outstanding disk requests are finished first."""
    return Command(name="stop")


def system_powerdown() -> Command:
    """Press the power button: the guest may shut down, later, or not at all."""
    return Command(name="system_powerdown")


def system_reset() -> Command:
    """Press the reset button."""
    return Command(name="system_reset")


def quit_qemu() -> Command:
    """End QEMU at once; disk caches of QEMU's own are flushed."""
    return Command(name="quit")


def set_link(device: str, *, up: bool) -> Command:
    """Pull or plug the cable of an interface, by its qdev id."""
    return Command(name="set_link", arguments={"name": device, "up": up})


def blockdev_add(option: Mapping[str, OptionValue]) -> Command:
    """Open one block node; ``option`` is what ``-blockdev`` takes."""
    return Command(name="blockdev-add", arguments=option)


def blockdev_del(node: str) -> Command:
    """Close a block node that nothing uses any more."""
    return Command(name="blockdev-del", arguments={"node-name": node})


def device_add(option: Mapping[str, OptionValue]) -> Command:
    """Plug a device; ``option`` is what ``-device`` takes. Refused while a migration is under way."""
    return Command(name="device_add", arguments=option)


def device_del(device: str) -> Command:
    """Ask the guest to let go of a device, by qdev id or QOM path: it is gone at DEVICE_DELETED, not before."""
    return Command(name="device_del", arguments={"id": device})


def netdev_add(option: Mapping[str, OptionValue]) -> Command:
    """Make a network backend; ``option`` is what ``-netdev`` takes."""
    return Command(name="netdev_add", arguments=option)


def netdev_del(netdev: str) -> Command:
    """Take a network backend away. QEMU obeys even while an interface uses it, and that one then hangs in the air."""
    return Command(name="netdev_del", arguments={"id": netdev})


def object_add(option: Mapping[str, OptionValue]) -> Command:
    """Make an object; ``option`` is what ``-object`` takes."""
    return Command(name="object-add", arguments=option)


def object_del(name: str) -> Command:
    """Take an object away that nothing uses any more."""
    return Command(name="object-del", arguments={"id": name})


def block_resize(node: str, size_bytes: int) -> Command:
    """Give a disk another size. QEMU shrinks as readily as it grows: the caller must know that it grows."""
    return Command(name="block_resize", arguments={"node-name": node, "size": size_bytes})


def throttled_device(device: str, bus: DiskBus) -> str:
    """What ``block_set_io_throttle`` knows a disk by: a virtio-blk device holds its drive in its back end.

    Measured with QEMU 7.2 and 10.0: the qdev id and the device's own path are refused, the back end's path is not.
    """
    return f"/machine/peripheral/{device}/virtio-backend" if bus is DiskBus.VIRTIO else device


def block_set_io_throttle(device: str, throttle: Throttle | None, group: str) -> Command:
    """Set all limits of a disk (``device`` as ``throttled_device`` says), or none; one that is absent is taken away.

    A drive without a medium refuses.
    """
    limits: dict[str, OptionValue] = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
    limits |= _limit("bps", throttle.bandwidth_bytes, throttle.bandwidth_burst_bytes) if throttle else {}
    limits |= _limit("iops", throttle.iops, throttle.iops_burst) if throttle else {}
    # Without limits QEMU takes the disk out of its group, and a group of its own is all that it is ever in.
    named = {"group": group} if any(limits.values()) else {}
    return Command(name="block_set_io_throttle", arguments={"id": device, **limits, **named})


def qom_set(path: str, name: str, value: OptionValue) -> Command:
    """Set one property of an object."""
    return Command(name="qom-set", arguments={"path": path, "property": name, "value": value})


def blockdev_open_tray(device: str, *, force: bool) -> Command:
    """Open a cdrom drive by its qdev id; without ``force`` a guest that locked it is only asked to."""
    return Command(name="blockdev-open-tray", arguments={"id": device, "force": force})


def blockdev_close_tray(device: str) -> Command:
    """Close a cdrom drive."""
    return Command(name="blockdev-close-tray", arguments={"id": device})


def blockdev_remove_medium(device: str) -> Command:
    """Take the medium out of an open drive; its node stays."""
    return Command(name="blockdev-remove-medium", arguments={"id": device})


def blockdev_insert_medium(device: str, node: str) -> Command:
    """Put a node into an open and empty drive."""
    return Command(name="blockdev-insert-medium", arguments={"id": device, "node-name": node})


def getfd(name: str) -> Command:
    """Keep the descriptor that comes with this message under a name, until ``netdev_add`` takes it."""
    return Command(name="getfd", arguments={"fdname": name})


def closefd(name: str) -> Command:
    """Close a descriptor that nobody took."""
    return Command(name="closefd", arguments={"fdname": name})


def query_status() -> Command:
    """The run state."""
    return _query("query-status")


def query_version() -> Command:
    """QEMU's own version."""
    return _query("query-version")


def query_name() -> Command:
    """The guest's name, as QEMU was given it."""
    return _query("query-name")


def query_uuid() -> Command:
    """The guest's UUID, as QEMU was given it."""
    return _query("query-uuid")


def query_cpus_fast() -> Command:
    """The virtual CPUs and the threads that execute them."""
    return _query("query-cpus-fast")


def query_pci() -> Command:
    """The PCI functions as the guest sees them; blind before its firmware has run."""
    return _query("query-pci")


def query_block() -> Command:
    """The disks with what they read."""
    return _query("query-block")


def query_named_block_nodes() -> Command:
    """Every block node, without the images below it."""
    return _query("query-named-block-nodes", flat=True)


def query_hotpluggable_cpus() -> Command:
    """The places for virtual CPUs, taken and empty, last first."""
    return _query("query-hotpluggable-cpus")


def query_memory_devices() -> Command:
    """Memory modules and virtio-mem devices."""
    return _query("query-memory-devices")


def query_memory_size_summary() -> Command:
    """The memory given at start, and what was plugged since."""
    return _query("query-memory-size-summary")


def query_memdev() -> Command:
    """The memory backends."""
    return _query("query-memdev")


def query_block_graph() -> Command:
    """Nodes and their users, jobs among them: no other command tells which nodes a job uses (QEMU 7.2 and 10.0)."""
    return _query("x-debug-query-block-graph")


def query_migrate() -> Command:
    """How a migration stands."""
    return _query("query-migrate")


def query_chardev() -> Command:
    """The character devices."""
    return _query("query-chardev")


def info_jit() -> Command:
    """How full TCG's translation cache is, as HMP text: ``x-query-jit`` says the same and is not stable."""
    return _query("human-monitor-command", **{"command-line": "info jit"})


def info_network() -> Command:
    """Interfaces and network backends as text for people: QMP has no query for them (QEMU 7.2 and 10.0)."""
    return _query("human-monitor-command", **{"command-line": "info network"})


def qom_list(path: str) -> Command:
    """The properties of an object; of ``/machine/peripheral``: the devices that were given an id."""
    return _query("qom-list", path=path)


def qom_get(path: str, name: str) -> Command:
    """One property of an object."""
    return _query("qom-get", path=path, property=name)


def device_address(device: str) -> Command:
    """Slot and function of a PCI device, by its qdev id (``replies.parse_address``)."""
    return qom_get(f"/machine/peripheral/{device}", "legacy-addr")


def device_bus(device: str) -> Command:
    """The bus that a device is on, by its qdev id (``replies.parse_parent_bus``)."""
    return qom_get(f"/machine/peripheral/{device}", "parent_bus")


def _query(name: str, **arguments: OptionValue) -> Command:
    return Command(name=name, arguments=arguments, deadline_s=_QUERY_DEADLINE_S)


def _limit(name: str, limit: int | None, burst: int | None) -> dict[str, OptionValue]:
    """One limit with its burst, which QEMU takes only beside a limit and never below it."""
    if not limit:
        return {}
    return {name: limit} if burst is None else {name: limit, f"{name}_max": max(limit, burst)}

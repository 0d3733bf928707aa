"""What a QEMU is asked of which nothing is known: the first questions, and those that its answers call for. Pure.

As few as will do: each costs most of a millisecond, and a node may have a hundred guests to ask. Every question only
reads; an answer that a QEMU does not have (an older version, a device without the property) is simply missing among
the replies. It must never ask for anything to change.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from guestlet.qemu import commands
from guestlet.qemu.commands import Command, qom_get, qom_list
from guestlet.qemu.device_tree import TreeDevice, parse_device_tree

_DEADLINE_S = 5.0
NAMED = "/machine/peripheral"
NAMELESS = "/machine/peripheral-anon"
UNATTACHED = "/machine/unattached"
_MACHINE_PROPERTIES = ("type", "smp", "memory", "kernel", "pflash0")
DISKS = ("virtio-blk-pci", "nvme", "scsi-hd", "scsi-cd", "scsi-block", "ide-hd", "ide-cd")
CARDS = ("virtio-net-pci", "e1000", "e1000e", "rtl8139", "vmxnet3", "pcnet", "ne2k_pci", "igb")
_IOTHREADS = ("virtio-blk-pci", "virtio-scsi-pci")


def _shown(what: str) -> Command:
    """What QEMU shows to people and has no QMP command for."""
    asked = {"command-line": f"info {what}"}
    return Command(name="human-monitor-command", arguments=asked, deadline_s=_DEADLINE_S)


RECOVERY_QUERIES: Mapping[str, Command] = MappingProxyType(
    {
        "status": commands.query_status(),
        "version": commands.query_version(),
        "uuid": commands.query_uuid(),
        "kvm": Command(name="query-kvm", deadline_s=_DEADLINE_S),
        "pci": commands.query_pci(),
        "block": commands.query_block(),
        "nodes": commands.query_named_block_nodes(),
        "memory devices": commands.query_memory_devices(),
        "memory objects": commands.query_memdev(),
        "memory": commands.query_memory_size_summary(),
        "cpu slots": commands.query_hotpluggable_cpus(),
        "character devices": commands.query_chardev(),
        "tree": _shown("qtree"),
        "network": commands.info_network(),
        "named": qom_list(NAMED),
        "nameless": qom_list(NAMELESS),
        **{f"/machine {each}": qom_get("/machine", each) for each in _MACHINE_PROPERTIES},
    }
)


def follow_up(replies: Mapping[str, object]) -> Mapping[str, Command]:
    """The questions that the answers so far call for, those that are answered already among them.

    Of single devices by QOM path and property (``/machine/peripheral/disk-root iothread``). What these call for in turn
    is found by asking again with their answers too.
    """
    tree = replies.get("tree")
    devices = parse_device_tree(tree) if isinstance(tree, str) else ()
    wanted = [*_of_named(devices), *_of_nameless(devices, replies), *_of_drives(replies), *_of_machine(replies)]
    asked = {f"{path} {name}": qom_get(path, name) for path, name in dict.fromkeys(wanted)}
    if "type=user" in str(replies.get("network")):
        asked["user network"] = _shown("usernet")
    if any(each.place and not each.id and plain_driver(each.driver) in CARDS for each in devices):
        asked["unattached"] = qom_list(UNATTACHED)
    return asked


def _of_machine(replies: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    if replies.get("/machine kernel"):
        yield from (("/machine", "initrd"), ("/machine", "append"))
    if replies.get("/machine pflash0"):
        yield "/machine", "pflash1"


def _of_named(devices: tuple[TreeDevice, ...]) -> Iterator[tuple[str, str]]:
    for each in devices:
        if each.id and plain_driver(each.driver) in (*DISKS, *CARDS):
            yield f"{NAMED}/{each.id}", "bootindex"
        if each.id and plain_driver(each.driver) in _IOTHREADS:
            yield f"{NAMED}/{each.id}", "iothread"


def _of_nameless(devices: tuple[TreeDevice, ...], replies: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Where devices without an id are, so that their QOM path becomes the name by which QEMU is told of them."""
    yield from ((path, "slot") for path, driver in children(replies.get("nameless"), NAMELESS) if driver == "pc-dimm")
    drivers = {each.driver for each in devices if each.place and not each.id}
    for path, driver in (
        *children(replies.get("nameless"), NAMELESS),
        *children(replies.get("unattached"), UNATTACHED),
    ):
        if driver not in drivers:
            continue
        if path.startswith(UNATTACHED) and plain_driver(driver) not in (*DISKS, *CARDS):
            continue  # the chipset's own, which nothing is ever done to
        yield path, "legacy-addr"
        yield path, "parent_bus"
        if plain_driver(driver) in (*DISKS, *CARDS):
            yield path, "bootindex"
        if plain_driver(driver) in _IOTHREADS:
            yield path, "iothread"


def _of_drives(replies: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    found = replies.get("block")
    for each in found if isinstance(found, list) else ():
        path = each.get("qdev", "") if isinstance(each, dict) else ""
        if path.startswith("/"):
            yield path.removesuffix("/virtio-backend"), "bootindex"


def plain_driver(driver: str) -> str:
    """The driver without virtio's words for its generation (``virtio-blk-pci-non-transitional``)."""
    return driver.removesuffix("-non-transitional").removesuffix("-transitional")


def children(reply: object, parent: str) -> Iterator[tuple[str, str]]:
    """The children in a ``qom-list`` reply: path and type, sorted."""
    for each in sorted(reply, key=str) if isinstance(reply, list) else ():
        kind = str(each.get("type", "")) if isinstance(each, dict) else ""
        if kind.startswith("child<"):
            yield f"{parent}/{each['name']}", kind[len("child<") : -1]

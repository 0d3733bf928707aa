"""What QEMU must be asked for an ``Inventory``, and the inventory out of its replies.

It must never fill in what QEMU did not say: a reply without what is needed is ``Broken``.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from guestlet.qemu import commands
from guestlet.qemu.commands import Command
from guestlet.qemu.inventory import BlockNode, CpuSlot, Drive, Inventory, MemoryDevice
from guestlet.qemu.machine import Throttle
from guestlet.qemu.replies import Reply, Wire, reading

PERIPHERAL: Final = "/machine/peripheral"
OBJECTS: Final = "/objects"

INVENTORY_QUERIES: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "devices": commands.qom_list(PERIPHERAL),
        "objects": commands.qom_list(OBJECTS),
        "nodes": commands.query_named_block_nodes(),
        "drives": commands.query_block(),
        "graph": commands.query_block_graph(),
        "network": commands.info_network(),
        "cpus": commands.query_hotpluggable_cpus(),
        "memory_devices": commands.query_memory_devices(),
        "memory_sizes": commands.query_memory_size_summary(),
        "migration": commands.query_migrate(),
        "translation": commands.info_jit(),
    }
)

# What stands for the answer to a question that was not asked, because nothing of it is to be changed.
NOT_ASKED: Final[Mapping[str, object]] = MappingProxyType(
    {"graph": {"nodes": [], "edges": []}, "cpus": [], "memory_devices": [], "translation": ""}
)

# A line of `info network`: a hub's port, an interface or a backend of its own, or the peer of the line above.
_NETWORK_LINE = re.compile(r"(?P<peer> \\ )?(?P<name>[^\s:]+)(?:: (?P<rest>.*))?")
_CLIENT = re.compile(r"index=\d+,type=(?P<type>[^,\s]+)")
_HUB = re.compile(r"hub \d+")

_CACHE_LINE = re.compile(r"gen code size +(?P<used>[0-9]+)/(?P<size>[0-9]+)")

# qapi/migration.json MigrationStatus: from the first byte until the end is known.
_MIGRATING = frozenset(
    {
        "setup",
        "cancelling",
        "active",
        "postcopy-device",
        "postcopy-active",
        "postcopy-paused",
        "postcopy-recover-setup",
        "postcopy-recover",
        "pre-switchover",
        "device",
        "wait-unplug",
        "colo",
    }
)


def parse_inventory(replies: Mapping[str, object]) -> Inventory:
    """The inventory out of the replies to ``INVENTORY_QUERIES``, by the same keys.

    Raises:
        Broken: ``HostFailure`` when a reply is missing or cannot be read.
    """
    with reading("the queries of an inventory"):
        base_bytes, plugged_bytes = parse_memory_sizes(replies["memory_sizes"])
        netdevs, interfaces = parse_network(replies["network"])
        return Inventory(
            devices=parse_children(replies["devices"]),
            objects=parse_children(replies["objects"]),
            nodes={each.name: each for each in parse_nodes(replies["nodes"])},
            netdevs=netdevs,
            interfaces=interfaces,
            drives=parse_drives(replies["drives"]),
            cpus=parse_cpu_slots(replies["cpus"]),
            memory_devices=parse_memory_devices(replies["memory_devices"]),
            base_memory_bytes=base_bytes,
            plugged_memory_bytes=plugged_bytes,
            busy_nodes=parse_busy_nodes(replies["graph"]),
            migrating=parse_migrating(replies["migration"]),
            translation_cache_used=parse_translation_cache(replies["translation"]),
        )


def parse_translation_cache(reply: Wire) -> float | None:
    """``info jit``: which part of TCG's translation cache is in use; ``None`` under KVM, where there is none."""
    found = _CACHE_LINE.search(str(reply))
    return int(found["used"]) / int(found["size"]) if found is not None and int(found["size"]) else None


def parse_children(reply: Wire) -> frozenset[str]:
    """``qom-list``: the names of the objects below, without plain properties and links."""
    with reading("qom-list"):
        return frozenset(str(each["name"]) for each in reply if str(each["type"]).startswith("child<"))


def parse_nodes(reply: Wire) -> tuple[BlockNode, ...]:
    """``query-named-block-nodes``."""
    with reading("query-named-block-nodes"):
        return tuple(
            BlockNode(
                name=str(each["node-name"]),
                driver=str(each["drv"]),
                file=str(each["file"]),
                size_bytes=int(each["image"]["virtual-size"]),
                read_only=bool(each["ro"]),
                backing_file=str(each["backing_file"]) if "backing_file" in each else None,
            )
            for each in reply
        )


def parse_drives(reply: Wire) -> tuple[Drive, ...]:
    """``query-block``: what belongs to a device; ``-drive`` without a device has no ``qdev`` and is left out."""
    with reading("query-block"):
        return tuple(_drive(each) for each in reply if each.get("qdev"))


def _drive(entry: Reply) -> Drive:
    inserted: Reply = entry.get("inserted", {})
    return Drive(
        qdev=str(entry["qdev"]),
        node=str(inserted.get("node-name", "")),
        tray_open=bool(entry.get("tray_open", False)),
        removable=bool(entry["removable"]),
        throttle=_throttle(inserted),
        io_status=str(entry.get("io-status", "ok")),
    )


def _throttle(inserted: Reply) -> Throttle | None:
    """Limits of one direction only, which nobody here sets, make a ``Throttle`` without a number."""
    if not any(inserted.get(each, 0) for each in ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")):
        return None
    return Throttle(
        iops=_limit(inserted, "iops"),
        iops_burst=_limit(inserted, "iops_max"),
        bandwidth_bytes=_limit(inserted, "bps"),
        bandwidth_burst_bytes=_limit(inserted, "bps_max"),
    )


def _limit(inserted: Reply, name: str) -> int | None:
    return int(inserted.get(name, 0)) or None


def parse_network(reply: Wire) -> tuple[frozenset[str], frozenset[str]]:
    """``info network``: the ids of network backends, hub ports among them, and those of interfaces.

    QEMU 7.2 and 10.0 print below a hub each port with its interface, else an interface with its backend below it, or
    a backend that nobody uses. A backend taken away while an interface uses it may be listed until that goes.
    """
    if not isinstance(reply, str):
        reply = None
    with reading("info network"):
        clients = tuple(_clients(reply.splitlines()))
    return frozenset(name for name, nic in clients if not nic), frozenset(name for name, nic in clients if nic)


def _clients(lines: list[str]) -> Iterator[tuple[str, bool]]:
    """Each name with whether it is an interface."""
    in_hub = False
    for line in lines:
        match = _NETWORK_LINE.fullmatch(line)
        if _HUB.fullmatch(line):
            in_hub = True
        elif match is not None:
            in_hub = in_hub and match["peer"] is not None
            if in_hub:
                yield match["name"], False
                match = _NETWORK_LINE.fullmatch(match["rest"] or "")
            client = _CLIENT.match(match["rest"] or "") if match else None
            if match and client:
                yield match["name"], client["type"] == "nic"


def parse_cpu_slots(reply: Wire) -> tuple[CpuSlot, ...]:
    """``query-hotpluggable-cpus`` in the order in which ``-smp cpus`` fills the places: QEMU lists the last first."""
    with reading("query-hotpluggable-cpus"):
        return tuple(
            CpuSlot(
                driver=str(each["type"]),
                properties={str(name): int(value) for name, value in each["props"].items()},
                path=str(each["qom-path"]) if "qom-path" in each else None,
            )
            for each in reversed(reply)
        )


def parse_memory_devices(reply: Wire) -> tuple[MemoryDevice, ...]:
    """``query-memory-devices``."""
    with reading("query-memory-devices"):
        return tuple(_memory_device(str(each["type"]), each["data"]) for each in reply)


def _memory_device(kind: str, data: Reply) -> MemoryDevice:
    size = int(data["size"])
    return MemoryDevice(
        id=str(data.get("id", "")),
        kind=kind,
        memdev=str(data.get("memdev", "")).removeprefix(f"{OBJECTS}/"),
        size_bytes=size,
        requested_bytes=int(data.get("requested-size", size)),
        max_bytes=int(data.get("max-size", size)),
        block_bytes=int(data.get("block-size", 0)),
        hotplugged=bool(data.get("hotplugged", False)),
    )


def parse_memory_sizes(reply: Wire) -> tuple[int, int]:
    """``query-memory-size-summary``: bytes given at start, and bytes plugged since."""
    with reading("query-memory-size-summary"):
        return int(reply["base-memory"]), int(reply.get("plugged-memory", 0))


def parse_busy_nodes(reply: Wire) -> frozenset[str]:
    """``x-debug-query-block-graph``: the nodes that a block job uses itself (its disk, its target, its filter)."""
    with reading("x-debug-query-block-graph"):
        jobs = {each["id"] for each in reply["nodes"] if each["type"] == "block-job"}
        used = {each["child"] for each in reply["edges"] if each["parent"] in jobs}
        return frozenset(str(each["name"]) for each in reply["nodes"] if each["id"] in used)


def parse_migrating(reply: Wire) -> bool:
    """``query-migrate``: whether a migration is under way, in which QEMU neither plugs nor unplugs."""
    with reading("query-migrate"):
        return str(reply.get("status", "none")) in _MIGRATING

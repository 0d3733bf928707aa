"""A running QEMU of which nothing is known, as values: the replies to ``questions`` read, nothing concluded. Pure.

What a reply does not hold is absent here. It must never fill in what QEMU did not say, nor give anything a name.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from guestlet.pci.observed import PciFunction
from guestlet.qemu.device_tree import TreeDevice, parse_device_tree
from guestlet.qemu.inventory import CpuSlot
from guestlet.qemu.inventory_replies import parse_children, parse_cpu_slots, parse_memory_sizes
from guestlet.qemu.machine import HostForward, Protocol, Throttle
from guestlet.qemu.questions import NAMELESS, UNATTACHED, children
from guestlet.qemu.replies import (
    Reply,
    RunState,
    parse_pci,
    parse_status,
    parse_uuid,
    parse_version,
    reading,
)

_NIC_LINE = re.compile(r"(?P<peer> \\ )?(?P<name>\S+): (?:(?P<client>\S+): )?index=(?P<index>\d+),type=(?P<rest>.*)")
_CARD = re.compile(r"(\S+): index=0,type=nic,model=[^,]+,macaddr=(\S+)")
_HUB_LINE = re.compile(r"hub \d+")
_USER_LINE = re.compile(r"Hub -?\d+ \((?P<name>.+)\):")
_FORWARD = re.compile(
    r"\s*(?P<protocol>TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+(?P<address>\S+)\s+(?P<port>\d+)\s+\S+\s+(?P<guest>\d+)\s.*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """One layer of a disk: ``format`` and ``file`` as QEMU has them, ``plain``: an ordinary file holds it."""

    format: str
    file: str
    plain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDrive:
    """One of ``query-block``. ``path``: qdev id or QOM path of the device (empty: it has none), ``backend``: the name
    of ``-drive``; ``layers``: from the top down, none without a medium; ``odd``: limits of one direction only.
    """

    path: str
    backend: str
    node: str
    layers: tuple[FoundImage, ...]
    size_bytes: int
    read_only: bool
    direct: bool
    no_flush: bool
    writeback: bool
    throttle: Throttle | None
    odd: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMemory:
    """One of ``query-memory-devices``; ``slot`` is ``None`` on what is no DIMM."""

    id: str
    kind: str
    slot: int | None
    size_bytes: int
    requested_bytes: int
    max_bytes: int
    block_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBackend:
    """What a card is connected to: ``type`` and ``detail`` as ``info network`` says, ``queues`` of that name."""

    name: str
    type: str
    detail: str
    queues: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundQemu:
    """All that a QEMU answered.

    ``cards`` (MACs as ``info network`` has them) and ``backends`` go by the name of the card, ``forwards`` by that of
    the backend. ``settings``: by QOM path and property (``… iothread``, ``/machine kernel``); ``paths``: QOM paths by
    index in the tree, of devices without an id; ``files``: by node-name.
    """

    version: str
    run_state: RunState
    uuid: str
    kvm: bool
    tree: tuple[TreeDevice, ...]
    named: frozenset[str]
    functions: tuple[PciFunction, ...]
    drives: tuple[FoundDrive, ...]
    files: Mapping[str, str]
    cpu_slots: tuple[CpuSlot, ...]
    topology: Mapping[str, int]
    base_memory_bytes: int
    plugged_memory_bytes: int
    max_memory_bytes: int | None
    memory_slots: int
    memory_devices: tuple[FoundMemory, ...]
    memory_objects: Mapping[str, int]
    cards: Mapping[str, str]
    backends: Mapping[str, FoundBackend]
    forwards: Mapping[str, tuple[HostForward, ...]]
    character_devices: frozenset[str]
    settings: Mapping[str, str | int]
    paths: Mapping[int, str]


def parse_found(replies: Mapping[str, object]) -> FoundQemu:
    """The values in the replies to ``RECOVERY_QUERIES`` and ``follow_up``; unanswered questions are not among them.

    Raises:
        Broken: HostFailure, an answer that every QEMU since 7.2 gives is missing or cannot be read.
    """
    with reading("the questions of recovery"):
        base, plugged = parse_memory_sizes(replies["memory"])
        tree = parse_device_tree(str(replies["tree"]))
        memory = _entry(replies.get("/machine memory"))
        return FoundQemu(
            version=str(parse_version(replies["version"])),
            run_state=parse_status(replies["status"]).run_state,
            uuid=parse_uuid(replies["uuid"]),
            kvm=bool(_entry(replies.get("kvm")).get("enabled", False)),
            tree=tree,
            named=parse_children(replies["named"]),
            functions=parse_pci(replies["pci"]),
            drives=tuple(_drives(replies["block"], _plain_files(replies["nodes"]))),
            files={str(each["node-name"]): _file(str(each["file"])) for each in _entries(replies["nodes"])},
            cpu_slots=parse_cpu_slots(replies["cpu slots"]),
            topology={str(key): int(value) for key, value in _entry(replies["/machine smp"]).items()},
            base_memory_bytes=base,
            plugged_memory_bytes=plugged,
            max_memory_bytes=int(memory["max-size"]) if "max-size" in memory else None,
            memory_slots=int(memory.get("slots", 0)),
            memory_devices=tuple(_memory(each) for each in _entries(replies["memory devices"])),
            memory_objects={str(each.get("id", "")): int(each["size"]) for each in _entries(replies["memory objects"])},
            cards=dict(_CARD.findall(str(replies["network"]))),
            backends=_backends(str(replies["network"])),
            forwards=_forwards(str(replies.get("user network", ""))),
            character_devices=frozenset(str(each["label"]) for each in _entries(replies["character devices"])),
            settings={key: value for key, value in replies.items() if key[0] == "/" and isinstance(value, str | int)},
            paths=_paths(tree, replies),
        )


def _entries(reply: object) -> tuple[Reply, ...]:
    return tuple(each for each in reply if isinstance(each, dict)) if isinstance(reply, list) else ()


def _entry(reply: object) -> Reply:
    return reply if isinstance(reply, dict) else {}


def _plain_files(reply: object) -> frozenset[str]:
    """Names of the files that QEMU has open as ordinary files (not as devices, sockets or network disks)."""
    return frozenset(str(each["file"]) for each in _entries(reply) if each["drv"] == "file")


def _drives(reply: object, plain: frozenset[str]) -> Iterator[FoundDrive]:
    for each in _entries(reply):
        inserted = _entry(each.get("inserted"))
        cache = _entry(inserted.get("cache"))
        throttle, odd = _throttle(inserted)
        yield FoundDrive(
            path=str(each.get("qdev", "")).removesuffix("/virtio-backend"),
            backend=str(each.get("device", "")),
            node=str(inserted.get("node-name", "")),
            layers=tuple(_layers(inserted, plain)),
            size_bytes=int(_entry(inserted.get("image")).get("virtual-size", 0)),
            read_only=bool(inserted.get("ro", False)),
            direct=bool(cache.get("direct", False)),
            no_flush=bool(cache.get("no-flush", False)),
            writeback=bool(cache.get("writeback", True)),
            throttle=throttle,
            odd=odd,
        )


def _layers(inserted: Reply, plain: frozenset[str]) -> Iterator[FoundImage]:
    if not inserted:
        return
    driver, image = str(inserted["drv"]), _entry(inserted.get("image"))
    while image:
        file = _file(str(image["filename"]))
        yield FoundImage(format=driver, file=file, plain=file in plain)
        image = _entry(image.get("backing-image"))
        driver = str(image.get("format", ""))


def _file(name: str) -> str:
    """The file's name; what QEMU cannot say by a name alone it writes as ``json:`` with the options."""
    if not name.startswith("json:"):
        return name
    try:
        options = _entry(json.loads(name.removeprefix("json:")))
    except ValueError:
        return name
    below = options.get("file", options)
    return str(below["filename"]) if isinstance(below, dict) and "filename" in below else name


def _throttle(inserted: Reply) -> tuple[Throttle | None, bool]:
    both = {name: int(inserted.get(name, 0)) or None for name in ("iops", "iops_max", "bps", "bps_max")}
    odd = any(inserted.get(name) for name in ("iops_rd", "iops_wr", "bps_rd", "bps_wr"))
    if not both["iops"] and not both["bps"]:
        return None, odd
    throttle = Throttle(
        iops=both["iops"],
        iops_burst=both["iops_max"],
        bandwidth_bytes=both["bps"],
        bandwidth_burst_bytes=both["bps_max"],
    )
    return throttle, odd


def _memory(entry: Reply) -> FoundMemory:
    data, size = entry["data"], int(entry["data"]["size"])
    return FoundMemory(
        id=str(data.get("id", "")),
        kind=str(entry["type"]),
        slot=int(data["slot"]) if "slot" in data else None,
        size_bytes=size,
        requested_bytes=int(data.get("requested-size", size)),
        max_bytes=int(data.get("max-size", size)),
        block_bytes=int(data.get("block-size", 0)),
    )


def _backends(text: str) -> Mapping[str, FoundBackend]:
    """Each card's backend: below the card's own line, or, with a hub between, the other port of the hub."""
    found: dict[str, FoundBackend] = {}
    cards: list[str] = []
    in_hub = False
    for line in text.splitlines():
        if _HUB_LINE.fullmatch(line):
            in_hub, cards = True, []
            ports: list[re.Match[str]] = []
            continue
        match = _NIC_LINE.fullmatch(line)
        if match is None:
            continue
        if match["peer"] is None:
            in_hub, cards = False, [match["name"]] if match["rest"].startswith("nic,") else []
        elif in_hub:
            ports.append(match)
            found |= _hub(ports)
        elif cards:
            _add(found, cards[0], match["name"], match["rest"])
    return found


def _hub(ports: list[re.Match[str]]) -> dict[str, FoundBackend]:
    """A hub's cards with what else is on the hub: nothing (``hub``), one backend, or several (``several``)."""
    cards = [each for each in ports if each["rest"].startswith("nic,")]
    others = [each for each in ports if not each["rest"].startswith("nic,")]
    found = {}
    for card in cards:
        name, kind, detail = card["name"], "hub", ""
        if len(others) == 1 and len(cards) == 1:
            name = others[0]["client"] or others[0]["name"]
            kind, _, detail = others[0]["rest"].partition(",")
        elif len(ports) > 1:
            kind = "several"
        found[card["client"] or card["name"]] = FoundBackend(name=name, type=kind, detail=detail, queues=1)
    return found


def _add(found: dict[str, FoundBackend], card: str, name: str, rest: str) -> None:
    kind, _, detail = rest.partition(",")
    queues = found[card].queues + 1 if card in found else 1
    found[card] = FoundBackend(name=name, type=kind, detail=detail, queues=queues)


def _forwards(text: str) -> Mapping[str, tuple[HostForward, ...]]:
    """``info usernet``: the ports that lead into the guest, by the backend's name."""
    found: dict[str, tuple[HostForward, ...]] = {}
    name = ""
    for line in text.splitlines():
        if header := _USER_LINE.fullmatch(line):
            name = header["name"]
            found[name] = ()
        elif (forward := _FORWARD.fullmatch(line)) and name:
            address = "0.0.0.0" if forward["address"] == "*" else forward["address"]
            lead = HostForward(
                protocol=Protocol(forward["protocol"]),
                host_address=address,
                host_port=int(forward["port"]),
                guest_port=int(forward["guest"]),
            )
            found[name] = (*found[name], lead)
    return found


def _paths(tree: tuple[TreeDevice, ...], replies: Mapping[str, object]) -> Mapping[int, str]:
    """Where in QOM the devices without an id are: by driver, slot and bus, if only one is there."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for parent, key in ((NAMELESS, "nameless"), (UNATTACHED, "unattached")):
        for path, driver in children(replies.get(key), parent):
            place, bus = replies.get(f"{path} legacy-addr"), replies.get(f"{path} parent_bus")
            if isinstance(place, str) and isinstance(bus, str):
                places.setdefault((driver, place, bus.rpartition("/")[2]), []).append(path)
    alone = {key: paths[0] for key, paths in places.items() if len(paths) == 1}
    found = {each.index: alone.get((each.driver, each.place, each.bus), "") for each in tree if not each.id}
    return {index: path for index, path in found.items() if path}

"""What a running QEMU has, as values: the ground that changes of the running machine are planned on. Pure.

It must never hold what was wished for, only what QEMU answered.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from guestlet.qemu.machine import Throttle


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuSlot:
    """One of ``query-hotpluggable-cpus``: ``properties`` go to ``device_add`` as they are (``socket-id``, ``core-id``,
    ``thread-id``, ``node-id``); ``path`` is the QOM path of the CPU that is there, ``None`` for an empty slot.
    """

    driver: str
    properties: Mapping[str, int]
    path: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDevice:
    """One of ``query-memory-devices``: ``id`` may be empty; ``requested_bytes`` and ``block_bytes`` are virtio-mem's
    (else equal to ``size_bytes``, and 0); ``memdev`` is the id of the memory object behind it.
    """

    id: str
    kind: str  # dimm, virtio-mem, nvdimm, …
    memdev: str
    size_bytes: int
    requested_bytes: int
    max_bytes: int
    block_bytes: int
    hotplugged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockNode:
    """One of ``query-named-block-nodes flat``: ``file`` as QEMU names it (a path or a json: text)."""

    name: str
    driver: str
    file: str
    size_bytes: int
    read_only: bool
    backing_file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """One of ``query-block``: ``qdev`` is the id or QOM path of the device, ``node`` its top node (empty: no medium).

    A drive outlives its device by 50 ms: until DEVICE_DELETED its node is in use. ``throttle`` without any number:
    there are limits that guestlet has no field for (of one direction).
    """

    qdev: str
    node: str
    tray_open: bool
    removable: bool
    throttle: Throttle | None
    io_status: str  # ok, failed or nospace


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Everything that a change of the running machine looks at, asked at one time.

    ``devices``: ids of ``/machine/peripheral``; ``objects``: ids of ``/objects``; ``nodes`` by node-name; ``netdevs``:
    ids of network backends; ``interfaces``: ids of network devices, which outlive ``devices`` by 50 ms; ``drives``;
    ``cpus`` in the order in which ``-smp cpus`` fills them, so that those to be plugged come first to last and those to
    be unplugged last to first; ``busy_nodes``: nodes that a block job uses;
    ``migrating``: a migration is under way, in which QEMU takes no change; ``translation_cache_used``: which part of
    TCG's cache is in use, 0..1, ``None`` when QEMU does not say. ``base_memory_bytes`` is what ``-m`` gave,
    ``plugged_memory_bytes`` what was plugged since and is there (of virtio-mem: what the guest has taken).
    """

    devices: frozenset[str]
    objects: frozenset[str]
    nodes: Mapping[str, BlockNode]
    netdevs: frozenset[str]
    interfaces: frozenset[str]
    drives: tuple[Drive, ...]
    cpus: tuple[CpuSlot, ...]
    memory_devices: tuple[MemoryDevice, ...]
    base_memory_bytes: int
    plugged_memory_bytes: int
    busy_nodes: frozenset[str]
    migrating: bool
    translation_cache_used: float | None

    def drive_of(self, device: str) -> Drive | None:
        """The drive of the device with that qdev id, however QEMU names it (a virtio one by its back end's path)."""
        paths = [device, f"/machine/peripheral/{device}"]
        paths += [f"{each}/virtio-backend" for each in paths]
        return next((each for each in self.drives if each.qdev in paths), None)

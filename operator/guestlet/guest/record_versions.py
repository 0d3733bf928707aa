"""Records of past versions of guestlet, made into the next version's: documents to documents, one step a version. Pure.

An upgrade must never guess: what a version did not know, it did not have. Files kept from each version prove them
(``tests/unit/guest/records``).
"""

from collections.abc import Callable, Mapping

Document = Mapping[str, object]
Upgrader = Callable[[object], object]


def _from_1(old: object) -> Document:
    """Version 2 knows changes of the running machine; a record of version 1 has seen none."""
    record = _mapping(old)
    machine, run = record["machine"], record["run"]
    return {
        **record,
        "machine": None if machine is None else _machine_from_1(_mapping(machine)),
        "run": None
        if run is None
        else {**_mapping(run), "foreign": False, "aliases": {"devices": {}, "nodes": {}, "netdevs": {}}},
        "pending": [],
    }


def _machine_from_1(old: Document) -> Document:
    cpu, size = _mapping(old["cpu"]), old["memory_bytes"]
    return {
        **{name: value for name, value in old.items() if name != "memory_bytes"},
        "cpu": {**cpu, "max_count": cpu["count"]},
        "memory": {"boot_bytes": size, "max_bytes": size, "virtio_mem": None, "dimms": []},
        "disks": [{**each, "throttle": None} for each in _mappings(old["disks"])],
        "networks": [{**each, "bandwidth": None} for each in _mappings(old["networks"])],
        "pci": _layout_from_1(_mapping(old["pci"])),
    }


def _layout_from_1(old: Document) -> Document:
    """Every q35 of version 1 had the pcie-pci-bridge, and no other machine had it."""
    bridged = any(each["id"] == "pcie-bridge" for each in _mappings(old["controllers"]))
    return {**old, "family": "q35" if bridged else "pc", "anonymous": []}


def _mapping(value: object) -> Document:
    if not isinstance(value, Mapping):
        raise TypeError(f"not an object: {value!r:.80}")
    return value


def _mappings(value: object) -> tuple[Document, ...]:
    if not isinstance(value, list):
        raise TypeError(f"not a list: {value!r:.80}")
    return tuple(_mapping(each) for each in value)


# One entry for each past version: version n → n + 1.
UPGRADERS: Mapping[int, Upgrader] = {1: _from_1}

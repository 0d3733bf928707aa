"""Machines and edits at random, the same ones for the same seed; every one is valid.

What only a node can refuse (bridges, scripts, images that must exist) is left to other tests.
"""

from collections.abc import Callable
from random import Random

from e2e.machine.samples import disk
from e2e.stage import KERNEL, NODES
from sandbox.kubectl import Object

Spec = dict[str, object]
_CACHES = ("None", "Writeback", "Writethrough", "Directsync", "Unsafe")
_SERIALS = ("S.1-", "-", "+x", "Z_9")


def random_spec(random: Random, prefix: str) -> Spec:
    """A guest that stands still when it is made, so that its machine costs nothing."""
    machine = random.choice(("q35", "q35", "pc"))
    spec: Spec = {
        "nodeName": NODES[0],
        "paused": True,
        "terminationGracePeriodSeconds": 0,
        "machine": {"type": machine},
        "firmware": {"type": random.choice(("BIOS", "BIOS", "UEFI"))},
        "pci": _buses(random, machine),
        **machine_fields(random, prefix),
    }
    if random.random() < 0.4:
        spec["boot"] = {"kernel": {**_kernel(), "cmdline": random.choice(("", "a=b, c", 'quoted "x" \\ y'))}}
    return spec


def machine_fields(random: Random, prefix: str) -> Spec:
    """What an edit may change, at random."""
    return {
        "cpu": _cpu(random),
        "memory": {"size": f"{random.randrange(32, 64)}Mi"},
        "disks": [_disk(random, prefix, index) for index in random.sample(range(12), random.randrange(7))],
        "networks": [_network(random, index) for index in random.sample(range(8), random.randrange(5))],
        "console": {"serialLog": random.random() < 0.5},
        "devices": {
            "rng": random.random() < 0.5,
            "balloon": random.random() < 0.5,
            "pvpanic": random.random() < 0.5,
            **(
                {"watchdog": {"action": random.choice(("Reset", "PowerOff", "Pause", "None"))}} if _half(random) else {}
            ),
        },
    }


def random_edit(random: Random, prefix: str, found: Object) -> Spec:
    """An edit of a few fields that wait for a restart; lists are replaced as a whole, as a merge patch does."""
    now = _object(found["spec"])
    fields = machine_fields(random, f"{prefix}-next")
    # Disks and networks that come or go would be plugged: those that are there are changed in what they are.
    fields["disks"] = [{**each, "discard": random.choice(("Unmap", "Ignore"))} for each in _objects(now, "disks")]
    fields["networks"] = [{**each, "model": random.choice(("Virtio", "E1000"))} for each in _objects(now, "networks")]
    chosen = random.sample(sorted(fields), random.randrange(1, 4))
    # A merge patch keeps what it does not name: an absent watchdog is said with null.
    devices = {"watchdog": None, **_object(fields["devices"])}
    cpu = {"sockets": None, "cores": None, "threads": None, "model": None, **_object(fields["cpu"])}
    return {name: {"devices": devices, "cpu": cpu}.get(name, fields[name]) for name in chosen}


def _buses(random: Random, machine: str) -> Spec:
    bus = random.choice(("RootPort", "PCIBridge")) if machine == "q35" else "RootPort"
    return {"hotplugPorts": random.randrange(6), "deviceBus": bus}


def _kernel() -> Object:
    return _object(KERNEL["kernel"])


def _cpu(random: Random) -> Spec:
    # Two at most: the node must have as many.
    sockets, cores, threads = random.choice(((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)))
    said: Spec = {"count": sockets * cores * threads}
    if _half(random):
        said |= {"sockets": sockets, "cores": cores, "threads": threads}
    return said | ({"model": random.choice(("qemu64", "Max", "SandyBridge-v1"))} if _half(random) else {})


def _disk(random: Random, prefix: str, index: int) -> Spec:
    bus = random.choice(("Virtio", "SCSI", "SATA", "NVMe"))
    cache = random.choice(_CACHES)
    aio = random.choice(("Threads", "Native", "IOUring") if cache in ("None", "Directsync") else ("Threads", "IOUring"))
    said = disk(
        f"d{index}",
        f"{prefix}-{index}.{bus.lower()}",
        size=f"{random.randrange(1, 9)}Mi",
        bus=bus,
        cache=cache,
        aio=aio,
        discard=random.choice(("Unmap", "Ignore")),
        onDelete=random.choice(("Keep", "Delete")),
        source={"format": random.choice(("Raw", "Qcow2"))},
    )
    optional: tuple[tuple[str, Callable[[], object]], ...] = (
        ("serial", lambda: f"{random.choice(_SERIALS)}{index}"),
        ("bootOrder", lambda: index + 1),
        ("ioThread", lambda: bus in ("Virtio", "SCSI")),
    )
    return said | {name: value() for name, value in optional if _half(random)}


def _network(random: Random, index: int) -> Spec:
    backend: Spec = {"isolated": {}} if _half(random) else {"user": {}}
    said: Spec = {"name": f"n{index}", "model": random.choice(("Virtio", "E1000")), **backend}
    optional: tuple[tuple[str, Callable[[], object]], ...] = (
        ("macAddress", lambda: f"52:54:00:00:00:{index:02x}"),
        ("linkUp", lambda: False),
        ("bootOrder", lambda: index + 100),
    )
    return said | {name: value() for name, value in optional if _half(random)}


def _half(random: Random) -> bool:
    return random.random() < 0.5


def _objects(spec: Spec, field: str) -> list[Spec]:
    found = spec.get(field, [])
    assert isinstance(found, list)
    return [_object(each) for each in found]


def _object(value: object) -> Spec:
    assert isinstance(value, dict)
    return value

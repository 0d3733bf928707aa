"""The machines that the tests run: full of disks and interfaces of every kind.

A machine here is a spec; what it becomes is the tests' to find out.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from e2e.stage import NODES, Stage
from sandbox.kubectl import Object
from sandbox.nodes import POOL

CDROM_BYTES = 3 * 2**20
LOCKED_BYTES = 5 * 2**20
BASE_BYTES = 24 * 2**20


def disk(name: str, image: str, *, size: str | None = None, **more: object) -> dict[str, object]:
    """A disk of the pool; ``source`` adds to the file's description."""
    source = {"pool": POOL, "image": image, **_mapping(more.pop("source", {}))}
    return {"name": name, "source": {"file": source}, **({"size": size} if size else {}), **more}


def put_images(stage: Stage) -> None:
    """Puts what exists before the guest into the pools: a base, an image that is only read, a CD."""
    prefix = stage.namespace
    stage.image(f"{prefix}-base.qcow2", str(BASE_BYTES))
    stage.image(f"{prefix}-locked.img", str(LOCKED_BYTES), form="raw")
    stage.image(f"{prefix}-cd.iso", str(CDROM_BYTES), form="raw")


def mixed_disks(prefix: str) -> list[Object]:
    """Twelve disks on every bus: a CD, one that is only read, an overlay, threads of their own."""
    return [
        disk("root", f"{prefix}-root.qcow2", size="16Mi", serial="ROOT-1", bootOrder=1),
        disk("log", f"{prefix}-log.img", size="2Mi", ioThread=True, cache="None", source={"format": "Raw"}),
        disk("locked", f"{prefix}-locked.img", readOnly=True, source={"format": "Raw"}),
        disk("overlay", f"{prefix}-overlay.qcow2", source={"backingImage": f"{prefix}-base.qcow2"}),
        disk("data", f"{prefix}-data.qcow2", size="7Mi", bus="SCSI", ioThread=True, discard="Ignore"),
        disk("swap", f"{prefix}-swap.qcow2", size="9Mi", bus="SCSI", cache="Unsafe"),
        disk("cd", f"{prefix}-cd.iso", bus="SATA", cdrom=True, readOnly=True, source={"format": "Raw"}),
        disk("old", f"{prefix}-old.qcow2", size="11Mi", bus="SATA", cache="Writethrough"),
        disk("older", f"{prefix}-older.qcow2", size="12Mi", bus="SATA"),
        disk("fast", f"{prefix}-fast.qcow2", size="13Mi", bus="NVMe"),
        disk("faster", f"{prefix}-faster.img", size="14Mi", bus="NVMe", cache="Directsync", source={"format": "Raw"}),
        disk("very-long-name-of-a-disk", f"{prefix}-long.qcow2", size="15Mi"),
    ]


MIXED_NETWORKS: tuple[Object, ...] = (
    {"name": "lan", "user": {}, "macAddress": "52:54:00:0A:0B:0C"},
    {"name": "old", "model": "E1000", "user": {}},
    {"name": "quiet", "isolated": {}, "bootOrder": 2},
    {"name": "older", "model": "E1000", "isolated": {}},
    {"name": "unplugged", "isolated": {}, "linkUp": False},
)


def mixed_spec(prefix: str, machine: str, **more: object) -> Mapping[str, object]:
    """A guest of that chipset with everything."""
    return {
        "nodeName": NODES[0],
        "machine": {"type": machine},
        "cpu": {"count": 2, "cores": 2},
        "memory": {"size": "200Mi"},
        "disks": mixed_disks(prefix),
        "networks": list(MIXED_NETWORKS),
        "devices": {"rng": True, "balloon": True, "watchdog": {"action": "None"}, "pvpanic": True},
        **more,
    }


def fill(image: Path, text: str) -> None:
    """Writes a text at the beginning of a raw image, for the guest to read."""
    subprocess.run(["dd", f"of={image}", "conv=notrunc", "status=none"], input=text.encode(), check=True, timeout=10)


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, Mapping)
    return value

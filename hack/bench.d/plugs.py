"""One change of each kind: what is written into the spec, the QMP commands it comes to, and how QEMU shows it done.

The commands are those that a script for the same machine would send; nothing of guestlet is used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from monitor import Monitor

from sandbox.errors import SandboxError
from sandbox.nodes import POOL
from sandbox.test_guest import CMDLINE

MIB = 2**20
MEMORY_MIB, STEP_MIB, MAX_MIB = 128, 16, 1152


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """A kind of change; ``perform`` gets the image's path and the id of a free root port, ``done`` a second monitor."""

    name: str
    spec: Callable[[str], Mapping[str, object]]
    perform: Callable[[Monitor, Path, str], None]
    done: Callable[[Monitor], bool]


def machine_spec() -> Mapping[str, object]:
    """A guest that is changed: it boots nothing, and may have one CPU more."""
    return {"cpu": {"count": 1, "maxCount": 2}}


def growing_spec() -> Mapping[str, object]:
    """A guest whose memory grows; only an operating system takes it."""
    kernel = {"pool": POOL, "image": "vmlinux", "initrd": "initrd.img", "cmdline": CMDLINE}
    return {"boot": {"kernel": kernel}, "memory": {"size": f"{MEMORY_MIB}Mi", "maxSize": f"{MAX_MIB}Mi"}}


def memory_size(step: int) -> Mapping[str, object]:
    """The spec after that many steps of growth."""
    return {"memory": {"size": f"{MEMORY_MIB + step * STEP_MIB}Mi"}}


def offer_memory(monitor: Monitor, step: int) -> None:
    """What a script sends for the growth."""
    for each in monitor.ask("query-memory-devices"):
        if each["type"] == "virtio-mem":
            path = f"/machine/peripheral/{each['data']['id']}"
            arguments = {"path": path, "property": "requested-size", "value": step * STEP_MIB * MIB}
            monitor.ask("qom-set", arguments)
            return
    raise SandboxError("the machine has no virtio-mem device")


def memory_is(monitor: Monitor, step: int, *, taken: bool) -> bool:
    """Whether QEMU offers the memory, or the guest has taken it."""
    sizes = [each["data"]["size" if taken else "requested-size"] for each in monitor.ask("query-memory-devices")]
    return sum(map(int, sizes)) == step * STEP_MIB * MIB


def _disk_spec(image: str) -> Mapping[str, object]:
    return {"disks": [{"name": "more", "source": {"file": {"pool": POOL, "image": image}}}]}


def _add_disk(monitor: Monitor, image: Path, port: str) -> None:
    monitor.ask("blockdev-add", {"driver": "file", "node-name": "more-file", "filename": str(image)})
    monitor.ask("blockdev-add", {"driver": "qcow2", "node-name": "more", "file": "more-file"})
    place = {"bus": port, "addr": "0"}
    monitor.ask("device_add", {"driver": "virtio-blk-pci", "id": "disk-more", "drive": "more", **place})


def _nic_spec(_image: str) -> Mapping[str, object]:
    return {"networks": [{"name": "more", "user": {}}]}


def _add_nic(monitor: Monitor, _image: Path, port: str) -> None:
    monitor.ask("netdev_add", {"type": "user", "id": "net-more"})
    place = {"bus": port, "addr": "0"}
    monitor.ask("device_add", {"driver": "virtio-net-pci", "id": "nic-more", "netdev": "net-more", **place})


def _cpu_spec(_image: str) -> Mapping[str, object]:
    return {"cpu": {"count": 2}}


def _add_cpu(monitor: Monitor, _image: Path, _port: str) -> None:
    slots = monitor.ask("query-hotpluggable-cpus")
    (free,) = (each for each in slots if "qom-path" not in each)
    monitor.ask("device_add", {"driver": free["type"], "id": "cpu-more", **free["props"]})


def _has_function(name: str) -> Callable[[Monitor], bool]:
    def listed(devices: list[Mapping[str, object]]) -> bool:
        for each in devices:
            bridge = each.get("pci_bridge")
            behind = bridge.get("devices", []) if isinstance(bridge, dict) else []
            if each["qdev_id"] == name or listed(behind):
                return True
        return False

    return lambda monitor: any(listed(bus["devices"]) for bus in monitor.ask("query-pci"))


def _has_cpus(monitor: Monitor) -> bool:
    return len(monitor.ask("query-cpus-fast")) == 2


PLUGS = (
    Plug(name="disk", spec=_disk_spec, perform=_add_disk, done=_has_function("disk-more")),
    Plug(name="NIC", spec=_nic_spec, perform=_add_nic, done=_has_function("nic-more")),
    Plug(name="CPU", spec=_cpu_spec, perform=_add_cpu, done=_has_cpus),
)

"""This machine as a kubelet would describe it in a Node object. It reads; it must never change anything."""

import os
import platform
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

# Go's names for architectures, which Kubernetes uses.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MOST_PODS = "110"
# Marks the Nodes that a sandbox made, the only ones that it may delete again.
REGISTERED = "guestlet.io/sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What a Node's status says about its machine."""

    cpus: int
    memory_bytes: int
    storage_bytes: int
    address: str
    hostname: str
    architecture: str
    kernel: str
    system: str
    machine_id: str
    boot_id: str


def read_machine(storage: Path) -> MachineFacts:
    """Reads the facts; ``storage`` is the folder whose file system counts as the node's."""
    return MachineFacts(
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        storage_bytes=shutil.disk_usage(storage).total,
        address=_own_address(),
        hostname=socket.gethostname(),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        kernel=platform.release(),
        system=_system_name(),
        machine_id=_first_line(Path("/etc/machine-id")),
        boot_id=_first_line(Path("/proc/sys/kernel/random/boot_id")),
    )


def node_object(name: str, machine: MachineFacts) -> dict[str, object]:
    """The Node as a kubelet registers it, labels and all."""
    labels = {
        REGISTERED: "true",
        "kubernetes.io/arch": machine.architecture,
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def node_status(machine: MachineFacts) -> dict[str, object]:
    """The part of a Node's status that tells of the machine; conditions and what is kept back are the agent's."""
    resources = {
        "cpu": str(machine.cpus),
        "memory": f"{machine.memory_bytes // 1024}Ki",
        "ephemeral-storage": f"{machine.storage_bytes // 1024}Ki",
        "pods": _MOST_PODS,
    }
    return {
        "capacity": resources,
        "allocatable": resources,
        "addresses": [
            {"type": "InternalIP", "address": machine.address},
            {"type": "Hostname", "address": machine.hostname},
        ],
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.machine_id,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.system,
            "containerRuntimeVersion": "",
            "kubeletVersion": "",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": machine.architecture,
        },
    }


def _own_address() -> str:
    # Connecting a datagram socket sends nothing: it only asks the kernel which address it would use. The address is
    # one reserved for documentation (RFC 5737).
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _first_line(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""

"""The QEMU process itself: its name, identity, pid file, sandbox and its monitors; nothing of the guest's hardware."""

from guestlet.qemu.machine import HostPaths, Machine
from guestlet.qemu.options import key_values


def process_args(machine: Machine, paths: HostPaths) -> list[str]:
    """Frozen at start (``-S``) and without any configuration file of the node's."""
    args = [
        *("-name", key_values(guest=machine.name, debug_threads=True)),
        *("-uuid", machine.uuid),
        *("-S", "-no-user-config", "-nodefaults"),
        *(arg for each in paths.data_dirs for arg in ("-L", each)),
        *("-pidfile", f"{paths.state_dir}/qemu.pid"),
        *("-msg", "timestamp=on"),
        *("-display", "none"),
    ]
    if machine.sandbox:
        denied = "obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
        args += ["-sandbox", f"on,{denied}"]
    return args


def monitor_args(paths: HostPaths) -> list[str]:
    """Two QMP sockets, because a monitor takes one client: ours and the observers'."""
    args = []
    for name in ("qmp", "observer"):
        path = f"{paths.runtime_dir}/{name}"
        args += ["-chardev", key_values("socket", id=name, path=path, server=True, wait=False)]
        args += ["-mon", key_values(chardev=name, id=f"monitor-{name}", mode="control")]
    return args

"""The serial console: a socket on the node, logged when asked for."""

from guestlet.qemu.machine import HostPaths, Machine
from guestlet.qemu.options import json_option, key_values


def console_args(machine: Machine, paths: HostPaths) -> list[str]:
    """One ISA serial port; without a client what the guest writes goes to the log alone."""
    chardev = key_values(
        "socket",
        id="console",
        path=f"{paths.runtime_dir}/console",
        server=True,
        wait=False,
        logfile=f"{paths.state_dir}/serial.log" if machine.serial_log else None,
        logappend=True if machine.serial_log else None,
    )
    device = json_option({"driver": "isa-serial", "id": "serial", "chardev": "console"})
    return ["-chardev", chardev, "-device", device]

"""A program of its own: a VirtualGuest as the API server keeps it on stdin, a command line as JSON on stdout.

It is the one with which a node with other directories would start the guest, host paths replaced by their roles.
It looks at nothing but status, and at no file of the node that runs the guest.
"""

import json
import sys

from guestlet.api.guest import parse_guest
from guestlet.guest.describe import machine_of_status
from guestlet.qemu.commandline import build_argv, host_neutral
from guestlet.qemu.machine import HostPaths, Machine


def other_node(machine: Machine) -> HostPaths:
    """Paths of a node that has nothing in common with the first; a space and a comma because they may be there."""
    pools = {disk.source.pool for disk in machine.disks if disk.source}
    pools |= {machine.kernel.pool} if machine.kernel else set()
    taps = [nic for nic in machine.networks if nic.tap is not None]
    return HostPaths(
        binary="/opt/other/qemu",
        data_dirs=("/opt/other/share",),
        state_dir=f"/elsewhere/the state, of all/{machine.uuid}",
        runtime_dir=f"/elsewhere/run/{machine.uuid}",
        pools={pool: f"/mnt/{pool}, of another" for pool in pools},
        firmware_code="/opt/firmware/code.fd" if machine.firmware_image else None,
        tap_fds={nic.name: tuple(range(100 + index, 100 + index + nic.queues)) for index, nic in enumerate(taps)},
    )


def main() -> None:
    """Status in, command line out."""
    guest = parse_guest(json.load(sys.stdin))
    machine = machine_of_status(guest.status, name=f"{guest.metadata.namespace}/{guest.metadata.name}")
    if machine is None:
        sys.exit("status describes no machine")
    paths = other_node(machine)
    print(json.dumps(host_neutral(build_argv(machine, paths), paths)))


if __name__ == "__main__":
    main()

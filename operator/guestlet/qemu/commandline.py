"""The exact command line of one QEMU: a pure function of the live description and of this node's paths.

It must never read anything else, so that the status alone rebuilds it on any node.
"""

import json

from guestlet.qemu.machine import HostPaths, Machine
from guestlet.qemu.options import escaped
from guestlet.qemu.sections.board import board_args
from guestlet.qemu.sections.buses import controller_args
from guestlet.qemu.sections.console import console_args
from guestlet.qemu.sections.devices import device_args
from guestlet.qemu.sections.firmware import firmware_args
from guestlet.qemu.sections.memory import grown_memory_args
from guestlet.qemu.sections.network import network_args
from guestlet.qemu.sections.process import monitor_args, process_args
from guestlet.qemu.sections.storage import storage_args


def build_argv(machine: Machine, paths: HostPaths) -> tuple[str, ...]:
    """The arguments that start the machine frozen, binary first.

    Raises:
        Broken: the description or the paths lack what the command line needs.
    """
    return (
        paths.binary,
        *process_args(machine, paths),
        *board_args(machine),
        *monitor_args(paths),
        *firmware_args(machine, paths),
        *console_args(machine, paths),
        *controller_args(machine.pci),
        *storage_args(machine, paths),
        *network_args(machine, paths),
        *device_args(machine),
        *grown_memory_args(machine),
    )


def host_neutral(argv: tuple[str, ...], paths: HostPaths) -> tuple[str, ...]:
    """``argv`` with every path and descriptor of the node that made it replaced by its role.

    Two command lines are of one machine exactly when their neutral forms are equal.
    """
    spellings = _spellings(paths)
    neutral = []
    skip = False
    for before, argument in zip(("", *argv), argv, strict=False):
        if skip or argument == "-L":  # how many data directories there are is the node's business
            skip = argument == "-L" and not skip
            continue
        text = _without_descriptors(argument) if before == "-netdev" else argument
        for spelling, role in spellings:
            text = text.replace(spelling, role)
        neutral.append(text)
    return tuple(neutral)


def _spellings(paths: HostPaths) -> list[tuple[str, str]]:
    """Each path as it is written in options, the longest first because one may begin another."""
    roles = {
        paths.binary: "<binary>",
        paths.state_dir: "<state>",
        paths.runtime_dir: "<run>",
        **{path: f"<pool {name}>" for name, path in sorted(paths.pools.items())},
    }
    if paths.firmware_code is not None:
        roles[paths.firmware_code] = "<firmware code>"
    spelled = {way: role for path, role in roles.items() for way in (path, escaped(path), json.dumps(path)[1:-1])}
    return sorted(spelled.items(), key=lambda each: (-len(each[0]), each[0]))


def _without_descriptors(netdev: str) -> str:
    option: dict[str, object] = json.loads(netdev)
    for key in ("fd", "fds"):
        if key in option:
            option[key] = f"<{len(str(option[key]).split(':'))} tap descriptors>"
    return json.dumps(option, separators=(",", ":"))

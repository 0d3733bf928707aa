"""The launch of a guest as a shell script, for a person who debugs on the node. Pure."""

import shlex

from guestlet.qemu.machine import BridgeNet, Machine, TapNet


def launch_script(argv: tuple[str, ...], *, machine: Machine) -> str:
    """A runnable script that replays the launch: QEMU starts frozen; type ``cont`` to its monitor.

    Taps are opened by the agent in a real launch; the script says so where the machine has some.
    """
    taps = [nic.tap for nic in machine.networks if isinstance(nic.backend, BridgeNet | TapNet) and nic.tap]
    lines = [
        "#!/bin/sh",
        f"# Replays the launch of guest {machine.name} for debugging on this node. guestlet must not run the guest",
        "# meanwhile (runStrategy: Halted); the lock on the pid file refuses a second QEMU of one guest.",
    ]
    for tap in taps:
        lines.append(
            f"# The tap {tap} is opened by the agent and passed as a descriptor: open it before (ip tuntap add)."
        )
    lines.append("set -eu")
    first, *rest = argv
    lines.append(shlex.quote(first) + " \\")
    lines += [f"  {shlex.quote(argument)} \\" for argument in rest]
    lines[-1] = lines[-1].removesuffix(" \\")
    return "\n".join(lines) + "\n"

"""The ``guestlet`` program: one command a file; heavy imports happen inside the command that needs them.

It parses arguments and prints. It must never decide about a guest nor touch one but through the rooms.
"""

import click

from guestlet.cli.adopt import adopt
from guestlet.cli.cluster import agent, controller, crds, version
from guestlet.cli.console import console
from guestlet.cli.diff import diff
from guestlet.cli.forget import forget
from guestlet.cli.pci import pci
from guestlet.cli.plan import plan
from guestlet.cli.pool import pool
from guestlet.cli.script import script


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run QEMU guests from Kubernetes custom resources."""


for command in (adopt, agent, controller, crds, version, console, diff, forget, pci, plan, pool, script):
    main.add_command(command)

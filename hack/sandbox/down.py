"""`hack/down`: ends everything that `hack/up` started, by pid, and leaves what it keeps on disk unless told otherwise.

It must never end a process, remove a tap or delete a folder that is not this root's own.
"""

import sys
from pathlib import Path

import click

from sandbox.cluster import DEFAULT_ROOT, Sandbox
from sandbox.errors import SandboxError
from sandbox.steps import Steps


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--root", type=click.Path(path_type=Path), default=DEFAULT_ROOT, help="Default: .guestlet of the checkout."
)
@click.option("--purge", is_flag=True, help="Remove the folder too: images, records and the cluster's data.")
def main(root: Path, purge: bool) -> None:
    """Ends the guests, agents, controller and control plane of ROOT."""
    steps = Steps()
    sandbox = Sandbox(root, say=steps.say)
    if not sandbox.root.path.exists():
        steps.console.print(f"nothing there: {root}", markup=False)
        return
    try:
        with sandbox.root.alone():
            with steps.step("ended"):
                for what, count in sandbox.down().items():
                    if count:
                        steps.say(f"{count} {what}")
            left = sandbox.leftovers()
            if left:
                sys.exit("error: still there: " + "; ".join(f"{pid} {line}" for pid, line in left.items()))
            if purge:
                with steps.step(f"removed {root}"):
                    withdraw(sandbox, steps)
                    sandbox.root.purge()
    except SandboxError as error:
        sys.exit(f"error: {error}")


def withdraw(sandbox: Sandbox, steps: Steps) -> None:
    """Takes our Nodes out of a cluster that is not ours; one that is gone already keeps nobody from purging."""
    try:
        sandbox.withdraw()
    except SandboxError as error:
        steps.say(f"the Nodes registered here stay in the cluster: {error}")


if __name__ == "__main__":
    main()

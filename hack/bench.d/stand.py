"""What every benchmark begins and ends with: its options, a QEMU, a sandbox of its own with one node.

It must never leave anything running, even when it is interrupted.
"""

import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from sandbox.cluster import Sandbox
from sandbox.components import Options
from sandbox.errors import SandboxError
from sandbox.qemu import QemuBuild, ensure_qemu, ensure_system_qemu
from sandbox.steps import Steps

NODE = "node-a"


def bench(measure: Callable[[Path, QemuBuild, Steps, bool, Path | None], None]) -> click.Command:
    """The command that measures; called with a folder of its own, the QEMU, steps, --quick and --json."""

    @click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=measure.__doc__)
    @click.option(
        "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there."
    )
    @click.option("--quick", is_flag=True, help="Small counts: for trying the bench itself.")
    @click.option("--qemu", "qemu_major", type=int, help="A QEMU of this major version instead of the system's.")
    def main(json_file: Path | None, quick: bool, qemu_major: int | None) -> None:
        # A bench that is ended still ends what it started.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        steps = Steps()
        try:
            qemu = ensure_system_qemu(steps.say) if qemu_major is None else ensure_qemu(qemu_major, steps.say)
            with tempfile.TemporaryDirectory(prefix="gb-") as name:
                folder = Path(name)
                folder.chmod(0o711)
                measure(folder, qemu, steps, quick, json_file)
        except SandboxError as error:
            sys.exit(f"error: {error}")

    return main


@contextlib.contextmanager
def one_node(folder: Path, qemu: QemuBuild, steps: Steps, *, audit_log: Path) -> Iterator[Sandbox]:
    """A cluster with one node whose agent is ready."""
    sandbox = Sandbox(folder / "s", options=Options(audit_log=audit_log), say=steps.say)
    try:
        with steps.step("sandbox"):
            sandbox.start_cluster()
            sandbox.install()
            sandbox.register(NODE)
            sandbox.prepare_node(NODE, qemu).agent.start()
            sandbox.start_controller()
            sandbox.wait_for_nodes(NODE)
        yield sandbox
    finally:
        with steps.step("down"):
            sandbox.down()
            sandbox.root.purge()

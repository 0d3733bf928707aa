"""`hack/up`: a cluster, two nodes and an example guest on this machine; called again, it repairs what died.

It must never stop anything that works, nor change a guest that the user has edited.
"""

import sys
from pathlib import Path

import click
from rich.console import Console

from sandbox.cluster import DEFAULT_ROOT, REPOSITORY, Sandbox
from sandbox.errors import SandboxError
from sandbox.nodes import node_name
from sandbox.qemu import QemuBuild, ensure_qemu, ensure_system_qemu
from sandbox.show import next_commands, pci_table
from sandbox.steps import Steps
from sandbox.test_guest import ensure_test_guest

EXAMPLE = REPOSITORY / "manifests" / "examples" / "demo.yaml"
_DEFAULT_NODES = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--nodes", type=click.IntRange(1, 50), help="How many nodes; 2 at first, then what there is.")
@click.option(
    "--root", type=click.Path(path_type=Path), default=DEFAULT_ROOT, help="Default: .guestlet of the checkout."
)
@click.option("--no-example", is_flag=True, help="Do not apply the example guest.")
@click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="An existing cluster.")
@click.option("--qemu", "qemu_major", type=int, help="A QEMU of this major version instead of the system's.")
def main(nodes: int | None, root: Path, no_example: bool, kubeconfig: Path | None, qemu_major: int | None) -> None:
    """Starts guestlet on this machine; everything it makes lies under ROOT, and hack/down ends it."""
    steps = Steps()
    sandbox = Sandbox(root, say=steps.say)
    try:
        with sandbox.root.alone():
            bring_up(sandbox, steps, nodes=nodes, kubeconfig=kubeconfig, qemu_major=qemu_major)
            if not no_example:
                apply_example(sandbox, steps)
        steps.total()
        show(sandbox, steps.console, root=root, example=not no_example)
    except SandboxError as error:
        sys.exit(f"error: {error}")


def bring_up(
    sandbox: Sandbox, steps: Steps, *, nodes: int | None, kubeconfig: Path | None, qemu_major: int | None
) -> None:
    """Everything but guests."""
    with steps.step("QEMU"):
        qemu = find_qemu(qemu_major, steps)
    with steps.step("test guest: kernel and initramfs"):
        ensure_test_guest(say=steps.say)
    with steps.step("control plane" if kubeconfig is None else "cluster"):
        if kubeconfig is None:
            sandbox.start_cluster()
        else:
            sandbox.use_cluster(kubeconfig)
    with steps.step("CRDs and roles"):
        sandbox.install()
    known = sandbox.root.node_names()
    names = tuple(sorted({*known, *(node_name(index) for index in range(nodes or len(known) or _DEFAULT_NODES))}))
    with steps.step(f"Node objects: {', '.join(names)}"):
        sandbox.register(*names)
    with steps.step("settings and images of the nodes"):
        for name in names:
            sandbox.put_test_guest(sandbox.prepare_node(name, qemu))
    with steps.step("controller and agents"):
        sandbox.start_controller()
        for name in names:
            sandbox.node(name).agent.start()
        sandbox.wait_for_nodes(*names)


def find_qemu(major: int | None, steps: Steps) -> QemuBuild:
    """The system's QEMU unless another major version is asked for."""
    return ensure_system_qemu(steps.say) if major is None else ensure_qemu(major, steps.say)


def apply_example(sandbox: Sandbox, steps: Steps) -> None:
    """Applies the example and waits until its firmware has numbered the buses, which makes the table whole."""
    with steps.step("example guest Ready"):
        if sandbox.kubectl.get("virtualguest", "demo", namespace="default") is None:
            sandbox.kubectl("apply", "-f", str(EXAMPLE))
        running = sandbox.kubectl.get("virtualguest", "demo", namespace="default") or {}
        spec = running.get("spec")
        if isinstance(spec, dict) and spec.get("runStrategy") == "Halted":
            steps.say("demo is halted, as its runStrategy says")
            return
        sandbox.kubectl("wait", "--for=condition=Ready", "vg/demo", "--timeout=120s", timeout_s=130)
        addressed = "--for=jsonpath={.status.pci.devices[0].guestAddress}"
        sandbox.kubectl("wait", addressed, "vg/demo", "--timeout=60s", timeout_s=70)


def show(sandbox: Sandbox, console: Console, *, root: Path, example: bool) -> None:
    """What the user came for, and what to try next."""
    console.print()
    console.print(sandbox.kubectl("get", "virtualguests", "-A", "-o", "wide").rstrip(), markup=False)
    demo = sandbox.kubectl.get("virtualguest", "demo", namespace="default") if example else None
    if demo is not None:
        console.print()
        console.print(pci_table(demo))
    console.print()
    console.print(next_commands(root, example=demo is not None), markup=False)


if __name__ == "__main__":
    main()

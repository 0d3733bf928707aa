"""A whole sandbox: cluster, controller, nodes. `hack/up`, `hack/down`, the end-to-end tests and the bench stand on it.

Every method may be called again and repairs what died since. It must never change a cluster that it was not given,
nor leave a process that `down` does not find.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from sandbox import machine
from sandbox.assets import find_or_build
from sandbox.components import Options
from sandbox.control_plane import ControlPlane
from sandbox.errors import SandboxError
from sandbox.kubeconfigs import server_of, service_account_kubeconfig
from sandbox.kubectl import Kubectl, Object
from sandbox.leftovers import end_guests, end_launchers, processes_below, remove_taps, running_guests
from sandbox.nodes import Node, Program, http_port, write_settings
from sandbox.processes import log_tail, stop_all
from sandbox.qemu import QemuBuild
from sandbox.root import Root
from sandbox.test_guest import ensure_test_guest

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_ROOT = REPOSITORY / ".guestlet"
SYSTEM_NAMESPACE = "guestlet-system"
CONTROLLER_ACCOUNT = "guestlet-controller"
AGENT_ACCOUNT = "guestlet-agent"


class Sandbox:
    """The sandbox of one root folder; made anew in each process that deals with it."""

    def __init__(self, root: Path, *, options: Options | None = None, say: Callable[[str], None] = print) -> None:
        self.root = Root(path=root.absolute())
        self._options = options or Options()
        self._say = say

    @property
    def kubectl(self) -> Kubectl:
        """The command line client, as the administrator."""
        return Kubectl(program=self.root.kubectl, kubeconfig=self.root.kubeconfig)

    @property
    def control_plane(self) -> ControlPlane:
        """The cluster's programs, for tests that stop, kill or restore them.

        Raises:
            SandboxError: the programs cannot be found or built.
        """
        return ControlPlane(self.root.path, find_or_build(say=self._say), options=self._options, say=self._say)

    @property
    def controller(self) -> Program:
        """The controller."""
        arguments = ("controller", "--config", str(self._controller_config))
        return Program(root=self.root, name="controller", arguments=arguments)

    def node(self, name: str) -> Node:
        """A node of this sandbox, made or not yet."""
        return Node(root=self.root, name=name)

    def nodes(self) -> tuple[Node, ...]:
        """The nodes that were made."""
        return tuple(self.node(name) for name in self.root.node_names())

    def start_cluster(self) -> None:
        """Starts the control plane of this root; returns when its API server is ready."""
        if self.root.foreign.exists():
            raise SandboxError(f"{self.root.path} was made for another cluster: use another --root, or --kubeconfig")
        self.root.prepare()
        self.control_plane.start()

    def use_cluster(self, kubeconfig: Path) -> None:
        """Uses an existing cluster instead: its kubeconfig is copied, whole, as the current context sees it.

        Raises:
            SandboxError: the file names no cluster that answers, or the root has a cluster of its own.
        """
        if self.root.kubeconfig.exists() and not self.root.foreign.exists():
            raise SandboxError(f"{self.root.path} has a cluster of its own: use another --root")
        self.root.prepare()
        program = Path(shutil.which("kubectl") or find_or_build(say=self._say).kubectl)
        if not self.root.kubectl.exists():
            self.root.kubectl.unlink(missing_ok=True)
            self.root.kubectl.symlink_to(program)
        flat = Kubectl(program=program, kubeconfig=kubeconfig)("config", "view", "--raw", "--flatten", "--minify")
        write_private(self.root.kubeconfig, flat)
        self.root.foreign.touch()
        self.kubectl("version", timeout_s=30)

    def install(self) -> None:
        """Applies the CRDs and manifests/base, and what only nodes without a kubelet need."""
        manifests = REPOSITORY / "manifests"
        self.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(manifests / "base"))
        self.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(manifests / "kubeletless"))
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/virtualguests.guestlet.io")

    def register(self, *names: str) -> None:
        """Registers a Node for each name as a kubelet would; one that is there is its agent's to keep true."""
        facts = machine.read_machine(self.root.nodes)
        for name in names:
            if self.kubectl.get("node", name) is None:
                self.kubectl("create", "-f", "-", stdin=json.dumps(machine.node_object(name, facts)))
                patch = json.dumps({"status": machine.node_status(facts)})
                self.kubectl("patch", "node", name, "--subresource=status", "--type=merge", f"--patch={patch}")

    def put_test_guest(self, node: Node) -> None:
        """Puts the test guest into a pool: a kernel that is quick with BIOS, one for either firmware, the initramfs."""
        images = ensure_test_guest(say=self._say)
        node.put_image(images.kernel, "vmlinux")
        node.put_image(images.uefi_kernel, "vmlinuz")
        node.put_image(images.initrd, "initrd.img")

    def prepare_node(self, name: str, qemu: QemuBuild, *, settings: Mapping[str, object] | None = None) -> Node:
        """A node made ready for its agent: folders, settings, and a kubeconfig with the agent's own rights."""
        node = self.node(name)
        node.prepare(qemu, settings=settings)
        if self._ensure_account(node.kubeconfig, AGENT_ACCOUNT, node=name):
            node.agent.stop()
        return node

    def start_controller(self, *, settings: Mapping[str, object] | None = None) -> Program:
        """Starts the controller unless it runs, with exactly the rights of its service account."""
        kubeconfig = self.root.path / "controller.kubeconfig"
        wanted = {"kubeconfig": str(kubeconfig), "httpPort": http_port(self.controller), **(settings or {})}
        renewed = self._ensure_account(kubeconfig, CONTROLLER_ACCOUNT)
        if write_settings(self._controller_config, wanted) or renewed:
            self.controller.stop()
        self.controller.start()
        return self.controller

    def wait_for_nodes(self, *names: str, timeout_s: float = 60) -> None:
        """Returns when the agent of every name says that it is ready, and so does its Node.

        Raises:
            SandboxError: an agent ended or was not ready in time, with the end of its log.
        """
        deadline = time.monotonic() + timeout_s
        waiting = list(names)
        while waiting:
            answering = {name for name in waiting if self.node(name).agent.is_ready()}
            ready = self._ready_nodes() & answering if answering else set()
            waiting = [name for name in waiting if name not in ready]
            for name in waiting:
                agent = self.node(name).agent
                if agent.pid is None or time.monotonic() > deadline:
                    what = "ended" if agent.pid is None else f"is not ready after {timeout_s:.0f} s"
                    raise SandboxError(f"the agent of {name} {what}:\n{log_tail(agent.log_file)}")
            if waiting:
                time.sleep(0.2)

    def withdraw(self) -> None:
        """Deletes the Nodes that were registered here from a cluster that goes on without them.

        Raises:
            SandboxError: the cluster does not answer.
        """
        names = self.root.node_names()
        if names and self.root.foreign.exists():
            ours = f"--selector={machine.REGISTERED}=true"
            made = {str(cast(Object, node["metadata"])["name"]) for node in self.kubectl.list("nodes", ours)}
            for name in made.intersection(names):
                self.kubectl("delete", "node", name, "--ignore-not-found")

    def down(self) -> dict[str, int]:
        """Ends agents, guests, controller and control plane; tells how many of each. What they kept stays.

        Raises:
            SandboxError: something outlives SIGKILL.
        """
        programs = [node.agent.pid_file for node in self.nodes()]
        # Agents first: a guest must not be started again while guests are being ended.
        agents = stop_all([*programs, self.controller.pid_file])
        guests = end_guests(self.root.nodes)
        launchers = end_launchers(self.root.nodes)
        taps = remove_taps(self.root.nodes)
        ended = {"agents and controller": agents, "guests": guests, "launchers": launchers, "taps": taps}
        if self.root.kubeconfig.exists() and not self.root.foreign.exists():
            control_plane = self.control_plane
            ended["control plane"] = sum(part.pid is not None for part in control_plane.status().components)
            control_plane.stop()
        return ended

    def leftovers(self) -> dict[int, str]:
        """Pid → command line of every process that still belongs to this root."""
        left = processes_below(self.root.path, *(node.runtime for node in self.nodes()), self.root.nodes.resolve())
        return left | {pid: str(file) for file, pid in running_guests(self.root.nodes).items()}

    @property
    def _controller_config(self) -> Path:
        return self.root.path / "controller.yaml"

    def _ready_nodes(self) -> set[str]:
        columns = (
            "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=='Ready')].status}{'\\n'}{end}"
        )
        lines = self.kubectl("get", "nodes", f"--output={columns}").splitlines()
        return {line.split()[0] for line in lines if line.endswith(" True")}

    def _ensure_account(self, kubeconfig: Path, account: str, *, node: str | None = None) -> bool:
        if kubeconfig.exists() and server_of(kubeconfig) == server_of(self.root.kubeconfig):
            user = Kubectl(program=self.root.kubectl, kubeconfig=kubeconfig)
            # A token ends with its service account and its Node, and with the data of the cluster that made it.
            if user.attempt("auth", "whoami").code == 0:
                return False
        service_account_kubeconfig(self.root.kubeconfig, SYSTEM_NAMESPACE, account, out=kubeconfig, node=node)
        return True


def write_private(file: Path, text: str) -> None:
    """Writes a file that only its owner may read."""
    descriptor = os.open(file.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    file.with_suffix(".new").rename(file)

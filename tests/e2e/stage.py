"""What an end-to-end test says: guests by name, conditions to wait for, what the guest's console shows, who died.

Nothing here decides whether a test passes; a wait that ends without what was waited for raises with the state as found.
"""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sandbox.cluster import Sandbox
from sandbox.kubectl import Kubectl, Object, Outcome
from sandbox.leftovers import qemu_of
from sandbox.nodes import POOL, Node
from sandbox.test_guest import CMDLINE

NODES = ("node-a", "node-b")
KERNEL: Mapping[str, object] = {
    "kernel": {"pool": POOL, "image": "vmlinux", "initrd": "initrd.img", "cmdline": CMDLINE},
}
# Enough for the test guest; a story that is about something else overrules it.
SMALL: Mapping[str, object] = {"memory": {"size": "128Mi"}, "terminationGracePeriodSeconds": 5}


def eventually(check: Callable[[], bool], *, timeout_s: float = 60, what: str = "what was waited for") -> None:
    """Returns once the check holds."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A VirtualGuest of a test: what the API server says of it, and what this machine does."""

    sandbox: Sandbox
    namespace: str
    name: str

    @property
    def kubectl(self) -> Kubectl:
        return self.sandbox.kubectl

    def read(self) -> Object:
        """The object; it must be there."""
        found = self.kubectl.get("virtualguest", self.name, namespace=self.namespace)
        assert found is not None, f"{self.namespace}/{self.name} is not there"
        return found

    def exists(self) -> bool:
        return self.kubectl.get("virtualguest", self.name, namespace=self.namespace) is not None

    def status(self) -> Object:
        return cast(Object, self.read().get("status", {}))

    def field(self, path: str) -> str:
        """A field by kubectl's JSONPath, without braces: ``.status.qemu.pid``; empty when it is not there."""
        return self.kubectl("get", "vg", self.name, "-n", self.namespace, "-o", f"jsonpath={{{path}}}")

    def condition(self, kind: str) -> Mapping[str, str]:
        """The condition of that type; empty when there is none."""
        conditions = cast("list[Mapping[str, str]]", self.status().get("conditions", []))
        return next((condition for condition in conditions if condition["type"] == kind), {})

    def wait(self, condition: str = "Ready", status: str = "True", *, timeout_s: float = 90) -> None:
        """Waits for a condition of the present generation's making."""
        self._wait(f"--for=condition={condition}={status}", timeout_s=timeout_s)

    def wait_for(self, path: str, value: str, *, timeout_s: float = 90) -> None:
        """Waits until a field (``.status.phase``) has a value."""
        self._wait(f"--for=jsonpath={{{path}}}={value}", timeout_s=timeout_s)

    def wait_for_reason(self, condition: str, reason: str, *, timeout_s: float = 60) -> Mapping[str, str]:
        """Waits for a condition with that reason and gives it."""
        path = f".status.conditions[?(@.type=='{condition}')].reason"
        self.wait_for(path, reason, timeout_s=timeout_s)
        return self.condition(condition)

    def wait_until_observed(self, *, timeout_s: float = 60) -> None:
        """Waits until status speaks of the spec as it is now."""
        metadata = cast(Mapping[str, object], self.read()["metadata"])
        self.wait_for(".status.observedGeneration", str(metadata["generation"]), timeout_s=timeout_s)

    def wait_for_addresses(self, *, timeout_s: float = 60) -> None:
        """Waits until the firmware has numbered the buses and status says so."""
        self._wait("--for=jsonpath={.status.pci.devices[0].guestAddress}", timeout_s=timeout_s)

    def wait_until_gone(self, *, timeout_s: float = 90) -> None:
        self._wait("--for=delete", timeout_s=timeout_s)

    def patch(self, spec: Mapping[str, object]) -> Outcome:
        """Merges into spec; tells what the API server said."""
        body = json.dumps({"spec": spec})
        return self.kubectl.attempt("patch", "vg", self.name, "-n", self.namespace, "--type=merge", "-p", body)

    def edit(self, spec: Mapping[str, object]) -> None:
        """Merges into spec, which must be accepted."""
        outcome = self.patch(spec)
        assert outcome.code == 0, outcome.errors

    def delete(self, *, wait: bool = True) -> None:
        self.kubectl("delete", "vg", self.name, "-n", self.namespace, f"--wait={str(wait).lower()}", timeout_s=110)

    @property
    def node(self) -> Node:
        return self.sandbox.node(self.field(".status.nodeName"))

    @property
    def state(self) -> Path:
        """The guest's state directory on its node."""
        return self.node.state / "guests" / self.field(".status.uuid")

    def pid(self) -> int | None:
        """The pid of its QEMU as the kernel knows it, by the lock on the pidfile."""
        return qemu_of(self.state / "qemu.pid")

    def console(self) -> str:
        """What the serial console has shown since QEMU's start."""
        try:
            return (self.state / "serial.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def wait_for_console(self, text: str, *, timeout_s: float = 60) -> str:
        """Waits until the serial console has shown a text, and gives all that it has shown."""
        log = self.state / "serial.log"
        try:
            eventually(
                lambda: log.exists() and text in log.read_text(errors="replace"),
                timeout_s=timeout_s,
                what=f"{text!r} on the console",
            )
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.console()[-2000:]}") from error
        return self.console()

    def _wait(self, what: str, *, timeout_s: float) -> None:
        arguments = ("wait", what, f"vg/{self.name}", "-n", self.namespace, f"--timeout={timeout_s:.0f}s")
        outcome = self.kubectl.attempt(*arguments, timeout_s=timeout_s + 10)
        if outcome.code != 0 and "(NotFound)" not in outcome.errors:
            status = json.dumps(self.status(), indent=1)
            console = self.console()[-1500:] or "nothing"
            raise AssertionError(
                f"{what} of {self.name}: {outcome.errors.strip()}\nits console: {console}\nits status: {status}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A namespace of a test's own, on the sandbox that all tests share."""

    sandbox: Sandbox
    namespace: str

    def guest(self, name: str = "guest", spec: Mapping[str, object] | None = None, *, boot: bool = True) -> Guest:
        """Applies a guest: small, booting the test guest's Linux unless told not to; ``spec`` adds and overrules."""
        outcome = self.try_guest(name, {**SMALL, **({"boot": KERNEL} if boot else {}), **(spec or {})})
        assert outcome.code == 0, outcome.errors
        return self.named(name)

    def try_guest(self, name: str, spec: Mapping[str, object]) -> Outcome:
        """Applies exactly this spec and tells what the API server said."""
        metadata = {"name": name, "namespace": self.namespace}
        manifest = {"apiVersion": "guestlet.io/v1alpha1", "kind": "VirtualGuest", "metadata": metadata, "spec": spec}
        return self.apply(json.dumps(manifest))

    def apply(self, manifest: str) -> Outcome:
        """Applies a manifest's text in this namespace and tells what the API server said."""
        return self.sandbox.kubectl.attempt("apply", "-n", self.namespace, "-f", "-", stdin=manifest)

    def named(self, name: str) -> Guest:
        return Guest(sandbox=self.sandbox, namespace=self.namespace, name=name)

    def image(self, name: str, size: str = "8M", *, form: str = "qcow2", nodes: tuple[str, ...] = NODES) -> None:
        """Makes a blank image in the pool of each node."""
        for node in nodes:
            target = self.sandbox.node(node).pool() / name
            command = ["qemu-img", "create", "-q", "-f", form, str(target), size]
            subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)

    def events(self, guest: Guest) -> tuple[tuple[str, str], ...]:
        """(reason, message) of each Event about a guest."""
        selector = f"--field-selector=involvedObject.kind=VirtualGuest,involvedObject.name={guest.name}"
        found = self.sandbox.kubectl.list("events", "-n", self.namespace, selector)
        return tuple((str(event["reason"]), str(event["message"])) for event in found)

    def kill_agent(self, node: str) -> None:
        """Ends an agent as a crash would."""
        assert self.sandbox.node(node).agent.stop(kill=True), f"the agent of {node} did not run"

    def stop_agent(self, node: str) -> None:
        """Ends an agent as a system would that shuts it down."""
        self.sandbox.node(node).agent.stop()

    def start_agent(self, node: str) -> None:
        """Starts an agent and returns when it is ready."""
        self.sandbox.node(node).agent.start()
        self.sandbox.wait_for_nodes(node)

    def repair(self) -> None:
        """Starts what a story has stopped: control plane, controller, agents."""
        if any(component.pid is None for component in self.sandbox.control_plane.status().components):
            self.sandbox.start_cluster()
        stopped = [name for name in NODES if self.sandbox.node(name).agent.start()]
        if self.sandbox.controller.start() or stopped:
            self.sandbox.wait_for_nodes(*stopped)

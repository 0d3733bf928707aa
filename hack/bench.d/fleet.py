"""Many equal guests on one node, applied and watched over the API as a user's tool would.

It must never help guestlet: nothing is prepared but the images, which the floor has ready too.
"""

import contextlib
import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from floor import MEMORY_MIB
from kubernetes import client, config, watch

from sandbox.cluster import Sandbox
from sandbox.errors import SandboxError
from sandbox.leftovers import running_guests
from sandbox.nodes import POOL
from sandbox.qemu import QemuBuild

_GROUP, _VERSION, _PLURAL, _NAMESPACE = "guestlet.io", "v1alpha1", "virtualguests", "default"
_TIMEOUT_S = 300


class Fleet:
    """Guests of one node, made and deleted by number."""

    def __init__(self, sandbox: Sandbox, node: str, qemu: QemuBuild) -> None:
        self._sandbox = sandbox
        self._node = sandbox.node(node)
        self._qemu = qemu
        # The client says nothing useful about its types.
        make_connection: Any = config.new_client_from_config
        self._objects: Any = client.CustomObjectsApi(make_connection(config_file=str(sandbox.root.kubeconfig)))
        self._watch: Any = watch.Watch

    def start(self, count: int) -> float:
        """Seconds from the first request until the last guest is Ready, each with one disk."""
        names = [f"bench-{secrets.token_hex(4)}" for _ in range(count)]
        for name in names:
            self.make_image(f"{name}.qcow2")
        return self._apply({name: {"disks": [_disk(f"{name}.qcow2")]} for name in names})

    def start_diskless(self, count: int, spec: Mapping[str, object]) -> tuple[str, ...]:
        """The names of new guests, all Ready; ``spec`` adds and overrules."""
        names = [f"bench-{secrets.token_hex(4)}" for _ in range(count)]
        self._apply(dict.fromkeys(names, spec))
        return tuple(names)

    def _apply(self, specs: Mapping[str, Mapping[str, object]]) -> float:
        names = list(specs)
        version = self._objects.list_namespaced_custom_object(_GROUP, _VERSION, _NAMESPACE, _PLURAL)["metadata"]
        begin = time.monotonic()
        with ThreadPoolExecutor(min(len(names), 8)) as pool:
            made = pool.map(self._create, list(specs), list(specs.values()))
            # The API server may end a watch whenever it likes; the next one tells it all again.
            while names and time.monotonic() - begin < _TIMEOUT_S:
                for name in self._ready_names(version["resourceVersion"]):
                    if name in names:
                        names.remove(name)
                    if not names:
                        break
            taken = time.monotonic() - begin
            list(made)
        if names:
            raise SandboxError(f"not Ready after {_TIMEOUT_S} s: {', '.join(sorted(names))}")
        return taken

    def delete_all(self) -> None:
        """Deletes every guest and waits until it is gone."""
        self._sandbox.kubectl("delete", "virtualguests", "--all", "-n", _NAMESPACE, timeout_s=_TIMEOUT_S)

    def qemus(self) -> set[int]:
        """The pids of all guests' QEMUs."""
        return set(running_guests(self._sandbox.root.nodes).values())

    def wait_until_adopted(self, count: int) -> None:
        """Returns when the agent counts that many running guests in its metrics."""
        deadline = time.monotonic() + _TIMEOUT_S
        while self._running_by_metrics() < count:
            if time.monotonic() > deadline:
                raise SandboxError(f"not {count} guests re-adopted after {_TIMEOUT_S} s")
            time.sleep(0.05)  # each look costs the agent some milliseconds

    def _running_by_metrics(self) -> int:
        text = self._node.agent.fetch("/metrics") or ""
        found = re.search(r'^guestlet_guests\{[^}]*phase="Running"[^}]*\} (\S+)$', text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    def _ready_names(self, version: str) -> Iterator[str]:
        stream = self._watch().stream(
            self._objects.list_namespaced_custom_object,
            *(_GROUP, _VERSION, _NAMESPACE, _PLURAL),
            resource_version=version,
            timeout_seconds=_TIMEOUT_S,
        )
        with contextlib.closing(stream):
            for event in stream:
                guest = event["object"]
                for condition in guest.get("status", {}).get("conditions", ()):
                    if (condition["type"], condition["status"]) == ("Ready", "True"):
                        yield str(guest["metadata"]["name"])

    def names(self) -> tuple[str, ...]:
        """The names of all guests."""
        return tuple(sorted(self.machines()))

    def machines(self) -> dict[str, object]:
        """What status says of each guest's machine."""
        found = self._objects.list_namespaced_custom_object(_GROUP, _VERSION, _NAMESPACE, _PLURAL)["items"]
        kinds = ("uuid", "machineType", "cpu", "memory", "pci", "disks", "networks")
        return {guest["metadata"]["name"]: {kind: guest["status"].get(kind) for kind in kinds} for guest in found}

    def patch(self, name: str, spec: Mapping[str, object]) -> None:
        """Merges into a guest's spec; returns when the API server has answered."""
        self._objects.patch_namespaced_custom_object(
            *(_GROUP, _VERSION, _NAMESPACE, _PLURAL, name),
            {"spec": spec},
            _content_type="application/merge-patch+json",
        )

    def wait_until_settled(self, name: str) -> None:
        """Returns when status speaks of the spec as it is, and nothing is under way."""
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            guest = self._read(name)
            status = guest["status"]
            states = {each["type"]: each["status"] for each in status.get("conditions", ())}
            if states.get("Stalled") == "True":
                raise SandboxError(f"{name} is stalled: {status['conditions']}")
            observed = status.get("observedGeneration") == guest["metadata"]["generation"]
            if observed and states.get("Ready") == "True" and states.get("Reconciling") != "True":
                return
            if time.monotonic() > deadline:
                raise SandboxError(f"{name} has not settled after {_TIMEOUT_S} s")
            time.sleep(0.02)

    def wait_for_console(self, name: str, text: str) -> None:
        """Returns when a guest's serial console has shown a text."""
        wait_for_text(self.state(name) / "serial.log", text, timeout_s=_TIMEOUT_S)

    def runtime(self, name: str) -> Path:
        """The folder of a guest's sockets."""
        return self._node.runtime / self._uuid(name)

    def state(self, name: str) -> Path:
        """The folder of a guest's record."""
        return self._node.state / "guests" / self._uuid(name)

    def pid(self, name: str) -> int:
        """The pid of a guest's QEMU."""
        return int(self._read(name)["status"]["qemu"]["pid"])

    def make_image(self, name: str) -> Path:
        """Makes a blank image in the pool."""
        path = self._node.pool() / name
        command = [str(self._qemu.img), "create", "-q", "-f", "qcow2", str(path), "8M"]
        subprocess.run(command, check=True, env={**os.environ, **self._qemu.environment()}, timeout=60)
        return path

    def _read(self, name: str) -> Any:
        return self._objects.get_namespaced_custom_object(_GROUP, _VERSION, _NAMESPACE, _PLURAL, name)

    def _uuid(self, name: str) -> str:
        return str(self._read(name)["status"]["uuid"])

    def _create(self, name: str, spec: Mapping[str, object]) -> None:
        body = {
            "apiVersion": f"{_GROUP}/{_VERSION}",
            "kind": "VirtualGuest",
            "metadata": {"name": name},
            "spec": {
                "nodeName": self._node.name,
                "accelerator": "TCG",
                "memory": {"size": f"{MEMORY_MIB}Mi"},
                "terminationGracePeriodSeconds": 0,
                **spec,
            },
        }
        self._objects.create_namespaced_custom_object(_GROUP, _VERSION, _NAMESPACE, _PLURAL, body)


def wait_for_text(file: Path, text: str, *, timeout_s: float) -> None:
    """Returns when a file holds a text.

    Raises:
        SandboxError: not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not (file.exists() and text in file.read_text(errors="replace")):
        if time.monotonic() > deadline:
            raise SandboxError(f"{file} does not show {text!r} after {timeout_s:.0f} s")
        time.sleep(0.05)


def _disk(image: str) -> Mapping[str, object]:
    return {"name": "root", "source": {"file": {"pool": POOL, "image": image}}}

"""Many equal guests on one node, applied and watched over the API as a user's tool would.

It must never help guestlet: nothing is prepared but the images, which the floor has ready too.
"""

import contextlib
import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
        """Seconds from the first request until the last guest is Ready."""
        names = [f"bench-{secrets.token_hex(4)}" for _ in range(count)]
        for name in names:
            self._make_image(f"{name}.qcow2")
        version = self._objects.list_namespaced_custom_object(_GROUP, _VERSION, _NAMESPACE, _PLURAL)["metadata"]
        begin = time.monotonic()
        with ThreadPoolExecutor(min(count, 8)) as pool:
            made = pool.map(self._create, names)
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

    def _create(self, name: str) -> None:
        source = {"file": {"pool": POOL, "image": f"{name}.qcow2"}}
        body = {
            "apiVersion": f"{_GROUP}/{_VERSION}",
            "kind": "VirtualGuest",
            "metadata": {"name": name},
            "spec": {
                "nodeName": self._node.name,
                "accelerator": "TCG",
                "memory": {"size": f"{MEMORY_MIB}Mi"},
                "terminationGracePeriodSeconds": 0,
                "disks": [{"name": "root", "source": source}],
            },
        }
        self._objects.create_namespaced_custom_object(_GROUP, _VERSION, _NAMESPACE, _PLURAL, body)

    def _make_image(self, name: str) -> None:
        command = [str(self._qemu.img), "create", "-q", "-f", "qcow2", str(self._node.pool() / name), "8M"]
        subprocess.run(command, check=True, env={**os.environ, **self._qemu.environment()}, timeout=60)

"""An agent that reaches the API server only through a proxy that misbehaves on demand, and what is measured on it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.stage import Stage
from sandbox.cluster import Sandbox, write_private
from sandbox.components import pki_directory
from sandbox.fault_proxy import FaultProxy, Seen
from sandbox.nodes import Node
from sandbox.qemu import QemuBuild

NODE = "node-far"
# The busiest that an agent with a few guests may be while nothing succeeds.
REQUESTS_PER_S = 3.0
CPU_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """The agent behind the proxy."""

    sandbox: Sandbox
    node: Node
    proxy: FaultProxy

    def stage(self, namespace: str) -> Stage:
        """A namespace to tell a story in."""
        return Stage(sandbox=self.sandbox, namespace=namespace)


class Measured:
    """What happened within a block; filled at its end. ``requests`` is every request that reached the proxy."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.log = ""
        self.requests: tuple[Seen, ...] = ()

    @property
    def cpu_share(self) -> float:
        """Of one processor."""
        return self.cpu_seconds / self.seconds


@contextmanager
def far_agent(sandbox: Sandbox, qemu: QemuBuild) -> Iterator[Far]:
    """A node of its own whose agent knows no other address than the proxy's; the controller is not concerned."""
    sandbox.register(NODE)
    node = sandbox.prepare_node(NODE, qemu)
    sandbox.put_test_guest(node)
    with FaultProxy(sandbox.control_plane.server, pki_directory(sandbox.root.path)) as proxy:
        kubeconfig = node.folder / "far.kubeconfig"
        write_private(kubeconfig, node.kubeconfig.read_text().replace(sandbox.control_plane.server, proxy.url))
        assert proxy.url in kubeconfig.read_text()
        node.prepare(qemu, settings={"kubeconfig": str(kubeconfig)})
        node.agent.start()
        sandbox.wait_for_nodes(NODE)
        yield Far(sandbox=sandbox, node=node, proxy=proxy)
        node.agent.stop()
    sandbox.kubectl("delete", "node", NODE)


@contextmanager
def measured(far: Far) -> Iterator[Measured]:
    """Measures the agent while the block runs; it must be the same process at the end."""
    pid = far.node.agent.pid
    assert pid is not None, "the agent does not run"
    found = Measured()
    began, cpu, said, seen = time.monotonic(), cpu_seconds(pid), len(log_of(far.node)), len(far.proxy.seen)
    yield found
    assert far.node.agent.pid == pid, f"the agent ended:\n{log_of(far.node)[-2000:]}"
    found.seconds = time.monotonic() - began
    found.cpu_seconds = cpu_seconds(pid) - cpu
    found.log = log_of(far.node)[said:]
    found.requests = far.proxy.seen[seen:]


def assert_calm(found: Measured) -> None:
    """No busy loop, no traceback, no flood of words."""
    assert "Traceback" not in found.log
    assert found.cpu_share < CPU_SHARE, f"{found.cpu_seconds:.1f} CPU s in {found.seconds:.0f} s\n{found.log[-3000:]}"
    assert len(found.requests) < REQUESTS_PER_S * found.seconds + 10, busiest(found)
    assert len(found.log.splitlines()) < 20 + found.seconds, found.log[-3000:]


def busiest(found: Measured) -> str:
    """The requests that came most often."""
    names = [f"{each.method} {each.path.partition('?')[0]}" for each in found.requests]
    counted = sorted(((names.count(name), name) for name in set(names)), reverse=True)
    return f"{len(names)} requests in {found.seconds:.0f} s: {counted[:10]}"


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def log_of(node: Node) -> str:
    return node.agent.log_file.read_text(errors="replace")

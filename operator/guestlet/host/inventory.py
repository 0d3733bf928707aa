"""What the node has, read once at start. It must never change anything."""

import os
import re
from pathlib import Path

from guestlet.api.quantity import parse_quantity
from guestlet.host.facts import NodeFacts
from guestlet.settings import AgentSettings


def node_facts(settings: AgentSettings) -> NodeFacts:
    """CPUs this process may use, memory of the machine in bytes, and what the settings allow."""
    return NodeFacts(
        name=settings.node_name,
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=memory_total_bytes(),
        memory_reserved_bytes=parse_quantity(settings.memory_reserved),
        pools=tuple(sorted(pool.name for pool in settings.pools)),
        bridges=tuple(sorted(settings.allowed_bridges)),
        qemu_binary=str(settings.qemu_binary),
        greeting_timeout_s=settings.qmp_greeting_timeout_seconds,
    )


def memory_total_bytes() -> int:
    """MemTotal of proc_meminfo(5), which counts in KiB."""
    found = re.search(r"^MemTotal:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found is not None else 0

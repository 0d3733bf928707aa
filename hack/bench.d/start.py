"""`hack/bench start`: how fast guests start, what they cost, how fast a new agent has them again, beside the floor.

It must never compare with a floor of another run or machine, nor leave out a target that was missed.
"""

import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from figures import Figure, machine_named, percentile, publish
from fleet import Fleet
from floor import MEMORY_MIB, floor_one, floor_parallel
from process_cost import cpu_seconds, resident_mib
from stand import NODE, bench, one_node

from sandbox.audit import read_audit_log, service_account_user
from sandbox.cluster import AGENT_ACCOUNT, CONTROLLER_ACCOUNT, SYSTEM_NAMESPACE, Sandbox
from sandbox.errors import SandboxError
from sandbox.qemu import QemuBuild
from sandbox.steps import Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    singles: int
    together: int
    many: int
    rest_s: float


FULL = Size(singles=20, together=40, many=100, rest_s=60)
QUICK = Size(singles=5, together=10, many=20, rest_s=15)


def main(folder: Path, qemu: QemuBuild, steps: Steps, quick: bool, json_file: Path | None) -> None:
    """Measures how fast guests start beside the floor of this machine, in one run."""
    size = QUICK if quick else FULL
    figures = measure(folder, qemu, size, steps)
    guest = f"q35, {MEMORY_MIB} MiB, TCG, one qcow2 disk"
    publish(figures, machine_named(qemu, guest), asdict(size), steps, json_file)


def measure(folder: Path, qemu: QemuBuild, size: Size, steps: Steps) -> list[Figure]:
    """All figures, on a sandbox of its own with one node."""
    audit_log = folder / "audit.log"
    with one_node(folder, qemu, steps, audit_log=audit_log) as sandbox:
        fleet = Fleet(sandbox, NODE, qemu)
        figures = memory(sandbox, 0)
        with steps.step(f"{size.singles} guests one by one, floor and guestlet in turn"):
            figures += one_by_one(fleet, qemu, size.singles)
        figures += writes(audit_log, size.singles + 1)
        with steps.step(f"{size.together} guests at once"):
            figures += at_once(fleet, qemu, size.together)
        figures += memory(sandbox, size.together)
        with steps.step(f"{size.many} guests"):
            fleet.start(size.many - size.together)
        empty = figures[0].value
        figures += memory(sandbox, size.many, empty_agent_mib=empty)
        with steps.step(f"{size.many} guests at rest"):
            figures.append(rest(sandbox, size))
        with steps.step("kill -9 of the agent, and its return"):
            figures.append(adoption(sandbox, fleet, size.many))
        return figures


def one_by_one(fleet: Fleet, qemu: QemuBuild, runs: int) -> list[Figure]:
    """Apply to Ready of one guest; a floor before each, so that both see the same machine."""
    fleet.start(1)
    fleet.delete_all()
    floors, times = [], []
    for _ in range(runs):
        floors.append(floor_one(qemu))
        times.append(fleet.start(1))
        fleet.delete_all()
    floor = statistics.median(floors)
    return [
        Figure(name="floor: one bare QEMU to running, p50", value=1000 * floor, unit="ms"),
        Figure(
            name="apply to Ready, one guest, p50",
            value=1000 * statistics.median(times),
            unit="ms",
            floor=1000 * floor,
            target=1500 * floor + 100,
        ),
        Figure(
            name="apply to Ready, one guest, p95",
            value=1000 * percentile(times, 0.95),
            unit="ms",
            floor=1000 * percentile(floors, 0.95),
        ),
    ]


def at_once(fleet: Fleet, qemu: QemuBuild, count: int) -> list[Figure]:
    """Wall time until all of many that were applied together are Ready."""
    floor = statistics.median(floor_parallel(qemu, count) for _ in range(3))
    wall = fleet.start(count)
    return [
        Figure(name=f"floor: {count} bare QEMUs at once to running", value=floor, unit="s"),
        Figure(name=f"apply to Ready, {count} guests at once", value=wall, unit="s", floor=floor, target=1.3 * floor),
    ]


def writes(audit_log: Path, guests: int) -> list[Figure]:
    """What the program wrote for each guest from its creation to its deletion, as the API server saw it."""
    users = {service_account_user(SYSTEM_NAMESPACE, name) for name in (AGENT_ACCOUNT, CONTROLLER_ACCOUNT)}
    counted = Counter(
        (request.verb, request.right[1])
        for request in read_audit_log(audit_log)
        if request.user in users and request.is_write and request.resource in ("virtualguests", "events")
    )
    before_ready = ready_writes(audit_log, users)
    lines = [Figure(name="API writes, creation to Ready, Events apart", value=before_ready, unit="a guest", target=4)]
    return lines + [
        Figure(name=f"API writes in a whole life: {verb} {resource}", value=count / guests, unit="a guest")
        for (verb, resource), count in sorted(counted.items())
    ]


def ready_writes(audit_log: Path, users: set[str]) -> float:
    """Mean number of the program's writes to a VirtualGuest before its user deletes it."""
    counts: Counter[str] = Counter()
    deleted: set[str] = set()
    for request in sorted(read_audit_log(audit_log), key=lambda request: request.received):
        if request.resource != "virtualguests" or not request.is_write:
            continue
        if request.user not in users and request.verb.startswith("delete"):
            deleted |= {request.name} if request.name else set(counts)
        elif request.user in users and request.name not in deleted:
            counts[request.name] += 1
    return statistics.mean(counts.values()) if counts else 0.0


def memory(sandbox: Sandbox, guests: int, *, empty_agent_mib: float | None = None) -> list[Figure]:
    """Resident memory of agent and controller with that many guests."""
    agent, controller = sandbox.node(NODE).agent.pid, sandbox.controller.pid
    if agent is None or controller is None:
        raise SandboxError("agent or controller ended")
    figures = [
        Figure(
            name=f"agent's memory, {guests} guests", value=resident_mib(agent), unit="MiB", target=90 + 0.3 * guests
        ),
        Figure(name=f"controller's memory, {guests} guests", value=resident_mib(controller), unit="MiB"),
    ]
    if empty_agent_mib is not None and guests:
        growth = (figures[0].value - empty_agent_mib) / guests
        figures.append(Figure(name="agent's memory for each guest", value=growth, unit="MiB", target=0.3))
    return figures


def rest(sandbox: Sandbox, size: Size) -> Figure:
    """CPU time of an agent whose guests all run and nobody touches."""
    pid = sandbox.node(NODE).agent.pid or 0
    time.sleep(10)  # what the last guests' firmware still tells is not rest
    before = cpu_seconds(pid)
    time.sleep(size.rest_s)
    used = (cpu_seconds(pid) - before) * 60 / size.rest_s
    return Figure(name=f"agent's CPU at rest, {size.many} guests", value=used, unit="s/min", target=0.6)


def adoption(sandbox: Sandbox, fleet: Fleet, guests: int) -> Figure:
    """From the start of a new agent until it has every guest again, the old one killed; no QEMU may change."""
    agent = sandbox.node(NODE).agent
    before = fleet.qemus()
    agent.stop(kill=True)
    begin = time.monotonic()
    agent.start()
    fleet.wait_until_adopted(guests)
    taken = time.monotonic() - begin
    if fleet.qemus() != before:
        raise SandboxError("a guest was restarted or lost when the agent came back")
    return Figure(name=f"new agent until {guests} guests re-adopted", value=taken, unit="s", target=2.0)


if __name__ == "__main__":
    bench(main)()

"""`hack/bench recover`: the descriptions of running guests whose records are gone, rebuilt by a new agent.

It must never count a guest that was restarted, or whose published machine is another one than before.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from figures import Figure, machine_named, publish
from fleet import Fleet
from floor import MEMORY_MIB
from monitor import Monitor
from process_cost import cpu_seconds
from stand import NODE, bench, one_node
from twin import wait_until_numbered

from sandbox.cluster import Sandbox
from sandbox.errors import SandboxError
from sandbox.qemu import QemuBuild
from sandbox.steps import Steps

_TARGET_S = 3.0
_TIMEOUT_S = 120
# What a description is made from; a script that asked less could not know the machine.
_QUESTIONS: tuple[tuple[str, Mapping[str, object]], ...] = (
    ("query-status", {}),
    ("query-pci", {}),
    ("qom-list", {"path": "/machine/peripheral"}),
    ("qom-list", {"path": "/objects"}),
    ("query-block", {}),
    ("query-named-block-nodes", {"flat": True}),
    ("query-memory-devices", {}),
    ("query-memdev", {}),
    ("query-hotpluggable-cpus", {}),
    ("query-cpus-fast", {}),
    ("query-chardev", {}),
    ("query-rx-filter", {}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many guests, how many times."""

    guests: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """How a new agent came back: seconds on the clock, and of the processor's time."""

    taken_s: float
    used_s: float


FULL = Size(guests=100, runs=3)
QUICK = Size(guests=20, runs=1)


def main(folder: Path, qemu: QemuBuild, steps: Steps, quick: bool, json_file: Path | None) -> None:
    """Measures how fast lost records of running guests are rebuilt."""
    size = QUICK if quick else FULL
    with one_node(folder, qemu, steps, audit_log=folder / "audit.log") as sandbox:
        fleet = Fleet(sandbox, NODE, qemu)
        with steps.step(f"{size.guests} guests"):
            fleet.start(size.guests)
        with steps.step("their firmware"):
            for name in fleet.names():
                with Monitor(fleet.runtime(name) / "observer") as observer:
                    wait_until_numbered(observer)
                fleet.wait_until_settled(name)
        floors: list[float] = []
        kept: list[Return] = []
        lost: list[Return] = []
        for _ in range(size.runs):
            with steps.step("records kept: kill -9 of the agent, and its return"):
                kept.append(back_again(sandbox, fleet, lose=False))
            with steps.step("a script asks every QEMU"):
                floors.append(ask_all(fleet))
            with steps.step("records deleted: kill -9 of the agent, and its return"):
                lost.append(back_again(sandbox, fleet, lose=True))
    figures = figures_of(size.guests, floors, kept, lost)
    guest = f"q35, {MEMORY_MIB} MiB, TCG, one qcow2 disk"
    publish(figures, machine_named(qemu, guest), asdict(size), steps, json_file)


def figures_of(count: int, floors: Sequence[float], kept: Sequence[Return], lost: Sequence[Return]) -> list[Figure]:
    """Medians of the runs, and the worst."""
    floor = statistics.median(floors)
    again, rebuilt = (f"new agent until {count} {what}" for what in ("guests re-adopted", "lost descriptions rebuilt"))
    figures = [Figure(name=f"floor: a script asks {count} QEMUs what they are", value=floor, unit="s")]
    for name, returns, target in ((again, kept, None), (rebuilt, lost, _TARGET_S)):
        taken, used = [each.taken_s for each in returns], [each.used_s for each in returns]
        for part, value in (("p50", statistics.median(taken)), (f"worst of {len(taken)}", max(taken))):
            figures.append(Figure(name=f"{name}, {part}", value=value, unit="s", floor=floor, target=target))
        figures.append(Figure(name="of it the agent's CPU time, p50", value=statistics.median(used), unit="s"))
    return figures


def back_again(sandbox: Sandbox, fleet: Fleet, *, lose: bool) -> Return:
    """A new agent, until it has every guest and its record; no QEMU and nothing that is published may change."""
    agent = sandbox.node(NODE).agent
    before, machines, names = fleet.qemus(), fleet.machines(), fleet.names()
    records = [fleet.state(name) / "record.json" for name in names]
    agent.stop(kill=True)
    if lose:
        for record in records:
            record.unlink()
    begin = time.monotonic()
    agent.start()
    deadline = begin + _TIMEOUT_S
    while not all(record.exists() for record in records):
        if time.monotonic() > deadline:
            raise SandboxError(f"records are missing after {_TIMEOUT_S} s")
        time.sleep(0.01)
    fleet.wait_until_adopted(len(names))
    back = Return(taken_s=time.monotonic() - begin, used_s=cpu_seconds(agent.pid or 0))
    if fleet.qemus() != before:
        raise SandboxError("a guest was restarted or lost when the agent came back")
    for name in names:
        fleet.wait_until_settled(name)
    after = fleet.machines()
    changed = sorted(name for name in names if machines[name] != after[name])
    if changed:
        raise SandboxError(f"the published machine of {changed[0]} is another one than before")
    return back


def ask_all(fleet: Fleet) -> float:
    """Seconds that a script needs to ask every guest's QEMU what the description is made from."""

    def ask(name: str) -> None:
        with Monitor(fleet.runtime(name) / "observer") as observer:
            for command, arguments in _QUESTIONS:
                observer.ask(command, arguments)

    names = fleet.names()
    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, names))
    return time.monotonic() - begin


if __name__ == "__main__":
    bench(main)()

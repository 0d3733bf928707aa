"""`hack/bench hotplug`: from the patch of a running guest's spec until its QEMU has the device, beside bare QMP.

Guestlet and the floor take turns on the same machine: the floor is a QEMU with the same command line, and is sent the
commands that the change comes to. It must never compare with a floor of another run.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from figures import Figure, machine_named, percentile, publish
from fleet import Fleet
from monitor import Monitor
from plugs import PLUGS, Plug, growing_spec, machine_spec, memory_is, memory_size, offer_memory
from stand import NODE, bench, one_node
from twin import Twin, twin_of, wait_until_numbered

from sandbox.audit import read_audit_log, service_account_user
from sandbox.cluster import AGENT_ACCOUNT, SYSTEM_NAMESPACE, Sandbox
from sandbox.errors import SandboxError
from sandbox.qemu import QemuBuild
from sandbox.steps import Steps

KINDS = (*(plug.name for plug in PLUGS), "memory")
_MARGIN_MS = 50
_WRITES = 2
_DONE_S = 30
_LOOK_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many changes of each kind."""

    guests: int


FULL = Size(guests=20)
QUICK = Size(guests=5)


class Times:
    """Seconds of one kind of change: by a script, by guestlet, and until the API server had answered the patch."""

    def __init__(self) -> None:
        self.floor: list[float] = []
        self.guestlet: list[float] = []
        self.patch: list[float] = []


def main(folder: Path, qemu: QemuBuild, steps: Steps, quick: bool, json_file: Path | None) -> None:
    """Measures how fast a running guest is changed beside the bare QMP sequence, in one run."""
    size = QUICK if quick else FULL
    audit_log = folder / "audit.log"
    with one_node(folder, qemu, steps, audit_log=audit_log) as sandbox:
        sandbox.put_test_guest(sandbox.node(NODE))
        figures = measure(sandbox, qemu, steps, guests=size.guests, audit_log=audit_log)
    guest = "q35, TCG, nothing booted but for memory"
    publish(figures, machine_named(qemu, guest), asdict(size), steps, json_file)


def measure(sandbox: Sandbox, qemu: QemuBuild, steps: Steps, *, guests: int, audit_log: Path) -> list[Figure]:
    """One change of each kind on every guest, a twin of the guest before it."""
    fleet = Fleet(sandbox, NODE, qemu)
    with steps.step(f"{guests} guests that boot nothing"):
        names = fleet.start_diskless(guests, machine_spec())
        for name in names:
            with Monitor(fleet.runtime(name) / "observer") as observer:
                wait_until_numbered(observer)
            fleet.make_image(f"{name}-more.qcow2")
    times = {kind: Times() for kind in KINDS}
    begun: dict[tuple[str, str], str] = {}
    for plug in PLUGS:
        with steps.step(f"{guests} x {plug.name}, floor and guestlet in turn"):
            for name in names:
                times[plug.name].floor.append(floor(fleet, qemu, plug, name))
                begun[plug.name, name] = stamp()
                change(fleet, plug, name, times[plug.name])
    with steps.step("a Linux guest, and its twin"):
        (growing,) = fleet.start_diskless(1, growing_spec())
        grow(fleet, qemu, growing, steps=guests, times=times["memory"], begun=begun)
    time.sleep(2)  # what is still to be written of the last change
    writes = writes_of(audit_log, begun)
    return [figure for kind in KINDS for figure in figures_of(kind, times[kind], writes[kind])]


def floor(fleet: Fleet, qemu: QemuBuild, plug: Plug, name: str) -> float:
    """Seconds that a script needs for the change on a twin of the guest."""
    image = fleet.make_image(f"{name}-twin-{plug.name}.qcow2")
    folders = {str(fleet.runtime(name)): "run", str(fleet.state(name)): "state"}
    with twin_of(fleet.pid(name), folders, qemu) as twin:
        return script(twin, plug, image)


def script(twin: Twin, plug: Plug, image: Path) -> float:
    """Seconds from the first command until the twin shows the change."""
    begin = time.monotonic()
    # The ports are used from the first on, by the script as by guestlet.
    plug.perform(twin.monitor, image, twin.free_ports[0] if twin.free_ports else "pcie.0")
    wait_until(lambda: plug.done(twin.observer), plug.name)
    return time.monotonic() - begin


def change(fleet: Fleet, plug: Plug, name: str, times: Times) -> None:
    """The change by a patch; returns when the guest is at rest again."""
    with Monitor(fleet.runtime(name) / "observer") as observer:
        begin = time.monotonic()
        fleet.patch(name, plug.spec(f"{name}-more.qcow2"))
        times.patch.append(time.monotonic() - begin)
        wait_until(lambda: plug.done(observer), plug.name)
        times.guestlet.append(time.monotonic() - begin)
    fleet.wait_until_settled(name)


def grow(
    fleet: Fleet, qemu: QemuBuild, name: str, *, steps: int, times: Times, begun: dict[tuple[str, str], str]
) -> None:
    """Memory in small steps, each taken by both Linux guests before the next."""
    folders = {str(fleet.runtime(name)): "run", str(fleet.state(name)): "state"}
    fleet.wait_for_console(name, "guest# ")
    with (
        twin_of(fleet.pid(name), folders, qemu) as twin,
        Monitor(fleet.runtime(name) / "observer") as observer,
    ):
        twin.wait_for_console("guest# ")
        for step in range(1, steps + 1):
            begin = time.monotonic()
            offer_memory(twin.monitor, step)
            wait_until(partial(memory_is, twin.observer, step, taken=False), "memory")
            times.floor.append(time.monotonic() - begin)
            wait_until(partial(memory_is, twin.observer, step, taken=True), "the twin's memory")
            begun[f"memory {step}", name] = stamp()
            begin = time.monotonic()
            fleet.patch(name, memory_size(step))
            times.patch.append(time.monotonic() - begin)
            wait_until(partial(memory_is, observer, step, taken=False), "memory")
            times.guestlet.append(time.monotonic() - begin)
            wait_until(partial(memory_is, observer, step, taken=True), "the guest's memory")
            fleet.wait_until_settled(name)


def wait_until(check: Callable[[], bool], what: str) -> None:
    """Returns when QEMU shows it."""
    deadline = time.monotonic() + _DONE_S
    while not check():
        if time.monotonic() > deadline:
            raise SandboxError(f"{what}: QEMU does not show it after {_DONE_S} s")
        time.sleep(_LOOK_S)


def stamp() -> str:
    """This moment as the audit log writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def writes_of(audit_log: Path, begun: Mapping[tuple[str, str], str]) -> dict[str, list[int]]:
    """How often the agent wrote the object for each change: until the next change of the same guest."""
    agent = service_account_user(SYSTEM_NAMESPACE, AGENT_ACCOUNT)
    counts = dict.fromkeys(begun, 0)
    for request in read_audit_log(audit_log, user=agent):
        if request.resource != "virtualguests" or not request.is_write:
            continue
        before = [(at, key) for key, at in begun.items() if key[1] == request.name and at <= request.received]
        if before:
            counts[max(before)[1]] += 1
    return {name: [count for (kind, _), count in counts.items() if kind.split()[0] == name] for name in KINDS}


def figures_of(kind: str, times: Times, writes: Sequence[int]) -> list[Figure]:
    """What is told of one kind of change, in ms and writes."""
    figures = []
    for name, part in (("p50", 0.5), ("p95", 0.95)):
        bare, taken = (
            1000 * (statistics.median(each) if part == 0.5 else percentile(each, part))
            for each in (times.floor, times.guestlet)
        )
        figures.append(Figure(name=f"floor: {kind} by bare QMP, {name}", value=bare, unit="ms"))
        target = bare + _MARGIN_MS
        figures.append(Figure(name=f"{kind}: patch to QEMU, {name}", value=taken, unit="ms", floor=bare, target=target))
    answered = 1000 * statistics.median(times.patch)
    figures.append(Figure(name=f"{kind}: of it the API server's answer, p50", value=answered, unit="ms"))
    mean = statistics.mean(writes)
    figures.append(Figure(name=f"{kind}: API writes by the agent", value=mean, unit="a change", target=_WRITES))
    return figures


if __name__ == "__main__":
    bench(main)()

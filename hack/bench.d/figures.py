"""The figures of a benchmark: each with its floor and target, on paper and as JSON, and the machine they are true of.

It must never leave out a target that was missed.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.table import Table

from sandbox.qemu import QemuBuild, read_version
from sandbox.steps import Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table; ``floor`` and ``target`` are ``None`` where there is none."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    target: float | None = None

    @property
    def missed(self) -> bool:
        """Whether the target was missed."""
        return self.target is not None and self.value > self.target


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least this part of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(part * len(ordered)))]


def machine_named(qemu: QemuBuild, guest: str) -> Mapping[str, str]:
    """What the figures are worth nothing without; ``guest`` says what guests they are about."""
    processor = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{len(os.sched_getaffinity(0))} x {processor}",
        "memory": f"{memory_gib:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "qemu": ".".join(map(str, read_version(qemu))),
        "guest": guest,
    }


def table(figures: Sequence[Figure], machine: Mapping[str, str]) -> Table:
    """The figures for people."""
    shown = Table(title=", ".join(machine.values()), box=box.SIMPLE, title_justify="left", pad_edge=False)
    shown.add_column("")
    for column in ("value", "unit", "x floor", "target", ""):
        shown.add_column(column, justify="left" if column in ("unit", "") else "right", no_wrap=True)
    for figure in figures:
        shown.add_row(
            figure.name,
            f"{figure.value:.2f}",
            figure.unit,
            f"{figure.value / figure.floor:.2f}" if figure.floor else "",
            f"{figure.target:.2f}" if figure.target is not None else "",
            "" if figure.target is None else "MISSED" if figure.missed else "met",
        )
    return shown


def publish(
    figures: Sequence[Figure], machine: Mapping[str, str], size: Mapping[str, object], steps: Steps, file: Path | None
) -> None:
    """Prints the table, and writes everything to a file when there is one."""
    steps.console.print(table(figures, machine))
    if file is not None:
        report = {"machine": machine, "size": size, "figures": [asdict(figure) for figure in figures]}
        file.write_text(json.dumps(report, indent=2) + "\n")

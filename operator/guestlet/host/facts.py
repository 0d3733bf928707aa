"""Facts about the node, as values: what observation returns and plans decide on. No effects here."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from guestlet.qemu.machine import ImageFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process that cannot be confused with a later one of the same number.

    ``start_ticks`` is field 22 of ``/proc/<pid>/stat`` (clock ticks after boot), see proc(5).
    """

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitFacts:
    """How a QEMU ended, as its parent (the launcher) saw it: exactly one of ``code`` and ``signal``, or neither when
    the launcher was gone too. ``at`` is seconds since the epoch, ``log_tail`` the end of QEMU's own output.
    """

    identity: ProcessIdentity
    code: int | None
    signal: int | None
    at: float
    log_tail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """What was found of one guest's QEMU: running (by record, pidfile lock or launcher), and the last known exit."""

    running: ProcessIdentity | None
    last_exit: ExitFacts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """A configured pool; ``identity`` is ``None`` when its file is missing (not mounted): nothing is created."""

    name: str
    identity: str | None
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """An existing image of a pool. ``format`` is what the file itself says; ``backing_image`` a name in the same pool,
    or the full text when it points elsewhere. ``locked``: some process holds QEMU's image lock.
    """

    pool: str
    image: str
    format: ImageFormat
    virtual_size_bytes: int
    backing_image: str | None
    locked: bool


class LaunchUser(StrEnum):
    """Whose rights QEMU runs with."""

    UNPRIVILEGED = "Unprivileged"
    AGENT = "Agent"  # the agent is not root: QEMU runs as the agent itself, and the agent says so


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the node offers. Sizes in bytes; ``reserved`` are kept from guests by the settings."""

    name: str
    cpus: int
    memory_bytes: int
    memory_reserved_bytes: int
    pools: tuple[str, ...]
    bridges: tuple[str, ...]  # the ones the settings allow
    qemu_binary: str
    greeting_timeout_s: float = 30.0  # a QEMU that opens no monitor for longer is ended


@dataclass(frozen=True, slots=True, kw_only=True)
class TapRequest:
    """One tap to make: interface name (≤ 15 characters), number of queues, and the bridge it joins, if any."""

    name: str
    queues: int
    bridge: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the node knows of a running QEMU beside its own answers.

    ``argv`` and ``folder`` (its working directory) from ``/proc``, ``taps`` by descriptor, ``bridges`` by tap, names of
    the node's ``pools`` by folder.
    """

    argv: tuple[str, ...]
    folder: str
    taps: Mapping[int, str]
    bridges: Mapping[str, str]
    pools: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a guest's QEMU said by events, which may be lost with the agent: never more than a reason to ask again.

    ``reset_at``: QEMU's stamp of the last RESET, seconds since the epoch. ``unplug_refusals``: by qdev id, when and
    why the guest would not let go (DEVICE_UNPLUG_GUEST_ERROR, MEM_UNPLUG_ERROR, ACPI_DEVICE_OST).
    """

    reset_at: float | None
    unplug_refusals: Mapping[str, tuple[float, str]]


NOTHING_HEARD = Heard(reset_at=None, unplug_refusals={})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptRun:
    """One run of a tap script: ``script`` is a bare name in the node's scripts directory.

    ``environment`` is exactly what the script sees (plus PATH): GUESTLET_TAP, GUESTLET_MAC, GUESTLET_GUEST,
    GUESTLET_EVENT.
    """

    script: str
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptOutcome:
    """How a script ended: exit code (``None``: timed out and killed) and the bounded end of its output."""

    code: int | None
    output: str

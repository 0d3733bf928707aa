"""The host record: what this node knows of one guest and must never forget, as one versioned value.

It is written durably before the effect it speaks of and read back by every later agent. It holds no secret and no
decision; it is extended, never recomputed. Reading and writing the bytes is the host's business.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from guestlet.api.codec import dump_value, load_value
from guestlet.errors import Broken
from guestlet.guest.record_versions import UPGRADERS
from guestlet.host.facts import ProcessIdentity
from guestlet.qemu.machine import Machine

RECORD_FILE = "record.json"
VERSION = 2


class StopCause(StrEnum):
    """Why we asked a QEMU to end; each is followed by the exit of that QEMU."""

    HALTED = "Halted"  # runStrategy said so; stays off
    RESTART = "Restart"  # restart.token changed; starts again at once
    DELETED = "Deleted"  # the object goes; the record follows
    SILENT = "Silent"  # its monitor never answered; counts as a crash


@dataclass(frozen=True, slots=True, kw_only=True)
class StopIntent:
    """A stop that was begun: ``since`` and ``grace_s`` decide when patience ends; ``pressed_at``: the last time the
    power button was pressed. Seconds since the epoch.
    """

    cause: StopCause
    since: float
    grace_s: float
    pressed_at: float
    token: str | None


class ExitReason(StrEnum):
    """How a QEMU ended, as status says it."""

    POWERED_OFF = "PoweredOff"  # the guest powered itself off
    STOPPED = "Stopped"  # we asked
    RESTARTED = "Restarted"  # we asked, to start again
    CRASHED = "Crashed"  # a signal, a failure code, or somebody on the node ended it
    SILENT = "QemuSilent"  # never opened its monitor and was killed
    LOST = "Lost"  # gone while nobody watched (node reboot, launcher killed)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastExit:
    """The last end of QEMU; ``at`` in seconds since the epoch, ``log_tail`` bounded to 2 KiB."""

    identity: ProcessIdentity | None
    reason: ExitReason
    code: int | None
    signal: int | None
    at: float
    log_tail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedImage:
    """An image that guestlet made for this guest: only such ones may ever be deleted, and none is made twice.

    ``doomed``: its disk said ``onDelete: Delete`` when QEMU was last given it.
    """

    disk: str
    pool: str
    image: str
    created_at: float
    doomed: bool


class PendingKind(StrEnum):
    """What a change of the running machine waits for."""

    PLUG = "Plug"  # its parts are made; a part that fails takes all of them away again
    UNPLUG = "Unplug"  # the guest is asked to let go; its parts are taken away once QEMU has let go of the device
    EXCHANGE = "Exchange"  # the medium of a drive: the old one out (``asked`` 0), then the new one in (``asked`` 1)
    RESIZE = "Resize"  # virtio-mem was asked; the guest takes or gives blocks as it can


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A change of the running machine that was begun. ``part``: the qdev id (``disk-data``, ``cpu-1``, ``memory``).

    ``asked``: how often the guest was asked, the last time ``asked_at`` (seconds since the epoch, 0: never).
    """

    part: str
    kind: PendingKind
    since: float
    asked: int
    asked_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Aliases:
    """Names that a QEMU which guestlet did not start has for what guestlet would call otherwise: ours → its.

    ``devices``: qdev ids, or QOM paths of devices without one; ``nodes``: node-names of disks; ``netdevs``: netdev ids.
    """

    devices: Mapping[str, str]
    nodes: Mapping[str, str]
    netdevs: Mapping[str, str]


NO_ALIASES = Aliases(devices={}, nodes={}, netdevs={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One life of QEMU, from before its launch: ``identity`` is ``None`` until it was started and found.

    ``foreign``: somebody else started it, and ``aliases`` says what it calls our parts.
    """

    identity: ProcessIdentity | None
    started_at: float
    resumed: bool
    argv: tuple[str, ...]
    qemu_version: str
    foreign: bool
    aliases: Aliases


def new_run(*, now: float, qemu_version: str) -> Run:
    """A life of QEMU that is about to begin."""
    return Run(
        identity=None,
        started_at=now,
        resumed=False,
        argv=(),
        qemu_version=qemu_version,
        foreign=False,
        aliases=NO_ALIASES,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything remembered of one guest. ``machine`` is the live description: what runs now, or ran last.

    ``source`` is the user's spec (JSON text) that ``machine`` was made from, live changes included; ``pending`` are
    changes of the running machine that were begun: what is being plugged is in ``machine`` already, what is being
    unplugged is still there. ``failures`` counts crashes in a row,
    ``ended`` says that a guest of strategy RerunOnFailure, Once or Manual has had its run. ``epoch`` is the highest
    placement epoch seen, ``given_away_epoch`` the one handed over (never resumed at or below it).
    """

    uuid: str
    object_uid: str
    namespace: str
    name: str
    epoch: int
    given_away_epoch: int | None
    generation: int
    source: str
    machine: Machine | None
    run: Run | None
    pending: tuple[Pending, ...]
    paused: bool
    stop: StopIntent | None
    restart_token: str | None
    strategy: str
    ended: bool
    restarts: int
    failures: int
    last_exit: LastExit | None
    created_images: tuple[CreatedImage, ...]


def dump_record(record: Record) -> bytes:
    """The record as the bytes of ``record.json``."""
    return json.dumps({"version": VERSION, "record": dump_value(record)}, sort_keys=True).encode()


def parse_record(data: bytes) -> Record:
    """The record in those bytes, upgraded from older versions.

    Raises:
        Broken: truncated, of a newer version, or not a record.
    """
    try:
        document = json.loads(data)
        version, body = int(document["version"]), document["record"]
        while version in UPGRADERS:
            body, version = UPGRADERS[version](body), version + 1
        if version != VERSION:
            raise Broken("RecordUnreadable", f"record.json has version {version}, this program reads up to {VERSION}")
        return load_value(Record, body)
    except (ValueError, KeyError, TypeError) as error:
        raise Broken("RecordUnreadable", f"record.json cannot be read: {error}") from error

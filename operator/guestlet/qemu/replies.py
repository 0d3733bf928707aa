"""QMP replies parsed at the edge: dictionaries come in, frozen values go out.

Any key that this module needs and does not find is a reply that guestlet cannot read: ``Broken``, never a guess.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from guestlet.api.reasons import Reason
from guestlet.errors import Broken
from guestlet.pci.observed import PciFunction

Reply = Mapping[str, Any]
Wire = Any  # a reply as it came over the wire: of no type until it was read


class RunState(StrEnum):
    """QEMU's run states (``qapi/run-state.json``); each says what it waits for."""

    DEBUG = "debug"  # a debugger
    INMIGRATE = "inmigrate"  # the incoming stream; never cont here: the guest would start when the stream ends
    INTERNAL_ERROR = "internal-error"  # a reset or the end
    IO_ERROR = "io-error"  # cont, once the disk answers again
    PAUSED = "paused"  # cont; a user's stop, or the end of an incoming stream
    POSTMIGRATE = "postmigrate"  # the end; cont here would run a guest that runs elsewhere
    PRELAUNCH = "prelaunch"  # cont; the guest has not run one instruction
    FINISH_MIGRATE = "finish-migrate"  # the end of the outgoing stream
    RESTORE_VM = "restore-vm"  # the end of loadvm
    RUNNING = "running"
    SAVE_VM = "save-vm"  # the end of savevm
    SHUTDOWN = "shutdown"  # quit or a reset: the guest powered off and -no-shutdown kept QEMU
    SUSPENDED = "suspended"  # a wake-up
    WATCHDOG = "watchdog"  # cont or a reset
    GUEST_PANICKED = "guest-panicked"  # a reset or the end
    COLO = "colo"  # the end of a failover


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """QEMU's own version."""

    major: int
    minor: int
    micro: int
    package: str

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.micro}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """``query-status``."""

    run_state: RunState
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualCpu:
    """One of ``query-cpus-fast``: the thread of the host that executes the virtual CPU."""

    index: int
    thread_id: int
    qom_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """One of ``query-block``: ``qdev`` is the device's id or QOM path, ``node`` what it reads (empty: no medium)."""

    qdev: str
    node: str
    read_only: bool
    io_status: str  # ok, failed or nospace


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectProperty:
    """One of ``qom-list``."""

    name: str
    type: str


def parse_status(reply: Any) -> Status:
    """``query-status``."""
    with reading("query-status"):
        return Status(run_state=RunState(reply["status"]), running=bool(reply["running"]))


def parse_version(reply: Any) -> Version:
    """``query-version``."""
    with reading("query-version"):
        qemu = reply["qemu"]
        return Version(
            major=int(qemu["major"]), minor=int(qemu["minor"]), micro=int(qemu["micro"]), package=str(reply["package"])
        )


def parse_name(reply: Any) -> str:
    """``query-name``: empty when QEMU was given none."""
    return str(reply.get("name", ""))


def parse_uuid(reply: Any) -> str:
    """``query-uuid``."""
    with reading("query-uuid"):
        return str(reply["UUID"])


def parse_cpus(reply: Any) -> tuple[VirtualCpu, ...]:
    """``query-cpus-fast``, by CPU index."""
    with reading("query-cpus-fast"):
        cpus = [
            VirtualCpu(index=int(each["cpu-index"]), thread_id=int(each["thread-id"]), qom_path=str(each["qom-path"]))
            for each in reply
        ]
        return tuple(sorted(cpus, key=lambda each: each.index))


def parse_block(reply: Any) -> tuple[BlockDevice, ...]:
    """``query-block``; only what says which device reads which node, and whether it stands still."""
    with reading("query-block"):
        return tuple(
            BlockDevice(
                qdev=str(each.get("qdev", "")),
                node=str(each.get("inserted", {}).get("node-name", "")),
                read_only=bool(each.get("inserted", {}).get("ro", False)),
                io_status=str(each.get("io-status", "ok")),
            )
            for each in reply
        )


def parse_pci(reply: Any) -> tuple[PciFunction, ...]:
    """``query-pci``: the functions of every root bus, each with those behind it."""
    with reading("query-pci"):
        return tuple(_function(each) for bus in reply for each in bus["devices"])


def _function(entry: Reply) -> PciFunction:
    bridge = entry.get("pci_bridge")
    return PciFunction(
        bus=int(entry["bus"]),
        slot=int(entry["slot"]),
        function=int(entry["function"]),
        vendor=int(entry["id"]["vendor"]),
        device=int(entry["id"]["device"]),
        device_class=int(entry["class_info"]["class"]),
        qdev_id=str(entry["qdev_id"]),
        secondary_bus=None if bridge is None else int(bridge["bus"]["secondary"]),
        subordinate_bus=None if bridge is None else int(bridge["bus"]["subordinate"]),
        behind=() if bridge is None else tuple(_function(each) for each in bridge.get("devices", ())),
    )


def parse_properties(reply: Any) -> tuple[ObjectProperty, ...]:
    """``qom-list``."""
    with reading("qom-list"):
        return tuple(ObjectProperty(name=str(each["name"]), type=str(each["type"])) for each in reply)


def parse_address(reply: Any) -> str:
    """``qom-get legacy-addr``: ``slot.function`` in hexadecimal."""
    with reading("qom-get legacy-addr"):
        if not isinstance(reply, str):
            raise TypeError(f"{reply!r} is not a string")
        slot, function = reply.split(".")
        return f"{int(slot, 16):02x}.{int(function, 16)}"


def parse_parent_bus(reply: object) -> str:
    """``qom-get parent_bus``: the bus's name, the last part of its QOM path (``/machine/peripheral/port-0/port-0``)."""
    with reading("qom-get parent_bus"):
        if not isinstance(reply, str):
            raise TypeError(f"{reply!r} is not a string")
        return reply.rpartition("/")[2]


@contextmanager
def reading(command: str) -> Iterator[None]:
    """What fails to be read inside is ``Broken`` (``HostFailure``) and names the command."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Broken(Reason.HOST_FAILURE, f"QEMU's reply to {command} cannot be read: {error!r}") from error

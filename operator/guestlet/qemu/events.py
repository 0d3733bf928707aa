"""QMP events parsed at the edge into values; one that guestlet does not know is ``Other``, never an error.

Events are hints to look again: they may be lost with a connection, so nothing may rest on having seen one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from guestlet.api.reasons import Reason
from guestlet.errors import Broken

EventData = Mapping[str, object]

_NOTHING: Final[EventData] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown:
    """QEMU is about to end: ``guest`` when the guest asked for it, ``reason`` in QEMU's words (``guest-shutdown``)."""

    at_s: float
    guest: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """The machine was reset: the guest's PCI numbering is unknown again."""

    at_s: float
    guest: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The virtual CPUs stand still; the run state says why."""

    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The virtual CPUs run."""

    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoweringDown:
    """The power button was pressed; the guest may not react."""

    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPanicked:
    """The guest's kernel told pvpanic of a panic; ``action`` is what QEMU did (``pause``)."""

    at_s: float
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogFired:
    """The guest's watchdog ran out; ``action`` is what QEMU did (``reset``, ``poweroff``, ``pause``, ``none``)."""

    at_s: float
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockIoError:
    """A disk request failed; ``action`` ``stop``: the guest stands still. ``no_space`` when the host's disk is full."""

    at_s: float
    device: str
    node: str
    operation: str
    action: str
    no_space: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDeleted:
    """The guest let go of a device: its address is free from now on. ``device`` is empty for one without an id."""

    at_s: float
    device: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUnplugRefused:
    """The guest refused to let go of a device (DEVICE_UNPLUG_GUEST_ERROR); ``device`` is empty without an id."""

    at_s: float
    device: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUnplugRefused:
    """The guest, or QEMU, would not take a memory module away (MEM_UNPLUG_ERROR), and why."""

    at_s: float
    device: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySizeChanged:
    """The guest took or gave back memory of a virtio-mem device; ``size_bytes`` is what it has of it now."""

    at_s: float
    device: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrayMoved:
    """A cdrom drive was opened or closed, by the guest or by command."""

    at_s: float
    device: str
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AcpiOst:
    """What the guest's ACPI said of a slot (ACPI_DEVICE_OST): ``slot_type`` CPU or DIMM, ``slot`` its number.

    ``device``: the qdev id of what is in the slot, empty when nothing with an id is.
    """

    at_s: float
    device: str
    slot: str
    slot_type: str
    source: int
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """An event that guestlet does nothing about."""

    at_s: float
    name: str


Event = (
    Shutdown
    | Reset
    | Stopped
    | Resumed
    | PoweringDown
    | GuestPanicked
    | WatchdogFired
    | BlockIoError
    | DeviceDeleted
    | DeviceUnplugRefused
    | MemoryUnplugRefused
    | MemorySizeChanged
    | TrayMoved
    | AcpiOst
    | Other
)

# ACPI 6.4, 6.3.5 _OST (Linux: include/linux/acpi.h, ACPI_OST_SC_*): source events, and an ejection's status codes.
_EJECTIONS = (0x03, 0x103)  # asked by the platform, begun by the guest's system itself
_DONE, _IN_PROGRESS = 0x00, 0x84
_EJECTION_STATUS = {
    0x01: "it failed, and the guest does not say why",
    0x02: "the guest does not know what it was asked",
    0x80: "the guest cannot let go of such a device",
    0x81: "a program of the guest uses it",
    0x82: "it is busy",
    0x83: "something that depends on it is busy or cannot go",
}


def ejection_refusal(event: AcpiOst) -> str | None:
    """Why the guest would not let go of the device in the slot, or ``None`` when the event is no such answer."""
    if event.source not in _EJECTIONS or event.status in (_DONE, _IN_PROGRESS):
        return None
    words = _EJECTION_STATUS.get(event.status, "ACPI has no word for it")
    return f"{words} (_OST status {event.status:#x})"


def parse_event(message: EventData) -> Event:
    """The event in a QMP message that has the key ``event``; ``at_s`` is QEMU's own stamp, seconds since 1970.

    Raises:
        Broken: ``HostFailure`` when the message is no event, or a known one without its data.
    """
    try:
        return _parse(str(message["event"]), _at_s(message), _mapping(message.get("data", _NOTHING)))
    except (KeyError, TypeError, ValueError) as error:
        raise Broken(Reason.HOST_FAILURE, f"QEMU's event cannot be read: {error!r}") from error


def _parse(name: str, at_s: float, data: EventData) -> Event:
    match name:
        case "SHUTDOWN":
            return Shutdown(at_s=at_s, guest=bool(data["guest"]), reason=str(data["reason"]))
        case "RESET":
            return Reset(at_s=at_s, guest=bool(data["guest"]), reason=str(data["reason"]))
        case "STOP":
            return Stopped(at_s=at_s)
        case "RESUME":
            return Resumed(at_s=at_s)
        case "POWERDOWN":
            return PoweringDown(at_s=at_s)
        case "DEVICE_DELETED":
            return DeviceDeleted(at_s=at_s, device=str(data.get("device", "")), path=str(data["path"]))
        case _:
            return _parse_hotplug(name, at_s, data)


def _parse_hotplug(name: str, at_s: float, data: EventData) -> Event:
    match name:
        case "DEVICE_UNPLUG_GUEST_ERROR":
            return DeviceUnplugRefused(at_s=at_s, device=str(data.get("device", "")), path=str(data["path"]))
        case "MEM_UNPLUG_ERROR":
            return MemoryUnplugRefused(at_s=at_s, device=str(data["device"]), message=str(data["msg"]))
        case "MEMORY_DEVICE_SIZE_CHANGE":
            return MemorySizeChanged(at_s=at_s, device=str(data.get("id", "")), size_bytes=_number(data["size"]))
        case "DEVICE_TRAY_MOVED":
            return TrayMoved(at_s=at_s, device=str(data["id"]), is_open=bool(data["tray-open"]))
        case "ACPI_DEVICE_OST":
            return _parse_ost(at_s, _mapping(data["info"]))
        case _:
            return _parse_trouble(name, at_s, data)


def _parse_ost(at_s: float, info: EventData) -> AcpiOst:
    return AcpiOst(
        at_s=at_s,
        device=str(info.get("device", "")),
        slot=str(info["slot"]),
        slot_type=str(info["slot-type"]),
        source=_number(info["source"]),
        status=_number(info["status"]),
    )


def _parse_trouble(name: str, at_s: float, data: EventData) -> Event:
    match name:
        case "GUEST_PANICKED":
            return GuestPanicked(at_s=at_s, action=str(data["action"]))
        case "WATCHDOG":
            return WatchdogFired(at_s=at_s, action=str(data["action"]))
        case "BLOCK_IO_ERROR":
            return BlockIoError(
                at_s=at_s,
                device=str(data.get("qom-path", data.get("device", ""))),
                node=str(data.get("node-name", "")),
                operation=str(data["operation"]),
                action=str(data["action"]),
                no_space=bool(data.get("nospace", False)),
                message=str(data["reason"]),
            )
        case _:
            return Other(at_s=at_s, name=name)


def _at_s(message: EventData) -> float:
    stamp = _mapping(message["timestamp"])
    seconds, microseconds = stamp["seconds"], stamp["microseconds"]
    if not isinstance(seconds, int) or not isinstance(microseconds, int):
        raise TypeError(f"{stamp!r} is not a time")
    return seconds + microseconds / 1_000_000


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is not a number")
    return value


def _mapping(value: object) -> EventData:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is not an object")
    return value

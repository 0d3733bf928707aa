"""QMP events become values."""

import pytest

from guestlet.errors import Broken
from guestlet.qemu.events import (
    AcpiOst,
    BlockIoError,
    DeviceDeleted,
    DeviceUnplugRefused,
    Event,
    GuestPanicked,
    MemorySizeChanged,
    MemoryUnplugRefused,
    Other,
    PoweringDown,
    Reset,
    Resumed,
    Shutdown,
    Stopped,
    TrayMoved,
    WatchdogFired,
    ejection_refusal,
    parse_event,
)

AT = {"seconds": 1_700_000_000, "microseconds": 250_000}
AT_S = 1_700_000_000.25


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        (
            "SHUTDOWN",
            {"guest": True, "reason": "guest-shutdown"},
            Shutdown(at_s=AT_S, guest=True, reason="guest-shutdown"),
        ),
        (
            "RESET",
            {"guest": False, "reason": "host-qmp-system-reset"},
            Reset(at_s=AT_S, guest=False, reason="host-qmp-system-reset"),
        ),
        ("STOP", None, Stopped(at_s=AT_S)),
        ("RESUME", None, Resumed(at_s=AT_S)),
        ("POWERDOWN", None, PoweringDown(at_s=AT_S)),
        ("GUEST_PANICKED", {"action": "pause"}, GuestPanicked(at_s=AT_S, action="pause")),
        ("WATCHDOG", {"action": "reset"}, WatchdogFired(at_s=AT_S, action="reset")),
        (
            "BLOCK_IO_ERROR",
            {
                "device": "",
                "qom-path": "/machine/peripheral/disk-root/virtio-backend",
                "node-name": "disk-root",
                "operation": "write",
                "action": "stop",
                "nospace": True,
                "reason": "No space left on device",
            },
            BlockIoError(
                at_s=AT_S,
                device="/machine/peripheral/disk-root/virtio-backend",
                node="disk-root",
                operation="write",
                action="stop",
                no_space=True,
                message="No space left on device",
            ),
        ),
        (
            "DEVICE_DELETED",
            {"device": "disk-root", "path": "/machine/peripheral/disk-root"},
            DeviceDeleted(at_s=AT_S, device="disk-root", path="/machine/peripheral/disk-root"),
        ),
        (
            "DEVICE_DELETED",
            {"path": "/machine/peripheral/disk-root/virtio-backend"},
            DeviceDeleted(at_s=AT_S, device="", path="/machine/peripheral/disk-root/virtio-backend"),
        ),
        (
            "DEVICE_UNPLUG_GUEST_ERROR",
            {"device": "disk-root", "path": "/machine/peripheral/disk-root"},
            DeviceUnplugRefused(at_s=AT_S, device="disk-root", path="/machine/peripheral/disk-root"),
        ),
        (
            "MEM_UNPLUG_ERROR",
            {"device": "dimm-0", "msg": "acpi: device unplug request for unsupported device"},
            MemoryUnplugRefused(
                at_s=AT_S, device="dimm-0", message="acpi: device unplug request for unsupported device"
            ),
        ),
        (
            "MEMORY_DEVICE_SIZE_CHANGE",
            {"id": "memory", "size": 134217728, "qom-path": "/machine/peripheral/memory"},
            MemorySizeChanged(at_s=AT_S, device="memory", size_bytes=134217728),
        ),
        (
            "DEVICE_TRAY_MOVED",
            {"device": "", "tray-open": True, "id": "disk-cd"},
            TrayMoved(at_s=AT_S, device="disk-cd", is_open=True),
        ),
        (
            "ACPI_DEVICE_OST",
            {"info": {"device": "dimm-0", "source": 3, "status": 132, "slot": "0", "slot-type": "DIMM"}},
            AcpiOst(at_s=AT_S, device="dimm-0", slot="0", slot_type="DIMM", source=3, status=132),
        ),
        (
            "ACPI_DEVICE_OST",
            {"info": {"source": 3, "status": 0, "slot": "2", "slot-type": "CPU"}},
            AcpiOst(at_s=AT_S, device="", slot="2", slot_type="CPU", source=3, status=0),
        ),
        ("RTC_CHANGE", {"offset": 78}, Other(at_s=AT_S, name="RTC_CHANGE")),
    ],
)
def test_an_event_is_read_with_qemus_own_time(name: str, data: dict[str, object] | None, expected: Event) -> None:
    message: dict[str, object] = {"event": name, "timestamp": AT}
    if data is not None:
        message["data"] = data

    assert parse_event(message) == expected


@pytest.mark.parametrize(
    "message",
    [
        {"timestamp": AT},
        {"event": "STOP"},
        {"event": "STOP", "timestamp": {"seconds": "1", "microseconds": 0}},
        {"event": "SHUTDOWN", "timestamp": AT},
        {"event": "SHUTDOWN", "timestamp": AT, "data": 5},
        {"event": "ACPI_DEVICE_OST", "timestamp": AT, "data": {"info": 5}},
        {"event": "MEMORY_DEVICE_SIZE_CHANGE", "timestamp": AT, "data": {"size": "5"}},
    ],
)
def test_an_event_without_what_it_must_have_is_broken(message: dict[str, object]) -> None:
    with pytest.raises(Broken, match="cannot be read"):
        parse_event(message)


def ost(source: int, status: int) -> AcpiOst:
    return AcpiOst(at_s=AT_S, device="dimm-0", slot="0", slot_type="DIMM", source=source, status=status)


@pytest.mark.parametrize(
    ("source", "status"),
    [
        (1, 0),  # what was plugged is taken
        (1, 0x81),  # it is not: no answer to an ejection
        (3, 0x84),  # on its way
        (3, 0),  # gone
        (0x103, 0),
    ],
)
def test_other_words_of_acpi_are_no_refusal(source: int, status: int) -> None:
    assert ejection_refusal(ost(source, status)) is None


@pytest.mark.parametrize(
    ("source", "status", "words"),
    [
        (3, 0x01, "it failed, and the guest does not say why (_OST status 0x1)"),
        (3, 0x82, "it is busy (_OST status 0x82)"),
        (0x103, 0x81, "a program of the guest uses it (_OST status 0x81)"),
        (3, 0x99, "ACPI has no word for it (_OST status 0x99)"),
    ],
)
def test_a_refused_ejection_is_told_in_words(source: int, status: int, words: str) -> None:
    assert ejection_refusal(ost(source, status)) == words

"""QMP events become values."""

import pytest

from guestlet.errors import Broken
from guestlet.qemu.events import (
    BlockIoError,
    DeviceDeleted,
    Event,
    GuestPanicked,
    Other,
    PoweringDown,
    Reset,
    Resumed,
    Shutdown,
    Stopped,
    WatchdogFired,
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
    ],
)
def test_an_event_without_what_it_must_have_is_broken(message: dict[str, object]) -> None:
    with pytest.raises(Broken, match="cannot be read"):
        parse_event(message)

from guestlet.host.facts import NOTHING_HEARD
from guestlet.host.hearing import Hearing
from guestlet.qemu.commands import Command
from guestlet.qemu.events import (
    AcpiOst,
    DeviceDeleted,
    DeviceUnplugRefused,
    MemoryUnplugRefused,
    Reset,
    Shutdown,
)

GUEST, OTHER = "guest", "other"


def refused(device: str, at_s: float = 1.0) -> DeviceUnplugRefused:
    return DeviceUnplugRefused(at_s=at_s, device=device, path=f"/machine/peripheral/{device}")


def ejection(status: int, *, device: str = "dimm-0") -> AcpiOst:
    return AcpiOst(at_s=3.0, device=device, slot="0", slot_type="DIMM", source=3, status=status)


def plug(device: str) -> Command:
    return Command(name="device_add", arguments={"driver": "virtio-blk-pci", "id": device})


def refusals(hearing: Hearing) -> dict[str, tuple[float, str]]:
    return dict(hearing.heard(GUEST).unplug_refusals)


def test_of_a_silent_guest_nothing_is_heard() -> None:
    assert Hearing().heard(GUEST) == NOTHING_HEARD


def test_each_way_to_refuse_is_heard_with_its_time_and_reason() -> None:
    hearing = Hearing()
    hearing.take(GUEST, refused("disk-data"))
    hearing.take(GUEST, MemoryUnplugRefused(at_s=2.0, device="memory", message="memory in use"))
    hearing.take(GUEST, ejection(0x82))
    hearing.take(OTHER, refused("nic-lan"))

    assert {name: at_s for name, (at_s, _) in refusals(hearing).items()} == {"disk-data": 1, "memory": 2, "dimm-0": 3}
    assert refusals(hearing)["memory"][1] == "memory in use"
    assert "busy" in refusals(hearing)["dimm-0"][1]


def test_the_last_refusal_of_a_device_counts() -> None:
    hearing = Hearing()
    hearing.take(GUEST, refused("disk-data", 1.0))
    hearing.take(GUEST, refused("disk-data", 5.0))

    assert refusals(hearing)["disk-data"][0] == 5.0


def test_an_ejection_under_way_or_done_is_no_refusal() -> None:
    hearing = Hearing()
    for status in (0x00, 0x84):
        hearing.take(GUEST, ejection(status))
    hearing.take(GUEST, ejection(0x82, device=""))

    assert refusals(hearing) == {}


def test_a_device_without_an_id_goes_by_its_path() -> None:
    hearing = Hearing()
    hearing.take(GUEST, DeviceUnplugRefused(at_s=1.0, device="", path="/machine/peripheral-anon/device[0]"))
    assert list(refusals(hearing)) == ["/machine/peripheral-anon/device[0]"]

    hearing.take(GUEST, DeviceDeleted(at_s=2.0, device="", path="/machine/peripheral-anon/device[0]"))
    assert refusals(hearing) == {}


def test_a_device_that_is_gone_or_plugged_anew_has_refused_nothing() -> None:
    hearing = Hearing()
    for device in ("disk-a", "disk-b", "disk-c"):
        hearing.take(GUEST, refused(device))

    hearing.take(GUEST, DeviceDeleted(at_s=2.0, device="disk-a", path="/machine/peripheral/disk-a"))
    hearing.sent(GUEST, plug("disk-b"))
    hearing.sent(GUEST, Command(name="device_del", arguments={"id": "disk-c"}))

    assert list(refusals(hearing)) == ["disk-c"]


def test_a_reset_is_told_and_undoes_every_refusal() -> None:
    hearing = Hearing()
    hearing.take(GUEST, refused("disk-a"))
    hearing.take(GUEST, Reset(at_s=9.0, guest=True, reason="guest-reset"))

    assert hearing.heard(GUEST).reset_at == 9.0
    assert refusals(hearing) == {}


def test_a_new_qemu_has_said_nothing_but_why_the_last_one_went_is_kept_until_then() -> None:
    hearing = Hearing()
    hearing.take(GUEST, refused("disk-a"))
    hearing.take(GUEST, Shutdown(at_s=1.0, guest=True, reason="guest-shutdown"))

    hearing.ended(GUEST)
    assert hearing.heard(GUEST) == NOTHING_HEARD
    assert hearing.farewell(GUEST) == "guest-shutdown"

    hearing.forget(GUEST)
    assert hearing.farewell(GUEST) is None


def test_a_guest_that_refuses_without_end_fills_no_memory() -> None:
    hearing = Hearing()
    for number in range(1000):
        hearing.take(GUEST, refused(f"disk-{number}"))

    assert len(refusals(hearing)) <= 256

"""The guest's numbering of machines that somebody else put together."""

from guestlet.pci.observed import PciFunction, gone_anonymous, guest_addresses
from unit.pci.foreign import BRIDGE, EXPANDER, PORT, found, maker, placed, stranger


def function(
    bus: int,
    slot: int,
    name: str = "",
    *,
    buses: tuple[int, int] | None = None,
    behind: tuple[PciFunction, ...] = (),
) -> PciFunction:
    return PciFunction(
        bus=bus,
        slot=slot,
        function=0,
        vendor=0x1234,
        device=0x1111,
        device_class=0x0604 if buses else 0x0300,
        qdev_id=name,
        secondary_bus=buses[0] if buses else None,
        subordinate_bus=buses[1] if buses else None,
        behind=behind,
    )


ROOT = found(
    maker("rp", PORT, "pcie.0:02.0", 1),
    devices=(placed("root", "rp:00.0"), placed("data", "pcie.0:05.0")),
    anonymous=(stranger("pcie.0:01.0", "video0"), stranger("pcie.0:09.0")),
)
VIDEO, SOUND = function(0, 1, "video0"), function(0, 9)


def test_a_device_is_found_by_the_name_that_its_qemu_has_for_it() -> None:
    listed = (
        VIDEO,
        SOUND,
        function(0, 5, "drive1"),
        function(0, 2, "rp", buses=(3, 3), behind=(function(3, 0, "d0"),)),
    )

    numbered = guest_addresses(ROOT, listed, aliases={"disk-root": "d0", "disk-data": "drive1"})

    assert numbered is not None
    assert {name: each.guest_address for name, each in numbered.seen.items()} == {
        "rp": "0000:00:02.0",
        "disk-root": "0000:03:00.0",
        "disk-data": "0000:00:05.0",
    }
    assert (numbered.missing, numbered.strangers) == ((), ())


def test_what_has_no_name_is_found_by_its_place_bridges_too() -> None:
    listed = (VIDEO, SOUND, function(0, 5), function(0, 2, buses=(3, 3), behind=(function(3, 0),)))

    numbered = guest_addresses(ROOT, listed)

    assert numbered is not None
    assert numbered.seen["disk-root"].guest_address == "0000:03:00.0"
    assert (numbered.missing, numbered.strangers) == ((), ())


def test_a_nameless_device_behind_a_bridge_without_a_number_is_not_missed() -> None:
    blind = (VIDEO, SOUND, function(0, 5), function(0, 2, buses=(0, 0)))

    assert guest_addresses(ROOT, blind) is None
    assert gone_anonymous(ROOT, blind[1:]) == ()


def test_another_device_at_the_place_of_ours_is_not_ours() -> None:
    listed = (VIDEO, SOUND, function(0, 5, "mystery"), function(0, 2, "rp", buses=(3, 3), behind=(function(3, 0),)))

    numbered = guest_addresses(ROOT, listed)

    assert numbered is not None
    assert numbered.missing == ("disk-data",)
    assert numbered.strangers == ("mystery",)


def test_an_anonymous_device_is_gone_when_nothing_is_at_its_place() -> None:
    listed = (VIDEO, function(0, 5), function(0, 2, "rp", buses=(3, 3), behind=(function(3, 0),)))

    assert [str(each) for each in gone_anonymous(ROOT, listed)] == ["pcie.0:09.0"]


def test_bridges_are_followed_to_any_depth_in_whatever_order_they_were_written_down() -> None:
    layout = found(
        maker("inner", BRIDGE, "middle:02.0", 3),
        maker("middle", BRIDGE, "outer:01.0", 2),
        maker("outer", BRIDGE, "pcie.0:04.0", 1),
        devices=(placed("a", "inner:05.0"),),
    )
    inner = function(5, 2, buses=(6, 6), behind=(function(6, 5),))
    middle = function(4, 1, "middle", buses=(5, 6), behind=(inner,))

    numbered = guest_addresses(layout, (function(0, 4, "outer", buses=(4, 6), behind=(middle,)),))

    assert numbered is not None
    assert numbered.seen["disk-a"].guest_address == "0000:06:05.0"


def test_what_is_behind_an_expander_has_the_number_that_the_expander_was_given() -> None:
    layout = found(
        maker("pxb", EXPANDER, "pcie.0:06.0", 128),
        maker("rp", PORT, "pxb:00.0", 1),
        devices=(placed("a", "rp:00.0"), placed("b", "pxb:05.0")),
    )
    port = function(128, 0, "rp", buses=(129, 129), behind=(function(129, 0),))

    numbered = guest_addresses(layout, (port, function(128, 5), function(0, 6, "pxb")))

    assert numbered is not None
    assert numbered.seen["disk-a"].guest_address == "0000:81:00.0"
    assert numbered.seen["disk-b"].guest_address == "0000:80:05.0"
    assert numbered.missing == ()


def test_an_anonymous_device_on_a_bus_that_nobody_recorded_is_neither_there_nor_in_the_way() -> None:
    layout = found(anonymous=(stranger("lost:03.0", "x"),))

    numbered = guest_addresses(layout, (function(0, 3, "x"),))

    assert numbered is not None
    assert numbered.strangers == ()

"""Cold starts of adopted guests: what was found stays, and more room is made beside it."""

from dataclasses import replace

import pytest

from guestlet.errors import Refused
from guestlet.pci.address import parse_address
from guestlet.pci.controllers import Controller, ControllerKind, Family, parents_first
from guestlet.pci.layout import DeviceBus, Layout, Placed, Request, hotplug_ports_free, place
from guestlet.pci.venues import occupied
from unit.pci.foreign import (
    BRIDGE,
    EVERYTHING,
    EXPRESS_BRIDGE,
    LIBVIRT_LIKE,
    PLAIN_PC,
    PLAIN_Q35,
    PORT,
    found,
    maker,
    placed,
    stranger,
)
from unit.pci.requests import addresses, controllers, disk, nic, q35


def cold(previous: Layout, *requests: Request, spares: int = 0) -> Layout:
    kept = tuple(asks_again(each) for each in previous.devices)
    return place(
        family=previous.family,
        device_bus=previous.device_bus,
        hotplug_ports=spares,
        requests=(*kept, *requests),
        previous=previous,
    )


def asks_again(device: Placed) -> Request:
    return Request(id=device.id, name=device.name, kind=device.kind, conventional=False, explicit=None)


def test_a_guest_without_root_ports_gets_them_beside_what_it_has() -> None:
    layout = cold(PLAIN_Q35, disk("a"), spares=2)

    assert addresses(layout) == {"disk-hda": "pcie.0:02.0", "disk-a": "port-0:00.0"}
    assert controllers(layout) == {"port-0": "pcie.0:03.0", "port-1": "pcie.0:03.1", "port-2": "pcie.0:03.2"}
    assert layout.anonymous == PLAIN_Q35.anonymous


def test_a_conventional_device_of_a_guest_without_bridges_gets_both_of_them_in_free_slots() -> None:
    layout = cold(PLAIN_Q35, nic("old", conventional=True))

    assert addresses(layout)["nic-old"] == "bridge-0:01.0"
    assert controllers(layout) == {"pcie-bridge": "pcie.0:1e.0", "bridge-0": "pcie-bridge:01.0"}


def test_the_slots_of_a_lone_express_bridge_are_used_before_one_is_added_behind_it() -> None:
    lone = found(maker("pci.9", EXPRESS_BRIDGE, "pcie.0:07.0"), device_bus=DeviceBus.PCI_BRIDGE)

    assert hotplug_ports_free(lone) == (23, 23)
    assert addresses(cold(lone, disk("a"))) == {"disk-a": "pci.9:09.0"}
    grown = cold(lone, *(disk(f"d{index}") for index in range(24)))
    assert controllers(grown) == {"pci.9": "pcie.0:07.0", "bridge-0": "pci.9:01.0"}
    assert len(grown.devices) == 24


def test_new_controllers_have_names_and_numbers_that_nobody_has() -> None:
    layout = found(
        maker("port-1", PORT, "pcie.0:02.0", 1),
        maker("rp", PORT, "pcie.0:02.1", 3),
        anonymous=(stranger("pcie.0:09.0", "port-0"),),
        device_bus=DeviceBus.ROOT_PORT,
    )

    grown = cold(layout, spares=4)

    assert [(each.id, each.index) for each in grown.controllers[2:]] == [("port-2", 2), ("port-3", 4)]


def test_root_ports_are_never_packed_beside_another_kind() -> None:
    layout = found(maker("rp", PORT, "pcie.0:02.0", 1), maker("x", EXPRESS_BRIDGE, "pcie.0:03.0"))

    grown = cold(layout, spares=9)

    assert [str(each.address) for each in grown.controllers[2:]] == [
        *(f"pcie.0:04.{function}" for function in range(8)),
    ]


def test_new_root_ports_come_behind_those_whose_buses_are_numbered() -> None:
    layout = found(maker("rp1", PORT, "pcie.0:05.0", 1), maker("rp2", PORT, "pcie.0:06.0", 2))

    grown = cold(layout, spares=4)

    assert [str(each.address) for each in grown.controllers[2:]] == ["pcie.0:06.1", "pcie.0:06.2"]


@pytest.mark.parametrize("layout", [LIBVIRT_LIKE, EVERYTHING, PLAIN_PC, PLAIN_Q35])
@pytest.mark.parametrize("device_bus", tuple(DeviceBus))
def test_thirty_disks_and_eight_networks_have_room_beside_what_was_found(layout: Layout, device_bus: DeviceBus) -> None:
    before = replace(layout, device_bus=device_bus)
    requests = (
        *(disk(f"d{index}") for index in range(30)),
        *(nic(f"n{index}", conventional=index % 2 == 0) for index in range(8)),
    )

    after = cold(before, *requests, spares=32)

    assert after.controllers[: len(before.controllers)] == before.controllers
    assert after.devices[: len(before.devices)] == before.devices
    places = occupied(after)
    assert len(places) == len(set(places))
    assert hotplug_ports_free(after)[1] >= 32


def test_an_address_of_what_nobody_knows_is_taken() -> None:
    with pytest.raises(Refused, match=r"disks\[a\]\.pciAddress pcie\.0:01\.0: a device that guestlet does not know"):
        cold(PLAIN_Q35, disk("a", "pcie.0:01.0"))


def test_a_device_below_an_upstream_port_is_refused_and_one_on_an_expander_is_not() -> None:
    with pytest.raises(Refused, match="only downstream ports can be below the upstream port up"):
        cold(EVERYTHING, disk("a", "up:04.0"))
    assert addresses(cold(EVERYTHING, disk("a", "pxb:04.0"))) == {"disk-a": "pxb:04.0"}


def test_a_kept_address_that_would_be_refused_today_stays() -> None:
    layout = found(
        maker("pci.1", BRIDGE, "pci.0:05.0", 1),
        family=Family.PC,
        devices=(placed("a", "pci.1:00.0"), placed("b", "pci.0:06.0"), placed("c", "pci.0:06.1")),
    )
    asked = (disk("a", "pci.1:00.0"), disk("b"), disk("c"))

    after = place(family=Family.PC, device_bus=DeviceBus.ROOT_PORT, hotplug_ports=0, requests=asked, previous=layout)

    assert after == layout


def test_a_bridge_is_made_on_a_full_pc_even_when_its_own_slots_are_taken() -> None:
    layout = found(
        family=Family.PC, devices=tuple(placed(f"x{slot:x}", f"pci.0:{slot:02x}.0") for slot in range(0x1C, 0x20))
    )

    grown = cold(layout, *(disk(f"d{index}") for index in range(30)))

    assert controllers(grown) == {"bridge-0": "pci.0:1b.0"}
    assert len({each.address for each in grown.devices}) == 34


def test_controllers_come_after_the_one_that_makes_their_bus() -> None:
    inner, outer = maker("inner", BRIDGE, "outer:01.0"), maker("outer", BRIDGE, "pci.0:05.0")
    ring = (maker("a", BRIDGE, "b:01.0"), maker("b", BRIDGE, "a:01.0"))

    assert parents_first((inner, outer)) == (outer, inner)
    assert parents_first(EVERYTHING.controllers) == EVERYTHING.controllers
    assert parents_first(ring) == ring


def test_a_machine_of_ours_gets_no_second_bridge_to_conventional_pci() -> None:
    requests = tuple(nic(f"n{index}", conventional=True) for index in range(249))

    with pytest.raises(Refused, match="at most 248"):
        q35(*requests)
    assert [each.kind for each in q35(*requests[1:]).controllers].count(ControllerKind.PCIE_PCI_BRIDGE) == 1


def test_a_machine_that_has_every_chassis_number_gets_no_more_ports() -> None:
    ports = tuple(
        Controller(id=f"p{index}", kind=PORT, address=parse_address(f"x{index // 32}:{index % 32:02x}.0"), index=index)
        for index in range(1, 256)
    )

    with pytest.raises(Refused, match="free root ports are needed"):
        cold(found(*ports), spares=256)

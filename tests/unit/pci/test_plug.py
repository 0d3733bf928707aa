"""Devices that come to and go from a running machine's layout."""

from dataclasses import replace

import pytest

from guestlet.errors import Refused
from guestlet.pci.address import parse_address
from guestlet.pci.layout import (
    DeviceBus,
    DeviceKind,
    Family,
    Layout,
    Request,
    can_hotplug,
    hotplug_ports_free,
    place,
    plug,
    unplug,
)
from unit.pci.foreign import EVERYTHING, LIBVIRT_LIKE, PLAIN_PC, PLAIN_Q35, stranger
from unit.pci.requests import addresses, disk, nic, pc, q35, q35_bridged, request

TAKEN, REFUSED, EXHAUSTED = "PciAddressTaken", "PciAddressRefused", "PciExhausted"


def test_a_plugged_disk_takes_the_first_free_root_port_and_no_controller_is_added() -> None:
    before = q35(disk("root"), spares=2)

    after = plug(before, disk("data"))

    assert addresses(after) == {"disk-root": "port-0:00.0", "disk-data": "port-1:00.0"}
    assert after.controllers == before.controllers
    assert hotplug_ports_free(after) == (3, 1)


def test_a_conventional_device_takes_a_slot_of_the_bridge() -> None:
    assert addresses(plug(q35(spares=1), nic("old", conventional=True))) == {"nic-old": "bridge-0:01.0"}


def test_each_kind_goes_where_a_cold_start_would_put_it() -> None:
    assert addresses(plug(q35_bridged(disk("a"), spares=1), disk("b")))["disk-b"] == "bridge-0:02.0"
    assert addresses(plug(pc(disk("a")), disk("b")))["disk-b"] == "pci.0:03.0"
    assert addresses(plug(q35(spares=1), request("memory", DeviceKind.MEMORY))) == {"memory": "port-0:00.0"}


def test_an_address_used_before_is_given_last_and_the_one_freed_first_before_the_others() -> None:
    layout = q35(disk("a"), disk("b"), spares=1)
    layout = unplug(unplug(layout, "disk-b"), "disk-a")
    assert [str(each) for each in layout.freed] == ["port-1:00.0", "port-0:00.0"]

    for name, port in (("c", "port-2"), ("d", "port-1"), ("e", "port-0")):
        layout = plug(layout, disk(name))
        assert addresses(layout)[f"disk-{name}"] == f"{port}:00.0"
    assert layout.freed == ()


def test_a_device_that_is_there_keeps_its_place_and_one_that_is_not_there_cannot_go() -> None:
    layout = q35(disk("a"), spares=1)

    assert plug(layout, disk("a")) == layout
    assert unplug(layout, "disk-z") == layout


def test_a_plugged_device_has_the_same_address_after_a_cold_start() -> None:
    layout = plug(plug(q35(disk("root"), spares=2), disk("data")), nic("lan"))

    assert addresses(q35(nic("lan"), disk("data"), disk("root"), spares=2, previous=layout)) == addresses(layout)


def test_a_chosen_address_is_honoured() -> None:
    assert addresses(plug(q35(spares=3), disk("a", "port-2:00.0"))) == {"disk-a": "port-2:00.0"}
    assert addresses(plug(pc(), disk("a", "pci.0:1c.0"))) == {"disk-a": "pci.0:1c.0"}
    assert addresses(plug(q35(), disk("a", "pcie-bridge:09.0"))) == {"disk-a": "pcie-bridge:09.0"}


@pytest.mark.parametrize(
    ("wanted", "reason", "words"),
    [
        (disk("a", "pcie.0:05.0"), REFUSED, "pcie.0 takes devices only at a cold start"),
        (disk("a", "pcie.0:00.0"), REFUSED, "the slot belongs to the host bridge"),
        (disk("a", "pcie.0:01.0"), TAKEN, "the controller pcie-bridge has the slot"),
        (disk("a", "port-9:00.0"), REFUSED, "there is no bus port-9"),
        (disk("a", "port-1:01.0"), REFUSED, "the root port port-1 has slot 00 only"),
        (disk("a", "port-0:00.0"), TAKEN, "disk-root has it"),
        (disk("a", "port-1:00.1"), REFUSED, "at function 0 of a free slot only; stop the guest first"),
        (disk("a", "bridge-0:00.0"), REFUSED, "slot 00 of the bridge bridge-0 cannot be used"),
        (nic("a", "port-1:00.0", conventional=True), REFUSED, "a conventional PCI device cannot be below"),
        (disk("a", "bridge-0:09.0"), TAKEN, "video0 has it"),
    ],
)
def test_an_address_that_cannot_be_had_while_the_guest_runs_is_refused(
    wanted: Request, reason: str, words: str
) -> None:
    running = replace(q35(disk("root"), spares=1), anonymous=(stranger("bridge-0:09.0", "video0"),))

    with pytest.raises(Refused) as refusal:
        plug(running, wanted)

    assert refusal.value.reason == reason
    assert words in refusal.value.message
    field = "disks[a].pciAddress" if wanted.kind is DeviceKind.DISK else "networks[a].pciAddress"
    assert refusal.value.message.startswith(f"{field} {wanted.explicit}: ")


@pytest.mark.parametrize(
    ("running", "wanted", "words"),
    [
        (q35(disk("root")), disk("a"), "all 1 hotplug places are in use (root ports): raise spec.pci.hotplugPorts"),
        (q35(), disk("a"), "the running machine has no root ports for it: raise spec.pci.hotplugPorts and restart"),
        (PLAIN_Q35, nic("a", conventional=True), "has no bridge slots for it: restart the guest, or remove a device"),
    ],
)
def test_a_full_machine_says_how_to_get_room(running: Layout, wanted: Request, words: str) -> None:
    with pytest.raises(Refused) as refusal:
        plug(running, wanted)

    assert refusal.value.reason == EXHAUSTED
    assert words in refusal.value.message


@pytest.mark.parametrize(
    ("layout", "address", "can"),
    [
        (q35(spares=1), "port-0:00.0", True),
        (q35(spares=1), "port-0:00.1", False),
        (q35(), "pcie.0:05.0", False),
        (q35(), "bridge-0:05.0", True),
        (q35(), "pcie-bridge:05.0", True),
        (q35(), "nowhere:05.0", False),
        (pc(), "pci.0:05.0", True),
        (pc(), "pci.0:01.0", False),
        (EVERYTHING, "ioh:00.0", True),
        (EVERYTHING, "nest:05.0", True),
        (EVERYTHING, "dmi:05.0", True),
        (EVERYTHING, "down1:00.0", True),
        (EVERYTHING, "up:04.0", False),
        (EVERYTHING, "pxb:05.0", False),
        (EVERYTHING, "prp:00.0", True),
    ],
)
def test_what_can_be_hotplugged_is_what_qemu_was_measured_to_do(layout: Layout, address: str, can: bool) -> None:
    assert can_hotplug(layout, parse_address(address)) is can


def test_a_device_among_other_functions_of_its_slot_cannot_go_while_the_guest_runs() -> None:
    layout = pc(disk("a", "pci.0:05.0"), disk("b", "pci.0:05.1"), disk("c"))

    assert [can_hotplug(layout, each.address) for each in layout.devices] == [False, False, True]


def test_what_nobody_knows_takes_its_place() -> None:
    layout = replace(q35(spares=2), anonymous=(stranger("port-0:00.0"),))

    assert hotplug_ports_free(layout) == (2, 1)
    assert addresses(plug(layout, disk("a"))) == {"disk-a": "port-1:00.0"}


def test_adopted_guests_take_devices_where_they_have_room() -> None:
    assert hotplug_ports_free(LIBVIRT_LIKE) == (14, 12)
    assert addresses(plug(LIBVIRT_LIKE, disk("a")))["disk-a"] == "pci.1:00.0"
    assert addresses(plug(PLAIN_PC, disk("a")))["disk-a"] == "pci.0:03.0"
    assert hotplug_ports_free(EVERYTHING) == (4, 4)
    assert addresses(plug(EVERYTHING, disk("a")))["disk-a"] == "ioh:00.0"
    assert addresses(plug(EVERYTHING, nic("a", conventional=True)))["nic-a"] == "dmib:01.0"


def test_buses_that_cannot_be_named_to_qemu_are_left_out() -> None:
    layout = q35(spares=2)

    assert addresses(plug(layout, disk("a"), closed=frozenset({"port-0"}))) == {"disk-a": "port-1:00.0"}
    with pytest.raises(Refused, match="nothing can be plugged into port-0 before the next start"):
        plug(layout, disk("a", "port-0:00.0"), closed=frozenset({"port-0"}))


@pytest.mark.parametrize("family", tuple(Family))
@pytest.mark.parametrize("device_bus", tuple(DeviceBus))
def test_thirty_disks_and_eight_networks_can_come_while_the_guest_runs_and_stay(
    family: Family, device_bus: DeviceBus
) -> None:
    requests = (*(disk(f"d{index}") for index in range(30)), *(nic(f"n{index}") for index in range(8)))
    layout = place(family=family, device_bus=device_bus, hotplug_ports=32, requests=requests[:6], previous=None)

    for each in requests[6:]:
        layout = plug(layout, each)

    assert len(layout.devices) == 38
    again = place(family=family, device_bus=device_bus, hotplug_ports=0, requests=requests[::-1], previous=layout)
    assert addresses(again) == addresses(layout)

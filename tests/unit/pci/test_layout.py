"""Where devices are placed, and what is refused."""

import pytest

from guestlet.errors import Refused
from guestlet.pci.layout import DeviceBus, DeviceKind, Family, Layout, Request, hotplug_ports_free, place, unplug
from unit.pci.requests import addresses, controllers, disk, nic, pc, q35, q35_bridged, request

RNG = request("rng", DeviceKind.RNG)
SCSI = request("scsi", DeviceKind.SCSI)
SATA = request("sata", DeviceKind.SATA, conventional=True)
WATCHDOG = request("watchdog", DeviceKind.WATCHDOG, conventional=True)
THIRTY_DISKS = tuple(disk(f"d{index}") for index in range(30))
EIGHT_NICS = tuple(nic(f"n{index}") for index in range(8))


def test_on_q35_every_express_device_has_a_root_port_of_its_own_and_the_spares_follow() -> None:
    layout = q35(disk("root"), nic("lan"), SCSI, RNG, spares=2)

    assert addresses(layout) == {
        "disk-root": "port-0:00.0",
        "nic-lan": "port-1:00.0",
        "scsi": "port-2:00.0",
        "rng": "port-3:00.0",
    }
    assert hotplug_ports_free(layout) == (6, 2)


def test_root_ports_are_packed_eight_to_a_slot_from_slot_two() -> None:
    layout = q35(spares=9)

    assert controllers(layout) == {
        "pcie-bridge": "pcie.0:01.0",
        "bridge-0": "pcie-bridge:01.0",
        **{f"port-{index}": f"pcie.0:02.{index}" for index in range(8)},
        "port-8": "pcie.0:03.0",
    }


def test_conventional_devices_go_behind_the_bridge() -> None:
    layout = q35(nic("old", conventional=True), WATCHDOG)

    assert addresses(layout) == {"nic-old": "bridge-0:01.0", "watchdog": "bridge-0:02.0"}


def test_with_pci_bridge_disks_and_networks_go_there_and_the_rest_stays_on_root_ports() -> None:
    layout = q35_bridged(disk("root"), nic("lan"), RNG, spares=4)

    assert addresses(layout) == {"disk-root": "bridge-0:01.0", "nic-lan": "bridge-0:02.0", "rng": "port-0:00.0"}
    assert hotplug_ports_free(layout) == (31, 29)


def test_the_chipsets_own_ahci_is_recorded_where_the_chipset_has_it() -> None:
    assert addresses(q35(SATA)) == {"sata": "pcie.0:1f.2"}
    assert addresses(pc(SATA)) == {"sata": "pci.0:02.0"}


def test_a_second_ahci_of_q35_goes_behind_the_bridge() -> None:
    second = request("sata-1", DeviceKind.SATA, conventional=True)

    assert addresses(q35(SATA, second)) == {"sata": "pcie.0:1f.2", "sata-1": "bridge-0:01.0"}


def test_on_pc_devices_fill_the_bus_then_a_bridge() -> None:
    layout = pc(*THIRTY_DISKS)

    assert addresses(layout)["disk-d0"] == "pci.0:02.0"
    assert addresses(layout)["disk-d25"] == "pci.0:1b.0"
    assert addresses(layout)["disk-d26"] == "bridge-0:01.0"
    assert controllers(layout) == {"bridge-0": "pci.0:1c.0"}


@pytest.mark.parametrize("family", tuple(Family))
@pytest.mark.parametrize("device_bus", tuple(DeviceBus))
def test_thirty_disks_and_eight_networks_have_room_with_thirty_two_spares(
    family: Family, device_bus: DeviceBus
) -> None:
    requests = (*THIRTY_DISKS, *EIGHT_NICS, SCSI, SATA, RNG, WATCHDOG)

    layout = place(family=family, device_bus=device_bus, hotplug_ports=32, requests=requests, previous=None)

    assert len({each.address for each in layout.devices}) == len(requests)
    assert hotplug_ports_free(layout)[1] >= 32


def test_a_device_keeps_its_address_when_others_come_before_it() -> None:
    first = q35(disk("root"), disk("data"))

    layout = q35(disk("new"), disk("data"), disk("root"), previous=first)

    assert addresses(layout) == {
        "disk-root": "port-0:00.0",
        "disk-data": "port-1:00.0",
        "disk-new": "port-2:00.0",
    }


def test_ports_are_added_at_the_end_and_never_renumbered() -> None:
    first = q35(disk("root"), spares=1)

    layout = q35(disk("root"), disk("data"), spares=1, previous=first)

    assert layout.controllers[: len(first.controllers)] == first.controllers
    assert addresses(layout)["disk-data"] == "port-1:00.0"
    assert hotplug_ports_free(layout) == (3, 1)


def test_a_freed_address_is_not_reused_while_another_is_free() -> None:
    layout = q35(disk("a"), disk("b"), spares=1)
    layout = q35(disk("b"), spares=1, previous=layout)
    assert [str(each) for each in layout.freed] == ["port-0:00.0"]

    layout = q35(disk("b"), disk("c"), spares=1, previous=layout)
    assert addresses(layout)["disk-c"] == "port-2:00.0"

    layout = q35(disk("b"), disk("c"), disk("d"), spares=0, previous=layout)
    assert addresses(layout)["disk-d"] == "port-0:00.0"
    assert layout.freed == ()


def test_the_address_freed_first_is_reused_first() -> None:
    layout = q35(disk("a"), disk("b"), disk("c"))
    layout = q35(disk("a"), disk("c"), previous=layout)
    layout = q35(disk("c"), previous=layout)

    layout = q35(disk("c"), disk("d"), previous=layout)

    assert addresses(layout)["disk-d"] == "port-1:00.0"


def test_a_device_that_comes_back_is_a_new_one() -> None:
    layout = q35(disk("a"), disk("b"), spares=1)
    layout = q35(disk("b"), spares=1, previous=layout)

    layout = q35(disk("a"), disk("b"), spares=1, previous=layout)

    assert addresses(layout)["disk-a"] == "port-2:00.0"


def test_a_device_stays_where_none_like_it_would_be_put_today() -> None:
    first = q35(nic("lan"))

    assert addresses(q35(nic("lan", conventional=True), previous=first)) == {"nic-lan": "port-0:00.0"}


def test_a_network_that_becomes_conventional_leaves_its_root_port_when_it_is_taken_out_first() -> None:
    first = q35(nic("lan"))

    layout = q35(nic("lan", conventional=True), previous=unplug(first, "nic-lan"))

    assert addresses(layout) == {"nic-lan": "bridge-0:01.0"}
    assert [str(each) for each in layout.freed] == ["port-0:00.0"]


def test_an_explicit_address_is_honoured_before_automatic_ones_are_given() -> None:
    layout = q35(disk("a"), disk("b", "port-0:00.0"), nic("lan", "pcie.0:05.0"))

    assert addresses(layout) == {"disk-a": "port-1:00.0", "disk-b": "port-0:00.0", "nic-lan": "pcie.0:05.0"}


def test_root_ports_leave_out_a_slot_that_somebody_chose() -> None:
    layout = q35(disk("a", "pcie.0:02.0"), disk("b"))

    assert controllers(layout)["port-0"] == "pcie.0:03.0"


def test_a_device_moves_when_it_now_asks_for_another_address() -> None:
    first = q35(disk("a"), disk("b"), spares=1)

    layout = q35(disk("a", "port-2:00.0"), disk("b"), spares=1, previous=first)

    assert addresses(layout) == {"disk-b": "port-1:00.0", "disk-a": "port-2:00.0"}
    assert [str(each) for each in layout.freed] == ["port-0:00.0"]


def test_a_device_that_no_longer_asks_stays_where_it_asked_to_be() -> None:
    first = q35(disk("a", "pcie.0:05.0"))

    assert addresses(q35(disk("a"), previous=first)) == {"disk-a": "pcie.0:05.0"}


def test_functions_of_one_slot_may_be_chosen_when_function_zero_is_there() -> None:
    layout = q35(disk("a", "pcie.0:05.1"), disk("b", "pcie.0:05.0"))

    assert addresses(layout) == {"disk-a": "pcie.0:05.1", "disk-b": "pcie.0:05.0"}


TAKEN, REFUSED = "PciAddressTaken", "PciAddressRefused"


@pytest.mark.parametrize(
    ("wanted", "reason", "words"),
    [
        (disk("a", "pcie.0:00.0"), REFUSED, "the slot belongs to the host bridge"),
        (disk("a", "pcie.0:1f.2"), REFUSED, "the slot belongs to the ICH9 chipset"),
        (disk("a", "pcie.0:01.0"), TAKEN, "the controller pcie-bridge has the slot"),
        (disk("a", "pcie-bridge:01.0"), TAKEN, "the controller bridge-0 has the slot"),
        (disk("a", "port-7:00.0"), REFUSED, "there is no bus port-7 (there are pcie.0, pcie-bridge, bridge-0, port-0"),
        (disk("a", "pci.0:05.0"), REFUSED, "there is no bus pci.0"),
        (disk("a", "port-0:01.0"), REFUSED, "the root port port-0 has slot 00 only"),
        (
            nic("a", "port-0:00.0", conventional=True),
            REFUSED,
            "a conventional PCI device cannot be below",
        ),
        (disk("a", "bridge-0:00.0"), REFUSED, "slot 00 of the bridge bridge-0 cannot be used"),
        (disk("a", "pcie.0:05.1"), REFUSED, "only in a slot with a device at function 0"),
    ],
)
def test_an_address_that_cannot_be_had_on_q35_is_refused(wanted: Request, reason: str, words: str) -> None:
    with pytest.raises(Refused) as refusal:
        q35(wanted, spares=1)

    assert refusal.value.reason == reason
    assert words in refusal.value.message
    field = "disks[a].pciAddress" if wanted.kind is DeviceKind.DISK else "networks[a].pciAddress"
    assert refusal.value.message.startswith(f"{field} {wanted.explicit}: ")
    assert refusal.value.message.endswith("; choose another or leave it out")


@pytest.mark.parametrize(("at", "owner"), [("pci.0:00.0", "the host bridge"), ("pci.0:01.3", "the PIIX3 chipset")])
def test_slots_of_the_pc_chipset_are_refused(at: str, owner: str) -> None:
    with pytest.raises(Refused, match=f"disks\\[a\\].pciAddress {at}: the slot belongs to {owner}"):
        pc(disk("a", at))


def test_two_devices_cannot_choose_one_address() -> None:
    with pytest.raises(Refused, match=r"networks\[lan\]\.pciAddress pcie\.0:05\.0: disk-a has it") as refusal:
        q35(disk("a", "pcie.0:05.0"), nic("lan", "pcie.0:05.0"))

    assert refusal.value.reason == TAKEN


def test_an_address_that_another_device_has_from_before_cannot_be_chosen() -> None:
    first = q35(disk("a"), spares=1)

    with pytest.raises(Refused, match=r"disks\[b\]\.pciAddress port-0:00\.0: disk-a has it"):
        q35(disk("a"), disk("b", "port-0:00.0"), spares=1, previous=first)


def test_two_devices_may_swap_their_addresses() -> None:
    first = q35(disk("a"), disk("b"))

    layout = q35(disk("a", "port-1:00.0"), disk("b", "port-0:00.0"), previous=first)

    assert addresses(layout) == {"disk-a": "port-1:00.0", "disk-b": "port-0:00.0"}
    assert layout.freed == ()


def test_more_devices_than_root_ports_are_refused_with_the_limit() -> None:
    with pytest.raises(Refused) as refusal:
        q35(*(disk(f"d{index}") for index in range(230)), spares=3)

    assert refusal.value.reason == "PciExhausted"
    assert "233 free root ports are needed" in refusal.value.message
    assert "at most 232" in refusal.value.message


def test_more_devices_than_pci_slots_are_refused_with_the_limit() -> None:
    with pytest.raises(Refused, match=r"151 free PCI slots are needed .* at most 150"):
        pc(*(disk(f"d{index}") for index in range(151)))


@pytest.mark.parametrize(
    ("family", "device_bus", "words"),
    [
        (Family.Q35, DeviceBus.PCI_BRIDGE, "spec.pci.deviceBus PCIBridge cannot follow the recorded RootPort"),
        (Family.PC, DeviceBus.ROOT_PORT, "spec.machine.type pc cannot follow the recorded q35"),
    ],
)
def test_what_is_fixed_at_the_first_start_cannot_change(family: Family, device_bus: DeviceBus, words: str) -> None:
    first: Layout = q35(disk("a"))

    with pytest.raises(Refused, match=words):
        place(family=family, device_bus=device_bus, hotplug_ports=0, requests=(), previous=first)

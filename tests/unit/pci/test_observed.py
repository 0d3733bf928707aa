"""What the guest's own numbering says about the recorded layout, and when it says nothing."""

from dataclasses import replace

import pytest

from guestlet.pci.layout import DeviceKind
from guestlet.pci.observed import PciFunction, Seen, guest_addresses
from unit.pci.requests import disk, q35, request

LAYOUT = q35(disk("root"), request("sata", DeviceKind.SATA, conventional=True), spares=0)


def function(
    bus: int,
    slot: int,
    number: int,
    name: str,
    *,
    buses: tuple[int, int] | None = None,
    behind: tuple[PciFunction, ...] = (),
) -> PciFunction:
    return PciFunction(
        bus=bus,
        slot=slot,
        function=number,
        vendor=0x1AF4 if name else 0x8086,
        device=0x1042 if name else 0x2922,
        device_class=0x0100,
        qdev_id=name,
        secondary_bus=None if buses is None else buses[0],
        subordinate_bus=None if buses is None else buses[1],
        behind=behind,
    )


BRIDGE = function(4, 1, 0, "bridge-0", buses=(5, 5))
PCIE_BRIDGE = function(0, 1, 0, "pcie-bridge", buses=(4, 5), behind=(BRIDGE,))
PORT = function(0, 2, 0, "port-0", buses=(6, 6), behind=(function(6, 0, 0, "disk-root"),))
AHCI = function(0, 0x1F, 2, "")
HOST_BRIDGE = function(0, 0, 0, "")
EVERYTHING = (HOST_BRIDGE, PCIE_BRIDGE, PORT, AHCI)


def test_devices_are_found_by_id_behind_bridges_and_the_chipsets_by_place() -> None:
    numbered = guest_addresses(LAYOUT, EVERYTHING)

    assert numbered is not None
    assert numbered.seen["disk-root"] == Seen(guest_address="0000:06:00.0", vendor="1af4", device="1042")
    assert numbered.seen["sata"] == Seen(guest_address="0000:00:1f.2", vendor="8086", device="2922")
    assert numbered.seen["port-0"].guest_address == "0000:00:02.0"
    assert numbered.missing == ()
    assert numbered.strangers == ()


def test_nothing_is_known_while_a_bridge_has_no_number() -> None:
    blind = replace(PCIE_BRIDGE, secondary_bus=0, subordinate_bus=0, behind=())

    assert guest_addresses(LAYOUT, (blind, PORT, AHCI)) is None


def test_nothing_is_known_while_a_bridge_is_not_even_listed() -> None:
    numbered_without_inner = replace(PCIE_BRIDGE, behind=())

    assert guest_addresses(LAYOUT, (numbered_without_inner, PORT, AHCI)) is None


@pytest.mark.parametrize(
    "buses",
    [
        (255, 0),  # SeaBIOS, before it comes to this bridge
        (4, 4),  # the number of another
        (3, 8),  # around another, while this one is being numbered
    ],
)
def test_nothing_is_known_while_the_firmware_is_numbering(buses: tuple[int, int]) -> None:
    unfinished = replace(PORT, secondary_bus=buses[0], subordinate_bus=buses[1], behind=())

    assert guest_addresses(LAYOUT, (PCIE_BRIDGE, unfinished, AHCI)) is None


def test_nothing_is_known_while_a_bridge_is_outside_the_one_above() -> None:
    outside = replace(PCIE_BRIDGE, subordinate_bus=4)

    assert guest_addresses(LAYOUT, (outside, PORT, AHCI)) is None


def test_a_device_that_is_gone_is_missing_once_everything_is_numbered() -> None:
    numbered = guest_addresses(LAYOUT, (PCIE_BRIDGE, replace(PORT, behind=()), AHCI))

    assert numbered is not None
    assert numbered.missing == ("disk-root",)


def test_a_device_with_an_id_that_nobody_recorded_is_a_stranger() -> None:
    numbered = guest_addresses(LAYOUT, (*EVERYTHING, function(0, 9, 0, "mystery")))

    assert numbered is not None
    assert numbered.strangers == ("mystery",)

"""Addresses as users write them."""

import pytest

from guestlet.pci.address import PciAddress, parse_address


def test_an_address_reads_as_it_is_written() -> None:
    address = parse_address("port-2:1f.7")

    assert address == PciAddress(bus="port-2", slot=0x1F, function=7)
    assert str(address) == "port-2:1f.7"
    assert address.on_bus == "1f.7"


@pytest.mark.parametrize("text", ["05.0", "pcie.0:5.0", "pcie.0:20.0", "pcie.0:05.8", "0000:00:05.0", "_p:05.0"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as pcie\.0:05\.0"):
        parse_address(text)

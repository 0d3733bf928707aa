"""The recorded layout against QEMU's objects."""

from dataclasses import replace

from guestlet.pci.compare import compare
from guestlet.pci.layout import DeviceKind
from unit.pci.foreign import stranger
from unit.pci.requests import disk, q35, request

LAYOUT = q35(disk("root"), request("sata", DeviceKind.SATA, conventional=True))
EQUAL = {
    "pcie-bridge": ("01.0", "pcie.0"),
    "bridge-0": ("01.0", "pcie-bridge"),
    "port-0": ("02.0", "pcie.0"),
    "disk-root": ("00.0", "port-0"),
}


def test_equal_layouts_need_no_words_and_the_chipsets_ahci_is_not_asked_for() -> None:
    assert compare(LAYOUT, EQUAL) == ()


def test_a_device_elsewhere_is_told() -> None:
    assert compare(LAYOUT, EQUAL | {"disk-root": ("03.0", "pcie.0")}) == (
        "disk-root is recorded at port-0:00.0 and QEMU has it at pcie.0:03.0",
    )


def test_a_device_that_qemu_does_not_have_is_told() -> None:
    assert compare(LAYOUT, {name: place for name, place in EQUAL.items() if name != "port-0"}) == (
        "port-0 is recorded at pcie.0:02.0 and QEMU does not have it",
    )


def test_a_device_that_was_not_recorded_is_told() -> None:
    assert compare(LAYOUT, EQUAL | {"x": ("05.0", "pcie.0")}) == ("x is at pcie.0:05.0 in QEMU and not recorded",)


def test_what_nobody_knows_may_be_there_or_not() -> None:
    layout = replace(LAYOUT, anonymous=(stranger("pcie.0:05.0", "x"),))

    assert compare(layout, EQUAL) == ()
    assert compare(layout, EQUAL | {"x": ("05.0", "pcie.0")}) == ()

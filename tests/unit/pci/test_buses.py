"""Controllers of every kind as options, and real QEMUs that are built from them: taken, placed, numbered."""

import asyncio
import json
from dataclasses import replace

import pytest

from guestlet.pci.compare import compare
from guestlet.pci.controllers import Family
from guestlet.pci.layout import Layout
from guestlet.pci.observed import guest_addresses
from guestlet.qemu.replies import parse_pci
from guestlet.qemu.sections.buses import controller_args, placement
from sandbox.qemu import QemuBuild, ensure_qemu, ensure_system_qemu
from unit.pci.foreign import BRIDGE, EVERYTHING, EXPANDER, INTEL, LIBVIRT_LIKE, found, maker, placed, stranger
from unit.qemu.real_qemu import real_qemu
from unit.qemu.sample_machines import bare

NESTED_PC = found(
    maker("innermost", BRIDGE, "inner:04.0", 3),
    maker("inner", BRIDGE, "outer:03.0", 2),
    maker("outer", BRIDGE, "pci.0:05.0", 1),
    family=Family.PC,
)


@pytest.fixture(scope="module", params=["system", "10"])
def build(request: pytest.FixtureRequest) -> QemuBuild:
    return ensure_system_qemu() if request.param == "system" else ensure_qemu(10)


def options(layout: Layout) -> list[dict[str, object]]:
    return [json.loads(option) for option in controller_args(layout)[1::2]]


def test_a_controller_of_another_kind_is_written_with_its_own_properties() -> None:
    layout = found(maker("ioh", INTEL, "pcie.0:03.0", 0), maker("pxb", EXPANDER, "pcie.0:06.0", 128))

    assert options(layout) == [
        {
            "driver": "ioh3420",
            "id": "ioh",
            "bus": "pcie.0",
            "addr": "03.0",
            "multifunction": True,
            "chassis": 0,
            "port": 0,
        },
        {"driver": "pxb-pcie", "id": "pxb", "bus": "pcie.0", "addr": "06.0", "bus_nr": 128},
    ]


def test_no_controller_comes_before_the_bus_that_it_is_on() -> None:
    assert [each["id"] for each in options(NESTED_PC)] == ["outer", "inner", "innermost"]


def test_a_device_beside_another_function_says_so() -> None:
    layout = found(
        devices=(placed("a", "pcie.0:05.0"), placed("b", "pcie.0:06.0")), anonymous=(stranger("pcie.0:05.1"),)
    )

    assert placement(layout, "disk-a") == {"bus": "pcie.0", "addr": "05.0", "multifunction": True}
    assert placement(layout, "disk-b") == {"bus": "pcie.0", "addr": "06.0"}


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "layout", [EVERYTHING, LIBVIRT_LIKE, NESTED_PC], ids=["every kind", "fourteen ports", "nested"]
)
async def test_a_real_qemu_takes_them_and_its_firmware_numbers_them(build: QemuBuild, layout: Layout) -> None:
    machine = replace(bare(layout.family), pci=replace(layout, devices=(), anonymous=()))
    async with real_qemu(build, machine) as qemu:
        assert compare(machine.pci, await qemu.places()) == ()
        assert guest_addresses(machine.pci, parse_pci(await qemu.ask("query-pci"))) is None
        await qemu.ask("cont")
        async with asyncio.timeout(90):
            while (numbered := guest_addresses(machine.pci, parse_pci(await qemu.ask("query-pci")))) is None:
                pass
        assert (numbered.missing, numbered.strangers) == ((), ())
        assert numbered.seen.keys() == {each.id for each in layout.controllers}

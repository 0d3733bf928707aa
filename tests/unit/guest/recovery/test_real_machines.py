"""Real QEMUs of ours, frozen and with ``query-pci`` blind, are described as what they were started as."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from qemu.qmp import ExecuteError

from guestlet.errors import Broken
from guestlet.guest.ask import ask_everything
from guestlet.guest.recovery.describe import describe_running
from guestlet.guest.recovery.description import Hints
from guestlet.pci.layout import DeviceBus, Family
from guestlet.qemu.commands import Command
from guestlet.qemu.machine import DiskBus, FirmwareType, Machine, NicModel
from sandbox.qemu import QemuBuild, ensure_qemu, ensure_system_qemu
from unit.qemu.real_qemu import RealQemu, real_qemu
from unit.qemu.sample_machines import complete, growing, laid_out, largest, with_disks_on, with_network

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(120)]


def with_disks(bus: DiskBus) -> Callable[[Family], Machine]:
    return lambda family: laid_out(with_disks_on(bus, complete(family)))


MACHINES: dict[str, Callable[[Family], Machine]] = {
    "small devices": lambda family: laid_out(complete(family)),
    "UEFI": lambda family: laid_out(complete(family, FirmwareType.UEFI)),
    "networks": lambda family: laid_out(with_network(NicModel.VIRTIO, complete(family))),
    "conventional networks": lambda family: laid_out(with_network(NicModel.E1000, complete(family))),
    "growing": lambda family: laid_out(growing(complete(family))),
    "behind bridges": lambda family: laid_out(
        with_disks_on(DiskBus.VIRTIO, complete(family)),
        device_bus=DeviceBus.PCI_BRIDGE if family is Family.Q35 else DeviceBus.ROOT_PORT,
    ),
    **{f"disks on {bus.value}": with_disks(bus) for bus in DiskBus},
}


@pytest.fixture(scope="module", params=["system", "10"])
def build(request: pytest.FixtureRequest) -> QemuBuild:
    return ensure_system_qemu() if request.param == "system" else ensure_qemu(10)


async def described(qemu: RealQemu) -> tuple[Machine, tuple[str, ...]]:
    async def execute(command: Command) -> object:
        try:
            return await qemu.ask(command.name, command.arguments)
        except ExecuteError as error:
            raise Broken("QmpRefused", str(error)) from error

    hints = Hints(
        name=qemu.machine.name,
        uuid="",
        argv=qemu.argv,
        folder="/",
        pools={path: name for name, path in qemu.paths.pools.items()},
        taps={},
        bridges={},
        cpu_aliases={},
        spec=None,
    )
    found = describe_running(await ask_everything(execute), hints)
    assert found.aliases.devices == {}
    assert found.aliases.nodes == {}
    assert found.aliases.netdevs == {}
    return found.machine, found.doubts


def unordered(machine: Machine) -> Machine:
    """Without what QEMU cannot be asked: cables, and in which order its parts were named."""
    return replace(
        machine,
        disks=tuple(sorted(machine.disks, key=lambda each: each.name)),
        networks=tuple(sorted((replace(each, link_up=True) for each in machine.networks), key=lambda each: each.name)),
        pci=replace(
            machine.pci,
            controllers=tuple(sorted(machine.pci.controllers, key=lambda each: each.address)),
            devices=tuple(sorted(machine.pci.devices, key=lambda each: each.id)),
            freed=(),
        ),
    )


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("kind", MACHINES)
async def test_what_was_started_is_what_is_described(build: QemuBuild, family: Family, kind: str) -> None:
    machine = MACHINES[kind](family)
    async with real_qemu(build, machine) as qemu:
        found, _ = await described(qemu)

    assert unordered(found) == unordered(machine)


@pytest.mark.parametrize("family", Family)
async def test_the_largest_machine_is_described_as_it_is(build: QemuBuild, family: Family) -> None:
    machine = laid_out(largest(family))
    async with real_qemu(build, machine) as qemu:
        found, doubts = await described(qemu)

    assert unordered(found) == unordered(machine)
    assert [each for each in doubts if "left alone" in each] == []

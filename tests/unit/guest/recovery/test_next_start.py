"""The start after an adoption: every address is kept, and a QEMU takes the command line."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from guestlet.guest.manifest import spec_of
from guestlet.guest.resolve import resolve_machine
from guestlet.host.facts import ImageFacts
from guestlet.pci.compare import compare
from guestlet.qemu.machine import BridgeNet, FileSource, IsolatedNet, Machine, TapNet
from sandbox.qemu import QemuBuild, ensure_qemu, ensure_system_qemu
from unit.guest.guest_samples import CAPABILITIES, guest, image, network, observed, storage
from unit.guest.recovery.descriptions import described
from unit.qemu.real_qemu import real_qemu
from unit.qemu.shapes.recorded import NAMES


def sources(machine: Machine) -> Iterator[tuple[FileSource, int]]:
    for disk in machine.disks:
        if disk.source is not None:
            yield disk.source, disk.size_bytes


def images(machine: Machine) -> Iterator[ImageFacts]:
    for source, size_bytes in sources(machine):
        yield image(
            source.image,
            format=source.format,
            backing_image=source.backing_image,
            virtual_size_bytes=size_bytes,
        )
        if source.backing_image is not None:
            yield image(source.backing_image, format=source.backing_format, virtual_size_bytes=size_bytes)


def next_machine(name: str, major: str) -> tuple[Machine, Machine]:
    """What was described, and what the next start gives when nothing was edited."""
    machine = described(name, major, bridges={"vnet7": "br0"}).machine
    capabilities = replace(
        CAPABILITIES,
        all_machine_types=(machine.machine_type,),
        devices=frozenset({"virtio-mem-pci"}),
        cpu_models=(*CAPABILITIES.cpu_models, "qemu64-v1"),
    )
    seen = observed(storage=storage(*images(machine)), network=network(), capabilities=capabilities)
    wanted = guest(spec_of(machine).to_wire())
    return machine, resolve_machine(guest=wanted, observed=seen, previous=machine, uuid=machine.uuid)


@pytest.mark.parametrize("major", ["7", "10"])
@pytest.mark.parametrize("name", NAMES)
def test_the_next_start_moves_nothing(name: str, major: str) -> None:
    before, after = next_machine(name, major)

    places = {each.id: each.address for each in after.pci.devices}
    assert {each.id: places[each.id] for each in before.pci.devices} == {
        each.id: each.address for each in before.pci.devices
    }
    assert after.pci.controllers[: len(before.pci.controllers)] == before.pci.controllers
    assert after.pci.anonymous == before.pci.anonymous
    assert (after.disks, after.uuid, after.machine_type) == (before.disks, before.uuid, before.machine_type)
    assert [each.mac for each in after.networks] == [each.mac for each in before.networks]
    assert after.cpu == before.cpu


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize("major", ["7", "10"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_qemu_takes_the_next_start_and_has_everything_where_it_was(name: str, major: str) -> None:
    build: QemuBuild = ensure_system_qemu() if major == "7" else ensure_qemu(10)
    _, after = next_machine(name, major)
    apart = tuple(
        replace(each, backend=IsolatedNet(), tap=None, queues=1)
        if isinstance(each.backend, BridgeNet | TapNet)
        else each
        for each in after.networks
    )

    async with real_qemu(build, replace(after, networks=apart)) as qemu:
        assert compare(after.pci, await qemu.places()) == ()

"""A machine to plug things into, in memory or real: told commands, looked at, and listened to in the same way."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.qemu import FakeQemu
from guestlet.errors import Broken
from guestlet.host.facts import ProcessIdentity
from guestlet.host.process import identity_of
from guestlet.host.qmp import QmpSession
from guestlet.pci.layout import Family
from guestlet.pci.observed import guest_addresses
from guestlet.qemu import commands
from guestlet.qemu.commands import Command
from guestlet.qemu.inventory import Inventory
from guestlet.qemu.inventory_replies import INVENTORY_QUERIES, parse_inventory
from guestlet.qemu.machine import Disk, DiskBus, HostPaths, Machine, Nic
from guestlet.qemu.replies import RunState, parse_pci, parse_status
from guestlet.qemu.sections.network import backend_option, nic_option
from guestlet.qemu.sections.storage import block_nodes, disk_option, iothread_option
from sandbox.qemu import QemuBuild
from unit.qemu.real_qemu import make_image, real_qemu
from unit.qemu.sample_machines import PATHS, bare, disk, empty_drive, file_of, growing, laid_out, nic

DEADLINE_S = 20
EventData = Mapping[str, object]


def pluggable(family: Family = Family.Q35) -> Machine:
    """A disk, two drives on a SCSI controller, an interface, room for more processors, memory and devices."""
    disks = (disk("root"), disk("scsi", DiskBus.SCSI, unit=1), empty_drive("cd", DiskBus.SCSI))
    return laid_out(growing(replace(bare(family), disks=disks, networks=(nic("lan"),))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pluggable:
    """``fake`` when a test may turn it; ``events`` in the order in which they came."""

    machine: Machine
    paths: HostPaths
    session: QmpSession | None
    fake: FakeQemu | None
    events: list[EventData]

    async def tell(self, command: Command) -> object:
        """The reply.

        Raises: Broken, QmpRefused.
        """
        if self.session is not None:
            return await self.session.execute(command)
        assert self.fake is not None
        return self.fake.answer(command)

    async def refusal(self, command: Command) -> str:
        """Why QEMU does not do it."""
        with pytest.raises(Broken, match="QmpRefused: ") as refused:
            await self.tell(command)
        return refused.value.message.removeprefix(f"{command.name}: ")

    async def look(self) -> Inventory:
        """What QEMU has."""
        return parse_inventory({name: await self.tell(command) for name, command in INVENTORY_QUERIES.items()})

    async def run_state(self) -> RunState:
        return parse_status(await self.tell(commands.query_status())).run_state

    async def runs_a_while(self) -> None:
        """Lets the firmware run until it has numbered the buses."""
        await self.tell(commands.cont())
        async with asyncio.timeout(DEADLINE_S):
            while True:
                functions = parse_pci(await self.tell(commands.query_pci()))
                if guest_addresses(self.machine.pci, functions) is not None:
                    return

    async def hears(self, event: str, **data: object) -> None:
        """Looks until QEMU has said that."""
        async with asyncio.timeout(DEADLINE_S):
            while not self.heard(event, **data):
                await self.look()

    def heard(self, event: str, **data: object) -> bool:
        """Whether QEMU has said that."""
        told = [each.get("data") for each in self.events if each["event"] == event]
        return any(isinstance(each, Mapping) and data.items() <= each.items() for each in told)

    # parts

    def with_disk(self, added: Disk) -> Machine:
        """The machine with one disk more, at its address."""
        return laid_out(
            replace(self.machine, disks=(*self.machine.disks, added)), previous=self.machine.pci, hotplug_ports=0
        )

    async def add_nodes(self, added: Disk) -> None:
        """Its image, and its nodes."""
        if self.fake is None and added.source is not None:
            make_image(Path(self.paths.pools["default"]), file_of(added), added.size_bytes)
        for each in block_nodes(added, self.paths):
            await self.tell(commands.blockdev_add(each))

    async def plug_disk(self, added: Disk) -> None:
        """All parts of it, in order."""
        await self.add_nodes(added)
        thread = iothread_option(added)
        if thread is not None:
            await self.tell(commands.object_add(thread))
        await self.tell(commands.device_add(disk_option(self.with_disk(added), added)))

    async def plug_nic(self, added: Nic) -> None:
        """All parts of it, in order."""
        grown = replace(self.machine, networks=(*self.machine.networks, added))
        grown = laid_out(grown, previous=self.machine.pci, hotplug_ports=0)
        await self.tell(commands.netdev_add(backend_option(added, ())))
        await self.tell(commands.device_add(nic_option(grown, added)))


@asynccontextmanager
async def in_memory(machine: Machine) -> AsyncIterator[Pluggable]:
    events: list[EventData] = []
    identity = ProcessIdentity(pid=1, start_ticks=1)
    fake = FakeQemu(identity=identity, machine=machine, argv=(), end=lambda _code, _word: None)
    fake.on_event = events.append
    fake.switches.has_booted = False  # as a real one that has nothing but its firmware
    yield Pluggable(machine=machine, paths=PATHS, session=None, fake=fake, events=events)


@asynccontextmanager
async def for_real(build: QemuBuild, machine: Machine) -> AsyncIterator[Pluggable]:
    events: list[EventData] = []
    async with real_qemu(build, machine) as qemu:
        identity = identity_of(qemu.process.pid)
        assert identity is not None
        session = QmpSession(Path(qemu.paths.runtime_dir) / "observer", on_event=events.append)
        await session.connect(identity, timeout_s=DEADLINE_S)
        try:
            yield Pluggable(machine=machine, paths=qemu.paths, session=session, fake=None, events=events)
        finally:
            await session.close()

"""Looks at one guest on its node: process, monitor, storage, network. Reads, never changes, never decides."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from guestlet.errors import Broken, Refused, Unknown
from guestlet.guest.change.edit import settled_machine
from guestlet.guest.change.plan import questions_of, wants_changes
from guestlet.guest.desired import Guest
from guestlet.guest.images import doomed_images, left_behind
from guestlet.guest.observed import (
    ChangeFailure,
    ImageKey,
    MonitorFacts,
    NetworkFacts,
    ObservedGuest,
    StorageFacts,
)
from guestlet.guest.ports import GuestHost
from guestlet.guest.record import Record
from guestlet.host.facts import ImageFacts, PoolFacts, ProcessFacts
from guestlet.pci.address import PciAddress
from guestlet.pci.compare import compare, recorded_places
from guestlet.pci.controllers import root_bus
from guestlet.pci.layout import Layout
from guestlet.pci.observed import Numbered, gone_anonymous, guest_addresses
from guestlet.qemu import commands
from guestlet.qemu.inventory_replies import INVENTORY_QUERIES, NOT_ASKED, parse_inventory
from guestlet.qemu.machine import FirmwareType
from guestlet.qemu.replies import RunState, parse_address, parse_parent_bus, parse_pci, parse_status


async def observe_guest(
    *,
    guest: Guest,
    record: Record,
    process: ProcessFacts,
    host: GuestHost,
    failures: Mapping[str, ChangeFailure] = MappingProxyType({}),
) -> ObservedGuest:
    """One look. Storage and network are looked at only when a start may come, a change of the running machine is wanted
    or a new generation was not described. ``failures``: changes that failed in this agent's life, by field.
    """
    key = record.uuid
    monitor, error = await _monitor(guest, record, process, host)
    starting = process.running is None or record.generation != guest.generation or bool(left_behind(guest, record))
    starting = starting or (monitor is not None and monitor.inventory is not None)
    return ObservedGuest(
        node=host.facts,
        capabilities=host.capabilities,
        accelerator=await host.accelerator(),
        committed_memory_bytes=await host.committed_memory_bytes(excluding=key),
        process=process,
        exit_note=host.exit_note(key),
        monitor=monitor,
        monitor_error=error,
        storage=await _storage(guest, record, host) if starting else None,
        network=await _network(guest, host) if starting else None,
        failures=failures,
    )


async def _monitor(
    guest: Guest, record: Record, process: ProcessFacts, host: GuestHost
) -> tuple[MonitorFacts | None, str | None]:
    if process.running is None or record.run is None or record.run.identity != process.running:
        return None, None
    try:
        return await _ask(guest, record, host), None
    except (Unknown, Broken) as error:
        return None, str(error)


async def _ask(guest: Guest, record: Record, host: GuestHost) -> MonitorFacts:
    key = record.uuid
    run_state = parse_status(await host.execute(key, commands.query_status())).run_state
    machine = settled_machine(record)
    layout = machine.pci if machine else None
    mismatches: tuple[str, ...] = ()
    numbered: Numbered | None = None
    gone: tuple[PciAddress, ...] = ()
    if layout is not None and run_state is RunState.PRELAUNCH:
        mismatches = compare(layout, await _places(layout, key, host))
    elif layout is not None:
        # At every look, because a guest may let go of a device that nobody asked it to.
        aliases = record.run.aliases.devices if record.run else {}
        functions = parse_pci(await host.execute(key, commands.query_pci()))
        numbered = guest_addresses(layout, functions, aliases=aliases)
        gone = gone_anonymous(layout, functions, aliases=aliases)
    facts = MonitorFacts(
        run_state=run_state,
        mismatches=mismatches,
        numbered=numbered,
        inventory=None,
        heard=host.heard(key),
        gone=gone,
    )
    lost = numbered is not None and bool(numbered.missing)
    if not lost and not wants_changes(guest, record):
        return facts
    return await _with_inventory(facts, key, host, questions_of(guest, record))


async def _with_inventory(facts: MonitorFacts, key: str, host: GuestHost, needed: frozenset[str]) -> MonitorFacts:
    """What QEMU has, asked only when something is to be changed: it is many questions; ``needed`` are the seldom ones.

    A QEMU that refuses one of them runs all the same; its machine is then left as it is.
    """
    try:
        asked = {name: each for name, each in INVENTORY_QUERIES.items() if name in needed or name not in NOT_ASKED}
        replies = {name: await host.execute(key, each) for name, each in asked.items()}
        return replace(facts, inventory=parse_inventory({**NOT_ASKED, **replies}))
    except Broken as error:
        return replace(facts, inventory_error=error.message)


async def _places(layout: Layout, key: str, host: GuestHost) -> dict[str, tuple[str, str]]:
    """Address and bus of every recorded device and controller that QEMU has under its id.

    What is on the root bus is told by one ``query-pci``, which is blind only behind bridges; the rest by QOM.
    """
    root = root_bus(layout.family)
    listed = parse_pci(await host.execute(key, commands.query_pci()))
    found = {
        each.qdev_id: (f"{each.slot:02x}.{each.function}", root) for each in listed if each.bus == 0 and each.qdev_id
    }
    for device, recorded in recorded_places(layout).items():
        if recorded.bus == root or device in found:
            continue
        try:
            address = await host.execute(key, commands.device_address(device))
            bus = await host.execute(key, commands.device_bus(device))
        except Broken:
            continue  # QEMU has no such device: compare() names it
        found[device] = (parse_address(address), parse_parent_bus(bus))
    return found


async def _storage(guest: Guest, record: Record, host: GuestHost) -> StorageFacts:
    keys = _image_keys(guest)
    pools = {pool: await host.pool(pool) for pool in sorted({pool for pool, _ in keys})}
    images = {key: await _image(key, pools, host) for key in keys}
    users = {key: await host.image_in_use_elsewhere(*key, guest=record.uuid) for key in keys}
    firmware, present = None, False
    if guest.spec.firmware.type is FirmwareType.UEFI:
        firmware = await host.default_firmware()
        kept = record.machine.firmware_image if record.machine else None
        present = await host.firmware_code(kept) if kept else firmware is not None
    return StorageFacts(
        pools=pools,
        images=images,
        users={key: user for key, user in users.items() if user is not None},
        needed=await _needed(
            doomed_images(guest, record) if guest.deleting else left_behind(guest, record), record, host
        ),
        firmware=firmware,
        firmware_present=present,
    )


async def _needed(doomed: frozenset[ImageKey], record: Record, host: GuestHost) -> dict[ImageKey, str]:
    why = {key: await _why_needed(key, record, host) for key in sorted(doomed)}
    return {key: reason for key, reason in why.items() if reason is not None}


async def _why_needed(key: ImageKey, record: Record, host: GuestHost) -> str | None:
    try:
        return await host.image_needed_elsewhere(*key, guest=record.uuid)
    except Refused as refusal:
        return refusal.message


def _image_keys(guest: Guest) -> tuple[ImageKey, ...]:
    keys: set[ImageKey] = set()
    for disk in guest.spec.disks:
        source = disk.source.file if disk.source else None
        if source is not None:
            keys.add((source.pool, source.image))
            if source.backing_image is not None:
                keys.add((source.pool, source.backing_image))
    kernel = guest.spec.boot.kernel if guest.spec.boot else None
    if kernel is not None:
        keys.add((kernel.pool, kernel.image))
        if kernel.initrd is not None:
            keys.add((kernel.pool, kernel.initrd))
    return tuple(sorted(keys))


async def _image(key: ImageKey, pools: dict[str, PoolFacts | None], host: GuestHost) -> ImageFacts | Refused | None:
    if pools.get(key[0]) is None:
        return None
    try:
        return await host.image(*key)
    except Refused as refusal:
        return refusal


async def _network(guest: Guest, host: GuestHost) -> NetworkFacts:
    bridges = sorted({nic.bridge.name for nic in guest.spec.networks if nic.bridge})
    scripts = sorted(
        {
            script
            for nic in guest.spec.networks
            if nic.tap
            for script in (nic.tap.up_script, nic.tap.down_script)
            if script
        }
    )
    there = await asyncio.gather(*(host.bridge_exists(name) for name in bridges))
    runnable = await asyncio.gather(*(host.script_exists(name) for name in scripts))
    return NetworkFacts(
        bridges=frozenset(name for name, found in zip(bridges, there, strict=True) if found),
        scripts=frozenset(name for name, found in zip(scripts, runnable, strict=True) if found),
    )

"""``guestlet pci``: the PCI buses of a guest on this node as a tree."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import click

from guestlet.cli.settings import LocalGuest, config_option, local_guest
from guestlet.errors import Broken, Unknown
from guestlet.guest.record import PendingKind, Record
from guestlet.pci.observed import PciFunction, guest_addresses
from guestlet.pci.tree import pci_tree

_GREETING_S = 2.0
_PENDING = {
    PendingKind.PLUG: "being plugged",
    PendingKind.UNPLUG: "being unplugged",
    PendingKind.EXCHANGE: "getting another medium",
    PendingKind.RESIZE: "being resized",
}


@click.command()
@click.argument("guest")
@config_option(required=False)
def pci(guest: str, config: Path | None) -> None:
    """Print the PCI buses of GUEST (namespace/name) on this node: ports, devices, free places.

    The tree is the recorded one; the guest's own addresses are asked of its QEMU.
    """
    found = local_guest(guest, config)
    machine = found.record.machine
    if machine is None:
        raise click.ClickException(f"{guest} was never started: it has no PCI addresses yet")
    functions, silence = _asked(found)
    aliases = found.record.run.aliases.devices if found.record.run else {}
    numbered = guest_addresses(machine.pci, functions, aliases=aliases) if functions is not None else None
    if functions is not None and numbered is None:
        silence = "its firmware has not numbered the buses yet"
    click.echo(f"{found.record.namespace}/{found.record.name} on node {found.settings.node_name}")
    click.echo(pci_tree(machine.pci, numbered, notes=_notes(found.record)), nl=False)
    if silence:
        click.echo(f"no addresses of the guest: {silence}", err=True)


def _notes(record: Record) -> Mapping[str, str]:
    return {each.part: _PENDING[each.kind] for each in record.pending}


def _asked(found: LocalGuest) -> tuple[tuple[PciFunction, ...] | None, str]:
    """What QEMU lists, or why it lists nothing."""
    run = found.record.run
    if run is None or run.identity is None:
        return None, "it does not run"
    try:
        return asyncio.run(_ask(found)), ""
    except (OSError, Unknown, Broken) as error:
        return None, f"its QEMU does not answer ({error})"


async def _ask(found: LocalGuest) -> tuple[PciFunction, ...]:
    """By the observers' monitor, so that the agent keeps its own."""
    from guestlet.host.qmp import QmpSession
    from guestlet.qemu.commands import query_pci
    from guestlet.qemu.replies import parse_pci

    run = found.record.run
    assert run is not None
    assert run.identity is not None
    session = QmpSession(found.runtime_dir / "observer", on_event=lambda event: None)
    try:
        await session.connect(run.identity, timeout_s=_GREETING_S)
        return parse_pci(await session.execute(query_pci()))
    finally:
        await session.close()

"""``guestlet diff``: what was asked of a guest, what it was made from, and what runs. Touches nothing."""

import asyncio
from pathlib import Path

import click

from guestlet.cli.settings import config_option, local_guest
from guestlet.errors import GuestletError


@click.command()
@click.argument("guest")
@config_option(required=False)
def diff(guest: str, config: Path | None) -> None:
    """Print the fields in which GUEST (namespace/name) is not as its spec asks.

    ASKED is the spec now, SOURCE what the machine was made from, LIVE what runs. Exit code 0: all equal, 1: some
    differ, as diff has it.
    """
    from guestlet.guest.compared import compared_fields, table
    from guestlet.kube.reading import read_guest

    found = local_guest(guest, config)
    key = (found.record.namespace, found.record.name)
    try:
        wire = asyncio.run(read_guest(found.settings.kubeconfig, *key))
    except GuestletError as error:
        raise click.ClickException(str(error)) from error
    if wire is None:
        raise click.ClickException(f"the API server has no VirtualGuest {'/'.join(key)}: it is an orphan of this node")
    rows = compared_fields(wire.spec, found.record)
    if not rows:
        click.echo(f"{'/'.join(key)}: what runs is what the spec asks for", err=True)
        return
    click.echo(table(rows))
    raise SystemExit(1)

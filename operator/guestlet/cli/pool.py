"""``guestlet pool``: sets up storage pools."""

from pathlib import Path

import click

from guestlet.errors import GuestletError


@click.group()
def pool() -> None:
    """Work with storage pools of this node."""


@pool.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def init(directory: Path) -> None:
    """Give DIRECTORY an identity, so that it can be a pool; one that has an identity keeps it."""
    from guestlet.host.images import init_pool

    try:
        identity = init_pool(directory)
    except (GuestletError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{directory}: pool {identity}")

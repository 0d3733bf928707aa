"""``guestlet forget``: a person's word that an orphaned guest may end."""

from pathlib import Path

import click

from guestlet.cli.settings import config_option, local_guest
from guestlet.guest.files import FORGET_MARK


@click.command()
@click.argument("uuid")
@config_option(required=False)
@click.confirmation_option(prompt="QEMU of this guest is killed and its record removed (its images stay). Go on?")
def forget(uuid: str, config: Path | None) -> None:
    """End the orphaned guest UUID: the node's agent kills its QEMU and removes its record, never an image.

    A guest that has a VirtualGuest is not ended: delete the VirtualGuest instead.
    """
    found = local_guest(uuid, config)
    (found.state_dir / FORGET_MARK).touch()
    click.echo(
        f"marked; the agent of {found.settings.node_name} ends {found.record.namespace}/{found.record.name} within "
        "10 s, unless it finds its VirtualGuest"
    )

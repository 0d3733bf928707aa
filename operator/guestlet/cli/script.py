"""``guestlet script``: the launch of a guest as a shell script."""

from pathlib import Path

import click

from guestlet.cli.settings import config_option, local_guest
from guestlet.guest.files import NEXT_SCRIPT
from guestlet.guest.script import launch_script


@click.command()
@click.argument("guest")
@click.option("--next", "coming", is_flag=True, help="The next start, as the spec stands now, instead of the last one.")
@config_option(required=False)
def script(guest: str, coming: bool, config: Path | None) -> None:
    """Print the shell script that replays the launch of GUEST (namespace/name) on this node."""
    found = local_guest(guest, config)
    if coming:
        path = found.state_dir / NEXT_SCRIPT
        if not path.exists():
            raise click.ClickException(
                f"the spec of {guest} was not accepted yet (see its conditions), so there is no next start to print"
            )
        click.echo(path.read_text(), nl=False)
        return
    run, machine = found.record.run, found.record.machine
    if run is None or machine is None or not run.argv:
        raise click.ClickException(f"{guest} does not run; --next prints how it would be started")
    click.echo(launch_script(run.argv, machine=machine), nl=False)

"""The commands that run the programs, and what they are made of: agent, controller, crds, version."""

from pathlib import Path

import click

from guestlet.cli.settings import config_option, read_agent_settings, read_controller_settings


@click.command()
@config_option(required=True)
def agent(config: Path) -> None:
    """Run the agent of this node until SIGTERM; guests run on without it."""
    from guestlet.reconcile.wiring import run_agent

    raise SystemExit(run_agent(read_agent_settings(config)))


@click.command()
@config_option(required=False)
def controller(config: Path | None) -> None:
    """Run the controller: it binds guests to nodes and notices lost nodes."""
    from guestlet.reconcile.wiring import run_controller

    raise SystemExit(run_controller(read_controller_settings(config)))


@click.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the files into this folder instead of printing the CRDs.",
)
def crds(output: Path | None) -> None:
    """Print the custom resource definitions, or write them with the API reference."""
    from guestlet.api.crd import crd_documents, crd_files

    if output is None:
        click.echo("---\n".join(text for _, text in sorted(crd_documents().items())), nl=False)
        return
    output.mkdir(parents=True, exist_ok=True)
    for name, text in sorted(crd_files().items()):
        (output / name).write_text(text)
        click.echo(f"wrote {output / name}")


@click.command()
def version() -> None:
    """Print the version of this program."""
    from importlib.metadata import version as installed

    click.echo(f"guestlet {installed('guestlet')}")

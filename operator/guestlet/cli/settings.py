"""Finds and reads the settings that a command works with; a wrong file is told in words, never as a traceback."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from guestlet.errors import Broken, Refused
from guestlet.guest.record import RECORD_FILE, Record, parse_record
from guestlet.settings import AgentSettings, ControllerSettings, load_agent_settings, load_controller_settings

DEFAULT_ROOT = ".guestlet"

Function = TypeVar("Function", bound=Callable[..., object])


def config_option(*, required: bool) -> Callable[[Function], Function]:
    """The option ``--config FILE``."""
    return click.option(
        "--config",
        required=required,
        envvar="GUESTLET_CONFIG",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Settings file (node.yaml)." + ("" if required else f" Default: those below {DEFAULT_ROOT}/nodes."),
    )


def read_agent_settings(path: Path) -> AgentSettings:
    """The settings in the file; a wrong one ends the program with a message that names each wrong key."""
    try:
        return load_agent_settings(path)
    except Refused as refusal:
        raise click.ClickException(refusal.message) from refusal


def read_controller_settings(path: Path | None) -> ControllerSettings:
    """The settings in the file; a wrong one ends the program with a message that names each wrong key."""
    try:
        return load_controller_settings(path)
    except Refused as refusal:
        raise click.ClickException(refusal.message) from refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalGuest:
    """A guest that a node of this machine remembers."""

    settings: AgentSettings
    record: Record

    @property
    def state_dir(self) -> Path:
        """Where the node keeps the guest's files."""
        return self.settings.state_dir / "guests" / self.record.uuid

    @property
    def runtime_dir(self) -> Path:
        """Where QEMU's sockets are."""
        return self.settings.runtime_dir / self.record.uuid


def node_settings(config: Path | None) -> tuple[AgentSettings, ...]:
    """The settings named, or those of every node below the default root."""
    paths = (config,) if config else tuple(sorted(Path(DEFAULT_ROOT).glob("nodes/*/node.yaml")))
    if not paths:
        raise click.ClickException(f"no node's settings found: give --config node.yaml, or run where {DEFAULT_ROOT} is")
    return tuple(read_agent_settings(path) for path in paths)


def local_guest(name: str, config: Path | None) -> LocalGuest:
    """The guest called ``namespace/name`` (or ``name`` in namespace default, or its uuid) on this machine."""
    wanted = name if "/" in name else f"default/{name}"
    for settings in node_settings(config):
        for path in sorted((settings.state_dir / "guests").glob(f"*/{RECORD_FILE}")):
            record = _record(path)
            if record and (record.uuid == name or f"{record.namespace}/{record.name}" == wanted):
                return LocalGuest(settings=settings, record=record)
    raise click.ClickException(f"no node of this machine has a guest {wanted}; its node is in status.nodeName")


def _record(path: Path) -> Record | None:
    try:
        return parse_record(path.read_bytes())
    except (Broken, OSError) as error:
        click.echo(f"{path}: {error}", err=True)
        return None

"""``guestlet plan``: what the agent would do next, and why. Reads the node and the API server, touches nothing."""

import asyncio
import dataclasses
import time
from pathlib import Path

import click
import yaml

from guestlet.api.guest import VirtualGuest, parse_guest
from guestlet.cli.settings import config_option, node_settings
from guestlet.errors import Broken, GuestletError
from guestlet.guest.actions import Action, Tell
from guestlet.guest.ask import describe_guest
from guestlet.guest.change.difference import live_changes
from guestlet.guest.desired import Guest, build_guest
from guestlet.guest.observe import observe_guest
from guestlet.guest.plan import plan_guest
from guestlet.guest.record import RECORD_FILE, Record, parse_record
from guestlet.guest.recover import must_ask, record_key, recovered_record
from guestlet.guest.recovery.description import Description
from guestlet.guest.verdict import Plan
from guestlet.host.facts import ProcessFacts
from guestlet.host.node import NodeHost
from guestlet.settings import AgentSettings


@click.command()
@click.argument("target")
@config_option(required=False)
def plan(target: str, config: Path | None) -> None:
    """Print what the agent would do about TARGET: a manifest FILE, or namespace/name of a guest of this node."""
    settings = node_settings(config)
    try:
        path = Path(target)
        if path.is_file():
            wire, chosen = _from_file(path), settings[0]
        else:
            wire, chosen = asyncio.run(_from_server(target, settings))
        found, changes = asyncio.run(_plan(wire, chosen))
    except GuestletError as error:
        raise click.ClickException(str(error)) from error
    _print(wire, chosen, found, changes)


def _from_file(path: Path) -> VirtualGuest:
    body = yaml.safe_load(path.read_text())
    if not isinstance(body, dict) or body.get("kind") != "VirtualGuest":
        raise click.ClickException(f"{path}: holds no VirtualGuest (one document, kind: VirtualGuest)")
    body.setdefault("metadata", {}).setdefault("namespace", "default")
    # A manifest has no identity yet; the server will give it one.
    body["metadata"].setdefault("uid", "00000000-0000-0000-0000-000000000000")
    return parse_guest(body)


async def _from_server(name: str, settings: tuple[AgentSettings, ...]) -> tuple[VirtualGuest, AgentSettings]:
    from guestlet.kube.reading import read_guest

    namespace, _, bare = name.rpartition("/")
    wire = await read_guest(settings[0].kubeconfig, namespace or "default", bare)
    if wire is None:
        raise click.ClickException(f"the API server has no VirtualGuest {namespace or 'default'}/{bare}")
    node = wire.status.node_name
    chosen = next((each for each in settings if each.node_name == node), None)
    if chosen is None:
        raise click.ClickException(f"{name} is placed on {node or 'no node yet'}, which is none of this machine's")
    return wire, chosen


async def _plan(wire: VirtualGuest, settings: AgentSettings) -> tuple[Plan, tuple[str, ...]]:
    """The plan, and in words the changes of the running machine that the spec asks for, in their order."""
    host = NodeHost(settings)
    await host.start(reading=True)
    try:
        guest = build_guest(wire)
        key = record_key(guest)
        process = await host.process(key)
        record = await _record(host, key) or recovered_record(guest, process, await _asked(guest, key, process, host))
        observed = await observe_guest(guest=guest, record=record, process=process, host=host)
        found = plan_guest(guest=guest, observed=observed, record=record, now=time.time())
        running = record.run is not None
        changes = live_changes(guest.spec, record.source) if running else ()
        begun = tuple(f"{each.part} ({each.kind.value}, begun)" for each in record.pending)
        return found, (*begun, *(f"{each.kind.value} {each.field}" for each in changes))
    finally:
        await host.close()


async def _asked(guest: Guest, key: str, process: ProcessFacts, host: NodeHost) -> Description | None:
    """What the guest's QEMU answers, when nobody else says what it is."""
    if process.running is None or not must_ask(guest, process):
        return None
    return await describe_guest(guest, key, process.running, host)


async def _record(host: NodeHost, key: str) -> Record | None:
    data = await host.read_file(key, RECORD_FILE)
    try:
        return parse_record(data) if data is not None else None
    except Broken as error:
        click.echo(str(error), err=True)
        return None


def _print(wire: VirtualGuest, settings: AgentSettings, found: Plan, changes: tuple[str, ...]) -> None:
    verdict = found.verdict
    click.echo(f"{wire.metadata.namespace}/{wire.metadata.name} on node {settings.node_name}")
    click.echo(
        f"{verdict.phase.value} ({verdict.reason.value}{', stalled' if verdict.stalled else ''}): {verdict.message}"
    )
    for number, change in enumerate(changes, 1):
        click.echo(f"change {number} of the running machine: {change}")
    for said in (*verdict.changes.working, *verdict.changes.stuck, *verdict.changes.waiting):
        click.echo(f"  {said.field}: {said.reason.value}: {said.message}")
    for number, action in enumerate(found.actions, 1):
        click.echo(f"{number:3}. {_described(action)}")
    for action in found.housekeeping:
        click.echo(f"then {_described(action)}")
    if not found.actions:
        click.echo("nothing to do now" + (f"; looks again in {found.wait_s:.1f} s" if found.wait_s is not None else ""))


def _described(action: Action) -> str:
    """The action's kind and its small fields; whole records and machines are not for reading in a line."""
    if isinstance(action, Tell):
        return f"Tell({action.what}: {action.command.name})"
    small = {
        field.name: getattr(action, field.name)
        for field in dataclasses.fields(action)
        if field.name not in ("record", "machine")
    }
    told = ", ".join(f"{name}={value}" for name, value in small.items())
    return f"{type(action).__name__}({told})"

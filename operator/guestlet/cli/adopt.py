"""``guestlet adopt``: takes over a QEMU that somebody else started, beside the agent, which does the rest.

It must never start, stop or change a QEMU, and writes nothing before everything about it is known.
"""

import asyncio
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from guestlet.api.reasons import Reason
from guestlet.cli.settings import config_option, node_settings
from guestlet.errors import Broken, GuestletError, Refused, Unknown
from guestlet.guest.desired import GuestKey

if TYPE_CHECKING:
    from guestlet.guest.record import Record
    from guestlet.guest.recovery.description import Description, Hints
    from guestlet.host.foreign import ForeignProcess
    from guestlet.host.node import NodeHost
    from guestlet.host.qmp import QmpSession
    from guestlet.settings import AgentSettings

_GREETING_S = 3.0
_NAMESPACE = uuid.UUID("b4c7f2d0-9a55-5c4e-8a6a-2f0f3f6f9d51")  # of uuids for QEMUs that were given none
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123 label, as the API server has it
_STANDING = frozenset({"running", "paused", "prelaunch"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command was asked for."""

    pid: int
    key: GuestKey
    socket: Path | None
    dry_run: bool
    partial: bool


@click.command()
@click.option("--pid", type=int, required=True, help="The QEMU's process.")
@click.option("--name", "guest", required=True, metavar="NAMESPACE/NAME", help="What it is to be called.")
@click.option("--qmp", "socket", type=click.Path(path_type=Path), help="Its QMP socket; absent: found by its process.")
@click.option("--dry-run", is_flag=True, help="Print the manifest and change nothing.")
@click.option("--partial", is_flag=True, help="Go on although disks are in no pool of the node: they are left alone.")
@config_option(required=False)
def adopt(*, pid: int, guest: str, socket: Path | None, dry_run: bool, partial: bool, config: Path | None) -> None:
    """Take over a QEMU that somebody else started, and print its VirtualGuest for kubectl apply -f -.

    The QEMU runs on untouched. Comments of the manifest name what is not certain.
    """
    settings = node_settings(config)
    if len(settings) > 1:
        names = ", ".join(each.node_name for each in settings)
        raise click.ClickException(f"there are several nodes here ({names}): give --config of the one it is to be on")
    key = _key(guest)
    wish = Wish(pid=pid, key=key, socket=socket, dry_run=dry_run, partial=partial)
    try:
        text = asyncio.run(_adopt(wish, settings[0]))
    except GuestletError as error:
        raise click.ClickException(error.message) from error
    click.echo(text, nl=False)
    done = "nothing was changed" if dry_run else f"{key} is {settings[0].node_name}'s: kubectl apply what is above"
    click.echo(f"QEMU {pid}: {done}", err=True)


def _key(text: str) -> GuestKey:
    """The name asked for, which must be one that an object can have: no other could ever take the guest over."""
    namespace, _, name = text.rpartition("/")
    if any(_NAME.fullmatch(each) is None for each in (namespace or "default", name)):
        raise click.ClickException(
            f"--name {text}: namespace and name must be lower-case letters, digits and '-', starting and ending with a "
            "letter or digit, at most 63 characters each"
        )
    return GuestKey(namespace=namespace or "default", name=name)


async def _adopt(wish: Wish, settings: "AgentSettings") -> str:
    from guestlet.guest.record import RECORD_FILE, dump_record
    from guestlet.guest.recover import adopted_record
    from guestlet.host.foreign import look_at
    from guestlet.host.node import NodeHost

    process = look_at(wish.pid)
    host = NodeHost(settings)
    await host.start(reading=True)
    try:
        records = await _records(host)
        _refuse_known(wish, process, records)
        description, monitor, observer = await _described(wish, process, host=host, settings=settings)
        _refuse_unfit(wish, description, records)
        text = _manifest(description, wish=wish, node=settings.node_name, host=host)
        if not wish.dry_run:
            record = adopted_record(description, key=wish.key, identity=process.identity, started_at=process.started_at)
            # The note and the links first: a record tells of a QEMU that can be found.
            await host.take_in(record.uuid, process.identity, monitor=monitor, observer=observer)
            await host.write_file(record.uuid, RECORD_FILE, dump_record(record))
        return text
    finally:
        await host.close()


async def _records(host: "NodeHost") -> "tuple[Record, ...]":
    from guestlet.guest.record import RECORD_FILE, parse_record

    found = []
    for guest in await host.guests():
        data = await host.read_file(guest, RECORD_FILE)
        try:
            found += [parse_record(data)] if data is not None else []
        except Broken as error:
            click.echo(f"the record of {guest} cannot be read and is passed over: {error.message}", err=True)
    return tuple(found)


def _refuse_known(wish: Wish, process: "ForeignProcess", records: "tuple[Record, ...]") -> None:
    for record in records:
        owner = f"{record.namespace}/{record.name}"
        if record.run is not None and record.run.identity == process.identity:
            raise Refused(Reason.QEMU_UNKNOWN, f"QEMU {wish.pid} is {owner} already: nothing to adopt")
        if (record.namespace, record.name) == (wish.key.namespace, wish.key.name):
            raise Refused(
                Reason.INVALID_SPEC,
                f"this node has a guest {owner} already ({record.uuid}): choose another --name, or end that one first "
                f"(delete its VirtualGuest, or guestlet forget {record.uuid})",
            )


def _refuse_unfit(wish: Wish, description: "Description", records: "tuple[Record, ...]") -> None:
    taken = next((each for each in records if each.uuid == description.machine.uuid), None)
    if taken is not None:
        raise Refused(
            Reason.INVALID_SPEC,
            f"its UUID {taken.uuid} is that of guest {taken.namespace}/{taken.name} of this node: two guests with one "
            "UUID cannot be told apart; end one of them",
        )
    if description.run_state.value not in _STANDING:
        raise Refused(
            Reason.QEMU_UNKNOWN,
            f"QEMU {wish.pid} is in state {description.run_state.value}: adopt it when it runs or is paused",
        )
    if description.outside and not wish.partial:
        raise Refused(
            Reason.NO_SUCH_POOL,
            f"{', '.join(description.outside)}: in no pool of this node, so these disks could not be named; "
            "make their folders pools (guestlet pool init FOLDER, pools in the node's settings), or leave these disks "
            "alone with --partial",
        )


async def _described(
    wish: Wish, process: "ForeignProcess", *, host: "NodeHost", settings: "AgentSettings"
) -> "tuple[Description, Path, Path | None]":
    from guestlet.guest.ask import ask_everything
    from guestlet.guest.recovery.describe import describe_running

    sockets = (wish.socket,) if wish.socket is not None else _candidates(process)
    sessions: list[tuple[Path, QmpSession]] = []
    try:
        refusals = await _connect(sessions, sockets, process)
        if not sessions:
            raise Refused(Reason.QEMU_SILENT, _no_monitor(wish, refusals))
        found = await ask_everything(sessions[0][1].execute)
    finally:
        for _, session in sessions:
            await session.close()
    observer = sessions[1][0] if len(sessions) > 1 else None
    return describe_running(found, _hints(wish, process, host=host, settings=settings)), sessions[0][0], observer


def _candidates(process: "ForeignProcess") -> tuple[Path, ...]:
    """The monitors of the command line, else whatever the process listens on that its command line does not name."""
    from guestlet.guest.recovery.command_line import monitor_sockets, other_sockets

    told = tuple(Path(process.folder, each) for each in monitor_sockets(process.argv))
    if told:
        return told
    others = {Path(process.folder, each) for each in other_sockets(process.argv)}
    return tuple(each for each in process.sockets if each not in others)


async def _connect(
    sessions: "list[tuple[Path, QmpSession]]", sockets: tuple[Path, ...], process: "ForeignProcess"
) -> tuple[str, ...]:
    """Opens those that greet; why the others do not. ``sessions`` is filled, so that the caller closes all."""
    from guestlet.host.qmp import QmpSession

    refusals = []
    for path in sockets:
        session = QmpSession(path, on_event=lambda event: None)
        try:
            await session.connect(process.identity, timeout_s=_GREETING_S)
        except (OSError, Unknown, Broken) as error:
            await session.close()
            why = error.message if isinstance(error, GuestletError) else error.strerror
            refusals.append(f"{path}: {why}")
        else:
            sessions.append((path, session))
    return tuple(refusals)


def _no_monitor(wish: Wish, refusals: tuple[str, ...]) -> str:
    if refusals:
        return (
            f"QEMU {wish.pid} cannot be spoken to ({'; '.join(refusals)}): a monitor takes one client, so end the one "
            "that has it (virtsh, a script), or give another with --qmp"
        )
    return (
        f"QEMU {wish.pid} has no QMP socket that can be found: give it with --qmp; one that was started without (-qmp "
        "unix:PATH,server=on,wait=off) cannot be adopted while it runs"
    )


def _hints(wish: Wish, process: "ForeignProcess", *, host: "NodeHost", settings: "AgentSettings") -> "Hints":
    from guestlet.guest.recovery.description import Hints

    paths = {str(path): each.name for each in settings.pools for path in (each.path.absolute(), each.path.resolve())}
    return Hints(
        name=str(wish.key),
        uuid=str(uuid.uuid5(_NAMESPACE, str(wish.key))),
        argv=process.argv,
        folder=process.folder,
        pools=paths,
        taps=process.taps,
        bridges=process.bridges,
        cpu_aliases=host.capabilities.cpu_aliases,
        spec=None,
    )


def _manifest(description: "Description", *, wish: Wish, node: str, host: "NodeHost") -> str:
    """The manifest, with what is not certain as comments before it.

    Raises:
        Refused: InvalidSpec, the API has no words for the machine.
    """
    from guestlet.guest.manifest import manifest_of

    machine = description.machine
    try:
        paused = description.run_state.value != "running"
        manifest = manifest_of(machine, key=wish.key, node=node, paused=paused)
    except ValueError as error:
        raise Refused(Reason.INVALID_SPEC, f"QEMU {wish.pid} is more than a VirtualGuest can say: {error}") from error
    doubts = list(description.doubts)
    if machine.machine_type not in host.capabilities.all_machine_types:
        doubts.append(
            f"the node's QEMU {host.capabilities.version} has no machine {machine.machine_type}: the next start is "
            "refused until one that has it is installed"
        )
    head = [f"# QEMU {wish.pid} ({description.qemu_version}) as a VirtualGuest.", *(f"# {each}" for each in doubts)]
    return "\n".join(head) + "\n" + yaml.safe_dump(manifest, sort_keys=False, width=120)

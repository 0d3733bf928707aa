"""Asks a running QEMU everything that a description of it needs.

It must never send anything but the questions of ``qemu.questions``, which change nothing.
"""

from collections.abc import Awaitable, Callable, Mapping

from guestlet.api.reasons import Reason
from guestlet.errors import Broken, Refused
from guestlet.guest.desired import Guest
from guestlet.guest.ports import GuestHost
from guestlet.guest.recovery.describe import describe_running
from guestlet.guest.recovery.description import Description, Hints
from guestlet.host.facts import ProcessIdentity
from guestlet.qemu.commands import Command
from guestlet.qemu.found import FoundQemu, parse_found
from guestlet.qemu.questions import RECOVERY_QUERIES, follow_up

Execute = Callable[[Command], Awaitable[object]]


async def ask_everything(execute: Execute) -> FoundQemu:
    """What the QEMU answers; ``execute`` sends one command.

    Raises:
        Unknown: it did not answer. Broken: HostFailure, an answer without which nothing can be said is missing.
    """
    replies: dict[str, object] = {}
    asked: set[str] = set()
    questions = RECOVERY_QUERIES
    while questions:
        asked |= {*questions}
        replies |= await _answers(execute, questions)
        questions = {key: command for key, command in follow_up(replies).items() if key not in asked}
    return parse_found(replies)


async def describe_guest(guest: Guest, key: str, process: ProcessIdentity, host: GuestHost) -> Description:
    """The description of a guest's QEMU of which neither record nor status tells.

    Raises:
        Unknown: it did not answer. Broken: RecordLost, its answers do not make a description.
    """
    try:
        return await _described(guest, key, process, host)
    except (Refused, Broken) as error:
        raise Broken(
            Reason.RECORD_LOST,
            f"QEMU {process.pid} of this guest runs, neither the node's record nor status says what it was given, and "
            f"its own answers do not ({error.message}); it is left alone and none is started: stop it on the node, or "
            "restore the record",
        ) from error


async def _described(guest: Guest, key: str, process: ProcessIdentity, host: GuestHost) -> Description:
    around = await host.surroundings(process)
    found = await ask_everything(lambda command: host.execute(key, command))
    hints = Hints(
        name=str(guest.key),
        uuid=key,
        argv=around.argv,
        folder=around.folder,
        pools=around.pools,
        taps=around.taps,
        bridges=around.bridges,
        cpu_aliases=host.capabilities.cpu_aliases,
        spec=guest.spec,
    )
    return describe_running(found, hints)


async def _answers(execute: Execute, questions: Mapping[str, Command]) -> dict[str, object]:
    """The answers by key; one that this QEMU, or this device, does not have is left out."""
    found: dict[str, object] = {}
    for key, command in questions.items():
        try:
            found[key] = await execute(command)
        except Broken as refusal:
            if refusal.reason != Reason.QMP_REFUSED:
                raise
    return found

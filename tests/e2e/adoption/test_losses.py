"""What the node lost while nobody watched: records, QEMUs, both; each has one outcome, and none is a second QEMU."""

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from e2e.life.witness import TINY, assert_in_hand, kill_qemu, layout_of, life_of, qemus_of
from e2e.stage import Guest, Stage, eventually
from sandbox.leftovers import launcher_of

NICS: Mapping[str, object] = {"networks": [{"name": "one", "user": {}}, {"name": "two", "isolated": {}}]}


def record_of(guest: Guest) -> Path:
    return guest.state / "record.json"


def lose(record: Path) -> None:
    record.unlink()


def cut(record: Path) -> None:
    record.write_bytes(record.read_bytes()[: record.stat().st_size // 2])


def empty(record: Path) -> None:
    record.write_bytes(b"")


def test_a_record_that_was_lost_is_made_again_from_status(stage: Stage) -> None:
    harm: dict[str, Callable[[Path], None]] = {"lost": lose, "cut": cut, "empty": empty}
    guests = [stage.guest(name, {**TINY, **NICS}, boot=False) for name in harm]
    for guest in guests:
        guest.wait()
        guest.wait_for_addresses()
    before = [(life_of(guest), layout_of(guest)) for guest in guests]
    stage.kill_agent("node-a")
    for guest in guests:
        harm[guest.name](record_of(guest))

    stage.start_agent("node-a")

    for guest in guests:
        assert_in_hand(guest)
        assert json.loads(record_of(guest).read_bytes())["record"]["run"]["identity"]["pid"] == guest.pid()
    assert [(life_of(guest), layout_of(guest)) for guest in guests] == before


def test_what_ended_unseen_is_started_once_more_where_it_was(stage: Stage) -> None:
    remembered, forgotten = (stage.guest(name, {**TINY, **NICS}, boot=False) for name in ("remembered", "forgotten"))
    for guest in (remembered, forgotten):
        guest.wait()
    before = {guest: (life_of(guest), layout_of(guest)) for guest in (remembered, forgotten)}
    stage.kill_agent("node-a")
    for guest in before:
        kill_qemu(guest)
    record_of(forgotten).unlink()

    stage.start_agent("node-a")

    for guest, (life, layout) in before.items():
        guest.wait_for(".status.restarts", "1")
        guest.wait()
        assert life_of(guest) != life
        assert layout_of(guest) == layout
        assert qemus_of(guest.field(".status.uuid")) == (guest.pid(),)
        assert guest.field(".status.restarts") == "1"
    assert remembered.field(".status.lastExit.reason") == "Crashed"


def test_guests_live_without_their_launcher_and_the_next_start_makes_another(stage: Stage) -> None:
    guest = stage.guest(spec=TINY, boot=False)
    guest.wait()
    life = life_of(guest)

    kill_launcher(guest)
    assert_in_hand(guest)
    assert life_of(guest) == life
    other = stage.guest("other", TINY, boot=False)
    other.wait()

    # Whose end nobody could see is known to have ended, and no more.
    kill_qemu(guest)
    guest.wait_for(".status.lastExit.reason", "Lost")
    guest.edit({"restart": {"token": "now"}})
    guest.wait()
    assert life_of(guest) != life


def kill_launcher(guest: Guest) -> None:
    lock = guest.node.state / "launcher.lock"
    pid = launcher_of(lock)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: launcher_of(lock) is None, timeout_s=10, what="the launcher's end")

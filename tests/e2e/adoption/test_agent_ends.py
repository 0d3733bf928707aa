"""The end of an agent is never a guest's: who comes after it finds every QEMU again and starts none twice."""

import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.life.witness import TINY, assert_in_hand, life_of, qemus_of, run_state, writes_of
from e2e.stage import Guest, Stage

ENDS: dict[str, Callable[[Stage], None]] = {
    "killed": lambda stage: stage.kill_agent("node-a"),
    "told": lambda stage: stage.stop_agent("node-a"),
}
# Milliseconds after the start is announced in the record: an idle node has a QEMU after 20 and its monitor after 60.
MOMENTS = random.Random(4)
DEATHS_MS = tuple(MOMENTS.randrange(120) for _ in range(10))


@pytest.mark.parametrize("how", ENDS)
def test_the_next_agent_takes_every_guest_as_it_stands(stage: Stage, audit_log: Path, how: str) -> None:
    running, paused, halted = (stage.guest(name, TINY, boot=False) for name in ("running", "paused", "halted"))
    for guest in (running, paused, halted):
        guest.wait()
    paused.edit({"paused": True})
    halted.edit({"runStrategy": "Halted"})
    paused.wait("Paused")
    halted.wait_for(".status.phase", "Stopped")
    running.wait_for_addresses()
    lives = life_of(running), life_of(paused)
    written = writes_of(audit_log, running)

    began = time.monotonic()
    ENDS[how](stage)
    assert time.monotonic() - began < 5
    assert (life_of(running), life_of(paused)) == lives
    stage.start_agent("node-a")
    paused.edit({"paused": False})
    paused.wait()

    assert (life_of(running), life_of(paused)) == lives
    assert run_state(running) == run_state(paused) == "running"
    assert writes_of(audit_log, running) == written
    assert qemus_of(halted.field(".status.uuid")) == ()
    assert_in_hand(running)
    assert {guest.field(".status.restarts") for guest in (running, paused)} == {"0"}


def start_until_the_agent_dies(stage: Stage, guest: Guest, after_ms: int) -> None:
    """Lets the guest start, and kills the agent within the start."""
    record = guest.state / "record.json"
    before = record.stat().st_mtime_ns
    body = json.dumps({"spec": {"runStrategy": "Always"}})
    arguments = ("patch", "vg", guest.name, "-n", guest.namespace, "--type=merge", "-p", body)
    with subprocess.Popen(guest.kubectl.command(*arguments), stdout=subprocess.DEVNULL):
        deadline = time.monotonic() + 20
        while record.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline, "no start was announced"
        time.sleep(after_ms / 1000)
        stage.kill_agent("node-a")


def test_a_death_in_the_middle_of_a_start_never_makes_two(stage: Stage) -> None:
    guest = stage.guest(spec={**TINY, "runStrategy": "Halted"}, boot=False)
    guest.wait_for(".status.phase", "Stopped")
    uuid = guest.field(".status.uuid")
    for after_ms in DEATHS_MS:
        start_until_the_agent_dies(stage, guest, after_ms)
        left = qemus_of(uuid)
        assert len(left) <= 1

        stage.start_agent("node-a")
        guest.wait()

        assert qemus_of(uuid) == (life_of(guest).pid,)
        assert left in ((), qemus_of(uuid)), f"killed after {after_ms} ms: the QEMU that was there was replaced"
        assert guest.field(".status.restarts") in ("", "0")
        guest.edit({"runStrategy": "Halted"})
        guest.wait_for(".status.phase", "Stopped")

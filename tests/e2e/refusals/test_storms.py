"""A QEMU that never speaks, a user who never rests: the guest settles all the same, and nothing piles up."""

import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from e2e.life.witness import TINY, life_of, qemus_of, writes_of
from e2e.refusals.conftest import MUTE, POOR_NODE
from e2e.stage import Guest, Stage
from sandbox.leftovers import processes_below
from sandbox.nodes import Node

EDITS = 300
EDITS_PER_S = 100.0


def test_a_qemu_that_never_opens_its_monitor_is_ended_and_told_of(stage: Stage, poor_node: Node) -> None:
    guest = stage.guest(MUTE, {**TINY, "nodeName": POOR_NODE}, boot=False)

    told = guest.wait_for_reason("Stalled", "BackOff")

    assert told["status"] == "True"
    assert guest.field(".status.lastExit.reason") == "QemuSilent"
    assert {reason for reason, _ in stage.events(guest)} & {"QemuSilent", "BackOff"}
    assert [line for line in processes_below(poor_node.state).values() if "guest=" in line] == []
    other = stage.guest("talkative", {**TINY, "nodeName": POOR_NODE}, boot=False)
    other.wait()


@contextmanager
def connection_of(guest: Guest) -> Iterator[http.client.HTTPConnection]:
    """A connection to the API server that is fast enough for a hundred requests a second."""
    command = guest.kubectl.command("proxy", "--port=0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=guest.kubectl.environment()) as proxy:
        try:
            assert proxy.stdout is not None
            address = proxy.stdout.readline().split()[-1]
            with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
                yield connection
        finally:
            proxy.terminate()


def storm(guest: Guest, *, last_mib: int) -> None:
    """Edits memory and paused over and over, ends with the given memory and not paused."""
    path = f"/apis/guestlet.io/v1alpha1/namespaces/{guest.namespace}/virtualguests/{guest.name}"
    with connection_of(guest) as connection:
        began = time.monotonic()
        for number in range(1, EDITS + 1):
            size = last_mib if number == EDITS else 32 + number % 32
            body = {"spec": {"memory": {"size": f"{size}Mi"}, "paused": number % 50 == 25}}
            connection.request("PATCH", path, json.dumps(body), {"Content-Type": "application/merge-patch+json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == http.HTTPStatus.OK
            time.sleep(max(0.0, began + number / EDITS_PER_S - time.monotonic()))


def test_a_running_guest_that_is_edited_all_the_time_settles(stage: Stage, audit_log: Path) -> None:
    guest = stage.guest(spec=TINY, boot=False)
    guest.wait()
    life = life_of(guest)

    storm(guest, last_mib=64)

    guest.wait_until_observed()
    guest.wait()
    told = guest.wait_for_reason("RestartRequired", "FieldsWaiting")
    assert "memory.size" in told["message"]
    assert life_of(guest) == life
    # A turn takes what is there when it comes: far fewer writes than edits.
    assert len(writes_of(audit_log, guest)) < EDITS
    guest.edit({"memory": {"size": "32Mi"}})
    guest.wait("RestartRequired", "False")


def test_a_guest_that_is_edited_all_the_time_starts_once(stage: Stage) -> None:
    guest = stage.guest(spec=TINY, boot=False)

    storm(guest, last_mib=40)

    guest.wait_until_observed()
    guest.wait()
    assert qemus_of(guest.field(".status.uuid")) == (guest.pid(),)
    assert guest.field(".status.restarts") == "0"
    started_with = guest.field(".status.memory.atBoot")
    waits = guest.condition("RestartRequired")["status"]
    assert waits == ("False" if started_with == "40Mi" else "True")

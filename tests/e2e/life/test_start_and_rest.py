"""From apply to Ready in few writes, and then none: status is written when something changed, and only then."""

import time
from pathlib import Path
from typing import cast

from e2e.life.witness import TINY, writes_of
from e2e.stage import Stage, eventually
from sandbox.audit import read_audit_log
from sandbox.kubectl import Object

QUIET_S = 30.0


def test_a_guest_is_ready_after_four_writes_and_nothing_is_written_while_it_runs(stage: Stage, audit_log: Path) -> None:
    guest = stage.guest(spec=TINY, boot=False)
    guest.wait()
    written = [request.right for request in writes_of(audit_log, guest)]
    assert 1 <= len(written) <= 4, written
    guest.wait_for_addresses()
    # Its Events are still on their way: they are told apart from the object's own writes, and must end too.
    eventually(lambda: len(stage.events(guest)) > 0, what="an Event")
    time.sleep(1)

    before = len(read_audit_log(audit_log))
    time.sleep(QUIET_S)
    since = read_audit_log(audit_log)[before:]

    ours = [each for each in since if each.is_write and "guestlet-system" in each.user and each.resource != "leases"]
    assert ours == []
    assert any(each.resource == "leases" for each in since)


def test_the_first_write_that_says_ready_says_everything(stage: Stage) -> None:
    guest = stage.guest(spec={**TINY, "networks": [{"name": "lan", "user": {}}]}, boot=False)
    guest.wait()
    status = guest.status()

    assert status["observedGeneration"] == 1
    assert {"uuid", "machineType", "accelerator", "qemu", "cpu", "memory", "pci", "networks"} <= status.keys()
    assert guest.field(".status.phase") == "Running"
    assert guest.condition("Reconciling")["status"] == guest.condition("Stalled")["status"] == "False"
    assert guest.condition("RestartRequired")["status"] == guest.condition("Paused")["status"] == "False"
    conditions = cast("list[Object]", status["conditions"])
    assert {each["observedGeneration"] for each in conditions} == {1}

"""Status alone gives the command line of the QEMU that runs, whatever spec holds meanwhile.

Random machines are started, edited at random in fields that wait for a restart, and read back from the API server;
another process with other directories rebuilds the command line from status, and the kernel says what really runs.
"""

from random import Random

from e2e.machine.rebuild.compare import rebuilt, running
from e2e.machine.rebuild.random_specs import random_edit, random_spec
from e2e.stage import Guest, Stage

SEED = 4
GUESTS = 6
EDITS = 3


def test_status_alone_rebuilds_what_runs_whatever_spec_waits_for(stage: Stage) -> None:
    random = Random(SEED)
    guests = [started(stage, random, f"guest-{index}") for index in range(GUESTS)]
    for guest in guests:
        guest.wait("Paused", timeout_s=180)
    before = {guest.name: running(guest) for guest in guests}

    for guest in guests:
        assert rebuilt(guest.read()) == before[guest.name]
        for _ in range(EDITS):
            guest.edit(random_edit(random, f"{stage.namespace[-4:]}-{guest.name}", guest.read()))
        guest.wait_until_observed()

    for guest in guests:
        assert rebuilt(guest.read()) == before[guest.name] == running(guest)
    assert any(guest.condition("RestartRequired")["status"] == "True" for guest in guests)

    for guest in guests[:3]:
        guest.edit({"restart": {"token": "now"}})
        guest.wait_for(".status.restartToken", "now")
        guest.wait("Paused", timeout_s=180)
        assert rebuilt(guest.read()) == running(guest) != before[guest.name]


def started(stage: Stage, random: Random, name: str) -> Guest:
    """A random guest, applied."""
    spec = random_spec(random, f"{stage.namespace[-4:]}-{name}")
    return stage.guest(name, spec, boot=False)

"""An edit that a running guest cannot take waits for its restart, is named meanwhile, and is never half applied."""

from e2e.life.witness import TINY, disk, layout_of, life_of
from e2e.stage import Guest, Stage
from sandbox.processes import command_line

BUSES = {"root": "Virtio", "data": "NVMe"}


def argv_of(guest: Guest) -> str:
    pid = guest.pid()
    assert pid is not None
    return " ".join(command_line(pid))


def test_what_waits_is_named_and_a_restart_applies_it(stage: Stage) -> None:
    root, data = (disk(name, f"{stage.namespace}-{name}.qcow2", bus=bus) for name, bus in BUSES.items())
    image = stage.sandbox.node("node-a").pool() / f"{stage.namespace}-data.qcow2"
    guest = stage.guest(spec={**TINY, "disks": [root]}, boot=False)
    guest.wait()
    life, argv, layout = life_of(guest), argv_of(guest), layout_of(guest)

    guest.edit(
        {
            "memory": {"size": "48Mi"},
            "cpu": {"count": 2},
            "disks": [root, {**data, "pciAddress": "pcie.0:0a.0"}],
            "terminationGracePeriodSeconds": 1,
        }
    )

    told = guest.wait_for_reason("RestartRequired", "FieldsWaiting")
    assert told["status"] == "True"
    assert "cpu.count, disks[data], memory.size;" in told["message"]
    assert guest.condition("Ready")["status"] == "True"
    assert (life_of(guest), argv_of(guest)) == (life, argv)
    assert not image.exists()
    assert guest.field(".status.memory.current") in ("32Mi", "33554432")

    guest.edit({"restart": {"token": "apply"}})
    guest.wait_for(".status.restartToken", "apply")
    guest.wait()

    assert guest.condition("RestartRequired")["status"] == "False"
    assert life_of(guest) != life
    assert "size=50331648" in argv_of(guest)
    assert "cpus=2" in argv_of(guest)
    assert image.exists()
    assert layout.places <= layout_of(guest).places, "what was there moved"


def test_an_edit_that_is_taken_back_waits_no_longer(stage: Stage) -> None:
    guest = stage.guest(spec=TINY, boot=False)
    guest.wait()
    life = life_of(guest)
    guest.edit({"memory": {"size": "64Mi"}})
    guest.wait("RestartRequired")
    guest.edit({"memory": {"size": "32Mi"}})
    guest.wait("RestartRequired", "False")
    assert life_of(guest) == life


def test_an_edit_that_the_next_start_could_not_have_is_said_before_it(stage: Stage) -> None:
    guest = stage.guest(spec=TINY, boot=False)
    guest.wait()
    guest.edit({"cpu": {"model": "No-Such-Model"}})
    told = guest.wait_for_reason("RestartRequired", "FieldsWaiting")
    assert "the next start would be refused" in told["message"]
    assert "No-Such-Model" in told["message"]
    assert guest.condition("Ready")["status"] == "True"

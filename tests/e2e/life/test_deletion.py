"""Deleting a guest always converges, ends its QEMU, and takes no image that it was not told to take."""

from pathlib import Path

import pytest

from e2e.life.witness import TINY, disk, kill_qemu, qemus_of
from e2e.stage import Guest, Stage, eventually
from sandbox.leftovers import processes_below


def gone(guest: Guest, uuid: str, state: Path, runtime: Path) -> None:
    guest.wait_until_gone()
    assert qemus_of(uuid) == ()
    # One that never ran has no finalizer: its agent hears of the end afterwards.
    eventually(lambda: not state.exists() and not runtime.exists(), timeout_s=10, what="the end of its directories")


@pytest.mark.parametrize("state", ["running", "paused", "halted", "backing-off"])
def test_a_guest_goes_whatever_it_was_doing(stage: Stage, state: str) -> None:
    strategy = {"runStrategy": "Halted"} if state == "halted" else {}
    guest = stage.guest(spec={**TINY, **strategy, "paused": state == "paused"}, boot=False)
    guest.wait_for(".status.phase", {"halted": "Stopped", "paused": "Paused"}.get(state, "Running"))
    if state == "backing-off":
        kill_qemu(guest)
        guest.wait_for_reason("Ready", "BackOff")
    uuid = guest.field(".status.uuid")
    folders = guest.state, guest.node.runtime / uuid

    guest.delete()

    gone(guest, uuid, *folders)


def test_a_guest_that_is_deleted_while_it_starts_leaves_nothing(stage: Stage) -> None:
    node = stage.sandbox.node("node-a")
    before = set((node.state / "guests").iterdir())
    guests = [stage.guest(f"guest-{number}", TINY, boot=False) for number in range(4)]
    for number, guest in enumerate(guests):
        if number % 2:
            guest.wait_for(".status.nodeName", "node-a")
        guest.delete(wait=False)

    for guest in guests:
        guest.wait_until_gone()
    eventually(lambda: set((node.state / "guests").iterdir()) == before, timeout_s=10, what="the last directory's end")
    assert [line for line in processes_below(node.state / "guests").values() if stage.namespace in line] == []


def test_images_stay_unless_the_disk_says_delete_and_guestlet_made_it(stage: Stage) -> None:
    pool = stage.sandbox.node("node-a").pool()
    doomed, kept, theirs = (pool / f"{stage.namespace}-{name}.qcow2" for name in ("doomed", "kept", "theirs"))
    stage.image(theirs.name, nodes=("node-a",))
    disks = [
        disk("doomed", doomed.name, onDelete="Delete"),
        disk("kept", kept.name, onDelete="Keep"),
        disk("theirs", theirs.name, size="8Mi", onDelete="Delete"),
    ]
    guest = stage.guest(spec={**TINY, "disks": disks}, boot=False)
    guest.wait()
    assert doomed.exists()
    assert kept.exists()

    guest.delete()

    guest.wait_until_gone()
    assert not doomed.exists()
    assert kept.exists()
    assert theirs.exists(), "an image that guestlet did not make is never deleted"

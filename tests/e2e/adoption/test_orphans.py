"""An object that is gone without having been deleted is no reason to end a guest."""

from pathlib import Path

from e2e.life.witness import TINY, assert_in_hand, life_of, qemus_of
from e2e.stage import Guest, Stage, eventually
from sandbox.nodes import run_guestlet
from sandbox.snapshot import back_up, restore


def orphaned(stage: Stage, uuid: str) -> bool:
    """Whether the Node has an Event that tells of this guest."""
    events = stage.sandbox.kubectl.list("events", "--all-namespaces", "--field-selector=involvedObject.kind=Node")
    return any(event["reason"] == "GuestOrphaned" and uuid in str(event["message"]) for event in events)


def force_off(guest: Guest) -> None:
    """What a person does who has lost patience with a deletion."""
    arguments = ("patch", "vg", guest.name, "-n", guest.namespace, "--type=json")
    guest.kubectl(*arguments, "-p", '[{"op": "remove", "path": "/metadata/finalizers"}]')
    guest.kubectl("delete", "vg", guest.name, "-n", guest.namespace, "--wait=false")


def test_a_guest_whose_finalizer_was_forced_off_runs_on_until_a_person_forgets_it(stage: Stage) -> None:
    guest = stage.guest(spec=TINY, boot=False)
    guest.wait()
    uuid, state, life, config = guest.field(".status.uuid"), guest.state, life_of(guest), guest.node.config
    stage.stop_agent("node-a")
    force_off(guest)
    guest.wait_until_gone()
    stage.start_agent("node-a")

    eventually(lambda: orphaned(stage, uuid), what="an Event about the orphan")
    assert qemus_of(uuid) == (life.pid,)
    run_guestlet("forget", uuid, "--yes", "--config", str(config))

    eventually(lambda: not state.exists(), timeout_s=45, what="the end of the orphan")
    assert qemus_of(uuid) == ()


def test_an_api_server_restored_to_before_the_guest_leaves_it_running(stage: Stage, tmp_path: Path) -> None:
    control_plane = stage.sandbox.control_plane
    back_up(control_plane, tmp_path / "snapshot")
    guest = stage.guest(spec=TINY, boot=False)
    guest.wait()
    uuid, life = guest.field(".status.uuid"), life_of(guest)

    restore(control_plane, tmp_path / "snapshot")

    assert not guest.exists()
    eventually(lambda: orphaned(stage, uuid), timeout_s=90, what="an Event about the orphan")
    assert qemus_of(uuid) == (life.pid,)
    again = stage.guest(spec=TINY, boot=False)
    again.wait()
    assert life_of(again) == life
    assert again.field(".status.uuid") == uuid
    assert_in_hand(again)
    again.delete()
    assert qemus_of(uuid) == ()

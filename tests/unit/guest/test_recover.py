"""A record for a guest that has none: never a second start, never a guess."""

import pytest

from guestlet.api.base import Condition
from guestlet.api.guest_status import QemuStatus, VirtualGuestStatus
from guestlet.errors import Broken
from guestlet.guest.describe import publish_machine
from guestlet.guest.life import has_ended
from guestlet.guest.record import NO_ALIASES, Aliases
from guestlet.guest.recover import must_ask, record_key, recovered_record
from guestlet.guest.recovery.description import Description
from guestlet.guest.source import waiting_fields
from guestlet.guest.times import rfc3339, seconds_of
from guestlet.host.facts import ProcessFacts
from guestlet.qemu.replies import RunState
from unit.guest.guest_samples import NOW, QEMU, UUID, disk, guest, machine

SPEC = {"disks": [disk(size="1Gi")]}
ALIVE = ProcessFacts(running=QEMU, last_exit=None)
GONE = ProcessFacts(running=None, last_exit=None)
CREATED = rfc3339(NOW - 500)


def published(*, pid: int | None = QEMU.pid, waits: bool = False) -> VirtualGuestStatus:
    waiting = Condition(
        type="RestartRequired",
        status="True" if waits else "False",
        reason="FieldsWaiting",
        message="memory.size",
        last_transition_time=CREATED,
    )
    started = rfc3339(NOW - 100) if pid else None
    return publish_machine(machine(SPEC), numbered=None, created_at={"root": CREATED}).model_copy(
        update={
            "qemu": QemuStatus(version="7.2.22", pid=pid, started_at=started, sandbox=True),
            "observed_generation": 1,
            "conditions": (waiting,),
            "restarts": 3,
            "restart_token": "two",
        }
    )


def test_a_guest_that_never_was_gets_an_empty_record_by_its_uid() -> None:
    new = guest(uid="uid-7")

    found = recovered_record(new, GONE)

    assert record_key(new) == "uid-7"
    assert (found.uuid, found.machine, found.run, found.created_images) == ("uid-7", None, None, ())


def test_a_lost_record_is_built_again_from_status_while_its_qemu_runs() -> None:
    found = recovered_record(guest(SPEC, status=published()), ALIVE)

    assert found.uuid == UUID
    assert found.machine == machine(SPEC)
    assert found.run is not None
    assert (found.run.identity, found.run.started_at, found.run.resumed) == (QEMU, NOW - 100, True)
    assert (found.restarts, found.restart_token) == (3, "two")
    assert [(made.image, made.created_at) for made in found.created_images] == [("root.qcow2", NOW - 500)]
    assert waiting_fields(guest(SPEC).spec, found.source) == ()


def test_edits_that_wait_are_still_named_when_the_record_is_lost() -> None:
    edited = {"disks": [disk(size="1Gi", cache="None")], "firmware": {"type": "UEFI"}}

    found = recovered_record(guest(edited, status=published(waits=True), generation=2), ALIVE)

    assert waiting_fields(guest(edited).spec, found.source) == ("disks[root].cache", "firmware.type")


def test_when_both_are_gone_and_status_says_running_the_end_is_seen_before_a_start() -> None:
    found = recovered_record(guest(SPEC, status=published()), GONE)

    assert has_ended(found, GONE)


def test_when_both_are_gone_and_status_says_stopped_nothing_ended() -> None:
    found = recovered_record(guest(SPEC, status=published(pid=None)), GONE)

    assert found.run is None
    assert found.machine == machine(SPEC)
    assert [made.image for made in found.created_images] == ["root.qcow2"]


def test_a_qemu_that_nobody_can_describe_is_left_alone() -> None:
    with pytest.raises(Broken, match="it is left alone and none is started") as error:
        recovered_record(guest(SPEC), ALIVE)

    assert error.value.reason == "RecordLost"


def test_a_qemu_that_status_does_not_describe_is_described_by_its_own_answers() -> None:
    answered = Description(
        machine=machine(SPEC),
        qemu_version="10.0.2",
        run_state=RunState.RUNNING,
        aliases=NO_ALIASES,
        doubts=(),
        outside=(),
    )

    found = recovered_record(guest(SPEC), ALIVE, answered)

    assert must_ask(guest(SPEC), ALIVE)
    assert found.machine == machine(SPEC)
    assert found.run is not None
    assert (found.run.identity, found.run.qemu_version, found.run.foreign) == (QEMU, "10.0.2", False)
    assert waiting_fields(guest(SPEC).spec, found.source) == ()


def test_a_status_that_says_the_machine_only_in_part_says_nothing() -> None:
    half = published().model_copy(update={"cpu": None})

    assert must_ask(guest(SPEC, status=half), ALIVE)
    with pytest.raises(Broken, match="neither the node's record nor status"):
        recovered_record(guest(SPEC, status=half), ALIVE)
    with pytest.raises(Broken, match="only in part"):
        recovered_record(guest(SPEC, status=half), GONE)


def test_a_qemu_that_status_describes_need_not_be_asked() -> None:
    assert not must_ask(guest(SPEC, status=published()), ALIVE)
    assert not must_ask(guest(SPEC), GONE)


def test_the_names_that_a_foreign_qemu_has_for_our_parts_are_kept() -> None:
    aliases = Aliases(devices={"disk-root": "virtio0"}, nodes={}, netdevs={})
    answered = Description(
        machine=machine(SPEC), qemu_version="7.2.22", run_state=RunState.RUNNING, aliases=aliases, doubts=(), outside=()
    )

    found = recovered_record(guest(SPEC, status=published()), ALIVE, answered)

    assert found.run is not None
    assert (found.run.foreign, found.run.aliases) == (True, aliases)


def test_a_user_pause_is_not_forgotten_with_the_record() -> None:
    assert recovered_record(guest({**SPEC, "paused": True}, status=published()), ALIVE).paused


def test_times_are_read_as_they_are_written() -> None:
    assert seconds_of(rfc3339(NOW)) == NOW
    with pytest.raises(ValueError, match="Invalid isoformat"):
        seconds_of("yesterday")

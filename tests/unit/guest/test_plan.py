"""The decision about one guest, situation by situation: which actions, in which order."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from guestlet.guest.actions import GUARDED, Action
from guestlet.guest.desired import Guest
from guestlet.guest.observed import ObservedGuest
from guestlet.guest.plan import plan_guest
from guestlet.guest.record import CreatedImage, Record, StopCause, StopIntent
from guestlet.qemu.replies import RunState
from unit.guest.guest_samples import (
    NOW,
    QEMU,
    disk,
    exit_facts,
    guest,
    image,
    machine,
    network,
    observed,
    record,
    run,
    running_record,
    storage,
)

TAP = {"name": "lan", "tap": {"upScript": "up.sh", "downScript": "down.sh"}}
FULL: dict[str, Any] = {"disks": [disk(size="2Gi", onDelete="Delete")], "networks": [TAP]}
LOOK: dict[str, Any] = {"network": network(scripts=("up.sh", "down.sh"))}
FRESH = observed(**LOOK)
THERE = observed(storage=storage(image()), **LOOK)
RUNNING = observed(running=QEMU, run_state=RunState.RUNNING, storage=None, network=None)
FROZEN = replace(RUNNING, monitor=replace(RUNNING.monitor, run_state=RunState.PRELAUNCH)) if RUNNING.monitor else FRESH
MADE = (CreatedImage(disk="root", pool="default", image="root.qcow2", created_at=NOW - 50, doomed=False),)
ANNOUNCED = run(identity=None, argv=(), resumed=False)


def stopping(cause: StopCause, *, since: float = NOW - 1, grace_s: float = 30.0) -> StopIntent:
    return StopIntent(cause=cause, since=since, grace_s=grace_s, pressed_at=since, token=None)


def full(**fields: Any) -> Record:
    return record(FULL, **{"machine": machine(FULL, **LOOK), **fields})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One situation. ``then`` are the kinds of the plan's actions, ``later`` those after publishing."""

    guest: Guest
    look: ObservedGuest
    record: Record
    then: tuple[str, ...]
    later: tuple[str, ...] = ()
    wait_s: float | None = None


START = ("SaveRecord", "OpenTap", "RunTapScript", "Launch")
SITUATIONS: dict[str, Case] = {
    "new": Case(
        guest=guest(FULL, has_finalizer=False),
        look=FRESH,
        record=record(FULL),
        then=("AddFinalizer", "SaveRecord", "CreateImage", *START),
    ),
    "new, its image there and too small": Case(
        guest=guest(FULL), look=THERE, record=record(FULL), then=("GrowImage", *START)
    ),
    "announced and never begun": Case(
        guest=guest(FULL),
        look=THERE,
        record=full(run=ANNOUNCED),
        then=("GrowImage", "RunTapScript", "CloseTap", *START),
    ),
    "announced and not wanted any more": Case(
        guest=guest({**FULL, "runStrategy": "Halted"}),
        look=THERE,
        record=full(run=ANNOUNCED, strategy="Halted"),
        then=("RunTapScript", "CloseTap", "SaveRecord"),
    ),
    "halted": Case(guest=guest({**FULL, "runStrategy": "Halted"}), look=THERE, record=full(strategy="Halted"), then=()),
    "halted and edited": Case(
        guest=guest({**FULL, "runStrategy": "Halted"}, generation=2),
        look=THERE,
        record=full(strategy="Halted"),
        then=(),
        later=("WriteDescription",),
    ),
    "found running, never recorded": Case(
        guest=guest(FULL), look=RUNNING, record=full(run=ANNOUNCED), then=("SaveRecord",)
    ),
    "found running without a finalizer": Case(
        guest=guest(has_finalizer=False), look=RUNNING, record=running_record(), then=("AddFinalizer",)
    ),
    "frozen": Case(guest=guest(), look=FROZEN, record=running_record(), then=("Resume",)),
    "frozen after an adoption": Case(
        guest=guest(),
        look=FROZEN,
        record=running_record(run=run(argv=(), resumed=False)),
        then=("SaveRecord", "Resume"),
    ),
    "frozen with a cable out": Case(
        guest=guest({"networks": [{"name": "lan", "user": {}, "linkUp": False}]}),
        look=FROZEN,
        record=running_record({"networks": [{"name": "lan", "user": {}, "linkUp": False}]}),
        then=("SetLink", "Resume"),
    ),
    "running, not noted yet": Case(
        guest=guest(),
        look=RUNNING,
        record=running_record(run=run(resumed=False, started_at=NOW)),
        then=(),
        later=("SaveRecord", "TrimLogs"),
        wait_s=0.25,
    ),
    "to be paused": Case(
        guest=guest({"paused": True}), look=RUNNING, record=running_record(), then=("SaveRecord", "Pause")
    ),
    "to be reset": Case(
        guest=guest({"restart": {"token": "one", "mode": "Reset"}}),
        look=RUNNING,
        record=running_record(),
        then=("Reset", "SaveRecord"),
    ),
    "to be stopped": Case(
        guest=guest({"runStrategy": "Halted"}),
        look=RUNNING,
        record=running_record(strategy="Halted"),
        then=("SaveRecord", "PowerDown"),
    ),
    "being stopped": Case(
        guest=guest({"runStrategy": "Halted"}),
        look=RUNNING,
        record=running_record(strategy="Halted", stop=stopping(StopCause.HALTED)),
        then=(),
        wait_s=2.0,
    ),
    "being stopped, deaf": Case(
        guest=guest({"runStrategy": "Halted"}),
        look=RUNNING,
        record=running_record(strategy="Halted", stop=stopping(StopCause.HALTED, since=NOW - 31)),
        then=("Kill",),
        wait_s=0.5,
    ),
    "deleted while frozen": Case(
        guest=guest(deleting=True),
        look=FROZEN,
        record=running_record(stop=stopping(StopCause.DELETED)),
        then=("Kill",),
        wait_s=0.5,
    ),
    "deleted and gone": Case(
        guest=guest(FULL, deleting=True),
        look=THERE,
        record=full(created_images=MADE),
        then=("DeleteImage", "Forget", "RemoveFinalizer"),
    ),
    "deleted, its image only announced": Case(
        guest=guest(FULL, deleting=True),
        look=THERE,
        record=full(created_images=(replace(MADE[0], created_at=0.0),)),
        then=("Forget", "RemoveFinalizer"),
    ),
    "deleted, its image named by another guest": Case(
        guest=guest(FULL, deleting=True),
        look=observed(
            storage=storage(image(), needed={("default", "root.qcow2"): "guest default/other names it"}), **LOOK
        ),
        record=full(created_images=MADE),
        then=("KeepImage", "Forget", "RemoveFinalizer"),
    ),
    "ended": Case(
        guest=guest(FULL),
        look=replace(THERE, process=observed(last_exit=exit_facts(signal=11)).process),
        record=full(run=run()),
        then=("RunTapScript", "CloseTap", "SaveRecord"),
    ),
    "given away": Case(guest=guest(epoch=1), look=RUNNING, record=running_record(given_away_epoch=1), then=()),
    "of a new object": Case(guest=guest(uid="uid-9"), look=RUNNING, record=running_record(), then=("SaveRecord",)),
}


def kinds(actions: tuple[Action, ...]) -> tuple[str, ...]:
    return tuple(type(action).__name__ for action in actions)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_situation_has_its_plan(situation: str) -> None:
    case = SITUATIONS[situation]

    plan = plan_guest(guest=case.guest, observed=case.look, record=case.record, now=NOW)

    assert kinds(plan.actions) == case.then
    assert [kind for kind in kinds(plan.housekeeping) if kind in case.later] == list(case.later)
    if case.wait_s is not None:
        assert plan.wait_s == case.wait_s


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_plan_is_a_pure_function(situation: str) -> None:
    case = SITUATIONS[situation]

    plans = [plan_guest(guest=case.guest, observed=case.look, record=case.record, now=NOW) for _ in range(2)]

    assert plans[0] == plans[1]


def test_what_cannot_be_taken_back_is_guarded() -> None:
    assert {kind.__name__ for kind in GUARDED} == {
        "Launch",
        "Resume",
        "Kill",
        "PowerDown",
        "Reset",
        "CreateImage",
        "GrowImage",
        "DeleteImage",
        "Forget",
    }

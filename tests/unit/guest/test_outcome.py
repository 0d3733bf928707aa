"""What an action's error says about the guest, and which changes of status are worth an Event."""

import pytest

from guestlet.api.base import Condition
from guestlet.api.guest_status import Phase, VirtualGuestStatus
from guestlet.errors import Broken, GuestletError, NotNow, Refused, Unknown
from guestlet.guest.outcome import Transition, retry_s, transitions, verdict_of


@pytest.mark.parametrize(
    ("error", "stalled", "again_s", "adds"),
    [
        (Refused("NoSpace", "the pool is full"), True, 30.0, ""),
        (Broken("HostFailure", "the disk is broken"), True, 10.0, "; it is tried again"),
        (Unknown("QemuSilent", "no answer"), False, 0.5, "; the node is looked at again"),
        (NotNow("Conflict", "somebody wrote first"), False, 0.5, "; the node is looked at again"),
        (GuestletError("HostFailure", "of no branch"), True, 30.0, ""),
    ],
)
def test_the_branch_of_an_error_says_what_becomes_of_the_guest(
    error: GuestletError, stalled: bool, again_s: float, adds: str
) -> None:
    found = verdict_of(error, running=False)

    assert (found.stalled, retry_s(error)) == (stalled, again_s)
    assert found.message.endswith(error.message + adds)
    assert found.reason.value == error.reason


def test_a_guest_that_runs_all_the_same_is_not_called_pending() -> None:
    assert verdict_of(Unknown("QemuSilent", "no answer"), running=True).phase is Phase.UNKNOWN
    assert verdict_of(Unknown("QemuSilent", "no answer"), running=False).phase is Phase.PENDING


def test_a_word_that_is_not_documented_is_published_as_a_failure_of_the_host() -> None:
    assert verdict_of(Broken("Gremlins", "in the wires"), running=False).reason == "HostFailure"


def status(*conditions: tuple[str, str, str]) -> VirtualGuestStatus:
    return VirtualGuestStatus(
        conditions=tuple(
            Condition(type=kind, status=value, reason=reason, message=reason, last_transition_time="")
            for kind, value, reason in conditions
        )
    )


READY, WAITING = ("Ready", "True", "Running"), ("Ready", "False", "Starting")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([], [WAITING], [Transition(reason="Starting", message="Starting", warning=False)]),
        ([READY], [READY], []),
        ([WAITING], [READY], [Transition(reason="Running", message="Running", warning=False)]),
        (
            [READY],
            [("Ready", "False", "NoSpace"), ("Stalled", "True", "NoSpace")],
            [Transition(reason="NoSpace", message="NoSpace", warning=True)],
        ),
        ([READY], [READY, ("Paused", "True", "User")], [Transition(reason="Paused", message="User", warning=False)]),
        ([READY, ("Paused", "True", "User")], [READY, ("Paused", "False", "NotPaused")], []),
        (
            [READY],
            [READY, ("RestartRequired", "True", "FieldsWaiting")],
            [Transition(reason="RestartRequired", message="FieldsWaiting", warning=False)],
        ),
        ([READY], [READY, ("SoftwareEmulation", "True", "KvmMissing")], []),
    ],
)
def test_events_tell_what_people_want_to_know(
    before: list[tuple[str, str, str]], after: list[tuple[str, str, str]], told: list[Transition]
) -> None:
    assert list(transitions(status(*before), status(*after))) == told

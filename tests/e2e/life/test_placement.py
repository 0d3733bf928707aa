"""Which node a guest goes to, what is said when it can go to none, and what becomes of it when its node is silent."""

from collections.abc import Iterator

import pytest

from e2e.life.witness import TINY, assert_in_hand, life_of
from e2e.stage import NODES, Stage

ANYWHERE = {key: value for key, value in TINY.items() if key != "nodeName"}
LOST_AFTER_S = 40


@pytest.fixture
def idle_node(stage: Stage) -> Iterator[str]:
    """A Node that no agent serves."""
    stage.sandbox.register("node-idle")
    yield "node-idle"
    stage.sandbox.kubectl("delete", "node", "node-idle")


@pytest.mark.parametrize("node", NODES)
def test_a_guest_goes_to_the_node_that_it_names(stage: Stage, node: str) -> None:
    guest = stage.guest(spec={**ANYWHERE, "nodeName": node}, boot=False)
    guest.wait()
    assert guest.field(".status.nodeName") == node
    assert guest.pid() is not None


def test_a_guest_that_names_none_goes_to_a_live_one(stage: Stage, idle_node: str) -> None:
    guest = stage.guest(spec=ANYWHERE, boot=False)
    guest.wait()
    assert guest.field(".status.nodeName") in NODES
    assert guest.field(".spec.nodeName") == "", "spec is the user's alone"


def test_a_node_that_is_not_there_or_has_no_agent_is_named(stage: Stage, idle_node: str) -> None:
    nowhere = stage.guest("nowhere", {**ANYWHERE, "nodeName": "node-nowhere"}, boot=False)
    idle = stage.guest("idle", {**ANYWHERE, "nodeName": idle_node}, boot=False)

    assert "'node-nowhere'" in nowhere.wait_for_reason("Stalled", "NoSuchNode")["message"]
    assert f"{idle_node!r} has no live agent" in idle.wait_for_reason("Ready", "NoLiveAgent")["message"]
    # A name that leads nowhere is for a person to mend; an agent may come by itself.
    assert nowhere.condition("Stalled")["status"] == "True"
    assert idle.condition("Stalled")["status"] == "False"
    assert nowhere.field(".status.nodeName") == idle.field(".status.nodeName") == ""


@pytest.mark.slow
def test_a_silent_node_keeps_its_guest_and_says_so_when_it_is_back(stage: Stage) -> None:
    guest = stage.guest(spec=TINY, boot=False)
    guest.wait()
    life = life_of(guest)
    stage.kill_agent("node-a")

    told = guest.wait_for_reason("Ready", "NodeLost", timeout_s=LOST_AFTER_S + 30)
    assert told["status"] == "Unknown"
    assert "node-a is silent" in told["message"]
    assert guest.field(".status.nodeName") == "node-a"
    assert guest.field(".status.uuid") != ""
    assert life_of(guest) == life

    stage.start_agent("node-a")
    guest.wait()
    assert life_of(guest) == life
    assert_in_hand(guest)

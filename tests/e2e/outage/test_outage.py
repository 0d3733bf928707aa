"""The API server is away, slow, busy or confused: guests run on, the agent stays calm, and no change is lost.

``GUESTLET_OUTAGE_SECONDS=600`` makes the long outage as long as the one that is promised; the usual one is longer than
what makes a Lease stale, so that the controller has called the node lost meanwhile.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from e2e.life.witness import TINY, Life, kill_qemu, life_of, run_state
from e2e.outage.proxied import NODE, Far, assert_calm, busiest, log_of, measured
from e2e.stage import NODES, Guest, Stage, eventually
from sandbox.fault_proxy import Delay, Drop, Fault, FaultProxy, Gone, Respond, Rule

OUTAGE_S = float(os.environ.get("GUESTLET_OUTAGE_SECONDS", "50"))
TROUBLE_S = 8.0
# Within these the agent must have caught up: its own second of spread, a watch that kopf tries again, a busy machine.
BACK_S = 20.0
FAR: Mapping[str, object] = {**TINY, "nodeName": NODE}


@pytest.fixture(autouse=True)
def clean_proxy(far: Far) -> Iterator[None]:
    yield
    far.proxy.clear()
    far.proxy.accept()


def started(stage: Stage, name: str = "guest") -> tuple[Guest, Life]:
    guest = stage.guest(name, FAR, boot=False)
    guest.wait()
    guest.wait_for_addresses()
    return guest, life_of(guest)


@pytest.mark.timeout(OUTAGE_S + 240)
def test_an_api_server_that_is_gone_for_long(stage: Stage, far: Far) -> None:
    guest, life = started(stage)
    other, _ = started(stage, "other")
    with measured(far) as found:
        far.proxy.refuse()
        guest.edit({"paused": True})
        kill_qemu(other)
        guest.wait_for(".status.phase", "Unknown", timeout_s=OUTAGE_S + 30)
        guest.wait_for_reason("Ready", "NodeLost")
        time.sleep(max(0.0, OUTAGE_S - 45))
        # What cannot be confirmed is not done: neither the pause nor a new QEMU for the one that crashed.
        assert run_state(guest) == "running"
        assert other.pid() is None
    assert_calm(found)
    assert found.log.count("guests run on") == 1

    far.proxy.accept()
    guest.wait("Paused", timeout_s=BACK_S)
    other.wait(timeout_s=BACK_S)
    assert other.field(".status.restarts") == "1"
    assert life_of(guest) == life
    assert_still_served(guest, far)


APPLIED = "does what it is asked and cuts"
TROUBLES: Mapping[str, Fault] = {
    "answers 500": Respond(status=500),
    "is busy": Respond(status=429, retry_after_s=2),
    "cuts connections": Drop(applied=False),
    APPLIED: Drop(applied=True),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_api_server_that_fails_for_a_while(stage: Stage, far: Far, trouble: str) -> None:
    guest, life = started(stage)
    with measured(far) as found:
        # The proxy would wait for the end of a watch, which has none.
        far.proxy.add(Rule(fault=TROUBLES[trouble], watches=False if trouble == APPLIED else None))
        far.proxy.cut_watches()
        guest.edit({"paused": True})
        time.sleep(TROUBLE_S)
        assert run_state(guest) == "running" or trouble == APPLIED
    assert_calm(found)

    far.proxy.clear()
    guest.wait("Paused", timeout_s=BACK_S)
    assert life_of(guest) == life
    assert_still_served(guest, far)


def cut(proxy: FaultProxy) -> None:
    assert proxy.cut_watches() > 0


def forget(proxy: FaultProxy) -> None:
    proxy.add(Rule(fault=Gone(), watches=True, times=4))
    proxy.cut_watches()


def slow(proxy: FaultProxy) -> None:
    proxy.add(Rule(fault=Delay(delay_s=1.5)))


def silent(proxy: FaultProxy) -> None:
    """One request is never answered: its deadline ends it, and the next one is."""
    proxy.add(Rule(fault=Delay(delay_s=60), watches=False, times=1))


NUISANCES: Mapping[str, Callable[[FaultProxy], None]] = {
    "a watch that is cut": cut,
    "a watch that is too old": forget,
    "slow answers": slow,
    "an answer that never comes": silent,
}


@pytest.mark.parametrize("nuisance", NUISANCES)
def test_what_is_no_outage_delays_a_change_and_no_more(stage: Stage, far: Far, nuisance: str) -> None:
    guest, life = started(stage)
    with measured(far) as found:
        NUISANCES[nuisance](far.proxy)
        guest.edit({"paused": True})
        guest.wait("Paused", timeout_s=BACK_S + 10)
    assert "Traceback" not in found.log
    assert len(found.requests) < 40 + 3 * found.seconds, busiest(found)
    far.proxy.clear()
    assert life_of(guest) == life
    assert_still_served(guest, far)


def test_an_api_server_that_is_killed_and_started_again(stage: Stage, far: Far) -> None:
    guest, life = started(stage)
    near = stage.guest("near", {**TINY, "nodeName": NODES[0]}, boot=False)
    near.wait()
    lives = life_of(near)
    programs = [far.node.agent, stage.sandbox.node(NODES[0]).agent, stage.sandbox.controller]
    said = {program.name: len(program.log_file.read_text()) for program in programs}
    pids = [program.pid for program in programs]

    stage.sandbox.control_plane.kill("kube-apiserver")
    time.sleep(3)
    stage.sandbox.control_plane.start()

    for each in (guest, near):
        each.edit({"paused": True})
    for each in (guest, near):
        each.wait("Paused", timeout_s=BACK_S + 10)
    assert (life_of(guest), life_of(near)) == (life, lives)
    assert [program.pid for program in programs] == pids
    assert None not in pids
    for program in programs:
        assert "Traceback" not in program.log_file.read_text()[said[program.name] :]


def assert_still_served(guest: Guest, far: Far) -> None:
    """Trouble is over: the next change takes effect at once, and nobody is lost."""
    guest.edit({"paused": False})
    guest.wait(timeout_s=BACK_S)
    eventually(lambda: run_state(guest) == "running", timeout_s=5, what="a guest that runs")
    assert far.node.agent.is_ready()
    assert "Traceback" not in log_of(far.node)

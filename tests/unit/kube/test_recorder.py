import asyncio
from collections.abc import AsyncIterator

import pytest

from fakes.kube import FakeApiServer
from guestlet.errors import NotNow
from guestlet.kube.recorder import Recorder, Regarding

GUEST = Regarding(api_version="guestlet.io/v1alpha1", kind="VirtualGuest", namespace="default", name="a", uid="u")
NODE = Regarding(api_version="v1", kind="Node", namespace="", name="node-a", uid="node-a")


class House:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.server = FakeApiServer(clock=lambda: self.now)
        self.recorder = Recorder(self.server, controller="guestlet.io/test", instance="i", clock=lambda: self.now)

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def say(self, reason: str, message: str = "m", *, about: Regarding = GUEST, times: int = 1) -> None:
        for _ in range(times):
            self.recorder.record(about, reason=reason, message=message, warning=False)
            await self.settle()

    @property
    def verbs(self) -> list[str]:
        return [request.verb for request in self.server.requests]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    task = asyncio.create_task(house.recorder.run())
    yield house
    task.cancel()


async def test_an_event_names_its_object_and_reason(house: House) -> None:
    await house.say("Running", "it runs")
    (event,) = house.server.objects.values()
    assert event["metadata"]["namespace"] == "default"
    assert event["regarding"] == {
        "apiVersion": "guestlet.io/v1alpha1",
        "kind": "VirtualGuest",
        "namespace": "default",
        "name": "a",
        "uid": "u",
    }
    assert (event["reason"], event["note"], event["type"]) == ("Running", "it runs", "Normal")
    assert event["eventTime"] == "2023-11-14T22:13:20.000000Z"


async def test_events_about_nodes_lie_in_the_default_namespace(house: House) -> None:
    await house.say("GuestOrphaned", about=NODE)
    (event,) = house.server.objects.values()
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["regarding"]


async def test_what_repeats_is_counted_and_told_ever_more_rarely(house: House) -> None:
    await house.say("BackOff", times=9)
    assert house.verbs == ["create", "patch", "patch", "patch"]
    (event,) = house.server.objects.values()
    assert event["series"]["count"] == 8


async def test_what_happens_again_after_a_while_is_a_new_event(house: House) -> None:
    await house.say("BackOff")
    house.now += 601
    await house.say("BackOff")
    assert house.verbs == ["create", "create"]


async def test_one_object_cannot_flood_the_server_and_gets_its_say_later(house: House) -> None:
    for number in range(100):
        await house.say("Changed", f"message {number}")
    assert house.verbs == ["create"] * 10
    await house.say("Other", about=NODE)
    assert len(house.verbs) == 11
    house.now += 16
    await house.say("Changed", "later")
    assert len(house.verbs) == 12


async def test_a_failure_loses_that_event_only(house: House) -> None:
    house.server.fault_before = lambda _request: NotNow("ApiUnavailable", "away")
    await house.say("Running")
    house.server.fault_before = lambda _request: None
    await house.say("Running")
    assert len(house.server.objects) == 1


async def test_recording_never_blocks_even_when_nobody_posts() -> None:
    house = House()
    for number in range(10_000):
        house.recorder.record(GUEST, reason="Changed", message=str(number), warning=True)
    assert house.server.requests == []


async def test_a_long_message_is_cut_to_what_the_server_takes(house: House) -> None:
    await house.say("Running", "x" * 5000)
    (event,) = house.server.objects.values()
    assert len(event["note"]) == 1024

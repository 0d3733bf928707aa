import asyncio
from typing import Any

import pytest

from fakes.kube import EventList, FakeApiServer
from guestlet.errors import NotNow
from guestlet.kube.client import MERGE_PATCH, Request
from guestlet.kube.cluster import KubeCluster
from guestlet.kube.facts import FINALIZER, parse_sighting
from guestlet.kube.guests import rfc3339
from guestlet.kube.resources import GUESTS, LEASES, NODES
from guestlet.placement.act import perform
from guestlet.placement.controller import Clocks, Controller, Rules
from guestlet.placement.plan import ReleaseFinalizer

START = 1_700_000_000.0
SYSTEM = "guestlet-system"


class House:
    """A controller on an API server in memory, with nodes and agents that can fall silent."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.server = FakeApiServer(clock=lambda: START + self.seconds)
        self.events = EventList(self.server)
        self.woken: list[tuple[str, str]] = []
        clocks = Clocks(
            monotonic=lambda: self.seconds,
            wall=lambda: START + self.seconds,
            text=lambda: rfc3339(START + self.seconds),
        )
        self.cluster = KubeCluster(self.server, recorder=self.events, namespace=SYSTEM)
        self.controller = Controller(self.cluster, clocks=clocks, rules=Rules(), wake=self.woken.append)
        self.live: set[str] = set()

    async def add_node(self, name: str, *, gib: int = 8, agent: bool = True) -> None:
        body = {"metadata": {"name": name}, "status": {"allocatable": {"memory": f"{gib}Gi"}}}
        await self.server.send(Request(verb="create", resource=NODES, body=body))
        lease = {"metadata": {"name": f"guestlet-agent-{name}"}, "spec": {"holderIdentity": f"m/{name}"}}
        if agent:
            await self.server.send(Request(verb="create", resource=LEASES, namespace=SYSTEM, body=lease))
            self.live.add(name)
            await self.renew(name)

    async def renew(self, name: str) -> None:
        await self.patch(LEASES, f"guestlet-agent-{name}", {"spec": {"renewTime": rfc3339(START + self.seconds)}})

    async def patch(self, resource: Any, name: str, body: Any) -> None:
        namespace = SYSTEM if resource == LEASES else None
        await self.server.send(
            Request(
                verb="patch", resource=resource, namespace=namespace, name=name, body=body, content_type=MERGE_PATCH
            )
        )

    async def pass_time(self, seconds: float) -> None:
        """Agents renew, the controller sweeps, and woken guests get their turns."""
        for _ in range(int(seconds // 5)):
            self.seconds += 5
            for name in sorted(self.live):
                await self.renew(name)
            await self.controller.sweep()
            await self.take_turns()

    async def take_turns(self) -> None:
        while self.woken:
            await self.controller.turn(self.woken.pop(0))

    def ready(self, name: str = "a") -> tuple[str, str]:
        found = {one.type: one for one in self.server.guest("default", name).status.conditions}
        return found["Ready"].status, found["Ready"].reason

    def node_of(self, name: str) -> str | None:
        return self.server.guest("default", name).status.node_name


@pytest.fixture
async def house() -> House:
    house = House()
    await house.add_node("node-a")
    await house.add_node("node-b")
    await house.controller.sweep()
    return house


SPEC = {"memory": {"size": "1Gi"}}


async def test_a_new_guest_is_bound_with_one_read_and_one_write(house: House) -> None:
    house.server.create_guest("default", "a", SPEC)
    house.server.requests.clear()
    assert await house.controller.turn(("default", "a")) is None
    assert house.node_of("a") == "node-a"
    assert [request.verb for request in house.server.requests] == ["get", "patch"]
    assert house.events.reasons == ["Placed"]


async def test_forty_guests_at_once_spread_over_the_nodes(house: House) -> None:
    for number in range(40):
        house.server.create_guest("default", f"g{number}", {"memory": {"size": "100Mi"}})
    await asyncio.gather(*(house.controller.turn(("default", f"g{number}")) for number in range(40)))
    places = [house.node_of(f"g{number}") for number in range(40)]
    assert places.count("node-a") == places.count("node-b") == 20


async def test_a_binding_that_lost_a_race_takes_no_memory(house: House) -> None:
    house.server.create_guest("default", "a", {"memory": {"size": "8Gi"}})
    house.server.fault_before = lambda request: NotNow("Conflict", "raced") if request.verb == "patch" else None
    with pytest.raises(NotNow):
        await house.controller.turn(("default", "a"))
    house.server.fault_before = lambda _request: None
    house.server.create_guest("default", "b", {"memory": {"size": "8Gi"}})
    await house.controller.turn(("default", "b"))
    assert house.node_of("b") == "node-a"


async def test_a_guest_without_a_node_is_told_once_and_bound_when_one_comes(house: House) -> None:
    house.server.create_guest("default", "a", {**SPEC, "nodeName": "node-c"})
    for _ in range(3):
        assert await house.controller.turn(("default", "a")) == 10
    assert house.ready() == ("False", "NoSuchNode")
    assert len(house.server.writes("virtualguests/status")) == 1
    assert house.events.reasons == ["NoSuchNode"]
    await house.add_node("node-c")
    await house.pass_time(20)
    assert house.node_of("a") == "node-c"
    assert house.server.guest("default", "a").status.conditions == ()


async def test_a_node_without_an_agent_is_said(house: House) -> None:
    await house.add_node("node-c", agent=False)
    house.server.create_guest("default", "a", {**SPEC, "nodeName": "node-c"})
    await house.pass_time(20)
    await house.controller.turn(("default", "a"))
    assert house.ready() == ("False", "NoLiveAgent")


async def test_the_guests_of_a_silent_agent_are_lost_and_keep_their_node(house: House) -> None:
    house.server.create_guest("default", "a", SPEC)
    house.server.bind_guest("default", "a", "node-a")
    await house.controller.resync()
    house.live.discard("node-a")
    await house.pass_time(40)
    assert house.server.guest("default", "a").status.conditions == ()
    await house.pass_time(10)
    assert house.ready() == ("Unknown", "NodeLost")
    assert house.server.guest("default", "a").status.phase == "Unknown"
    assert house.node_of("a") == "node-a"


async def test_a_lost_node_is_told_once_and_then_nothing_is_written(house: House) -> None:
    house.server.create_guest("default", "a", SPEC)
    house.server.bind_guest("default", "a", "node-a")
    await house.controller.resync()
    house.live.discard("node-a")
    await house.pass_time(60)
    writes = len(house.server.writes("virtualguests/status"))
    await house.controller.resync()
    await house.pass_time(600)
    assert len(house.server.writes("virtualguests/status")) == writes == 1


async def test_an_outage_of_the_api_server_loses_no_guest(house: House) -> None:
    house.server.create_guest("default", "a", SPEC)
    house.server.bind_guest("default", "a", "node-a")
    await house.controller.resync()
    house.seconds += 600
    await house.controller.sweep()
    await house.take_turns()
    await house.pass_time(60)
    assert house.server.writes("virtualguests/status") == []


@pytest.mark.parametrize("remedy", ["delete", "taint"])
async def test_a_deleted_guest_of_a_dead_node_goes_when_a_person_says_the_node_is_off(
    house: House, remedy: str
) -> None:
    house.server.create_guest("default", "a", SPEC)
    house.server.bind_guest("default", "a", "node-a")
    key = (GUESTS.plural, "default", "a")
    house.server.objects[key]["metadata"]["finalizers"] = [FINALIZER]
    await house.controller.resync()
    house.live.discard("node-a")
    await house.pass_time(60)
    house.server.delete_guest("default", "a")
    house.controller.saw(parse_sighting(house.server.objects[key]), gone=False)
    await house.take_turns()
    assert house.ready() == ("Unknown", "NodeLost")
    assert "out-of-service" in house.server.guest("default", "a").status.conditions[0].message
    await house.pass_time(300)
    assert key in house.server.objects
    if remedy == "delete":
        await house.server.send(Request(verb="delete", resource=NODES, name="node-a"))
    else:
        taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
        await house.patch(NODES, "node-a", {"spec": {"taints": [taint]}})
    await house.pass_time(20)
    assert key not in house.server.objects


async def test_a_node_that_came_back_finds_its_guest(house: House) -> None:
    house.server.create_guest("default", "a", SPEC)
    house.server.bind_guest("default", "a", "node-z")
    house.server.objects[GUESTS.plural, "default", "a"]["metadata"]["finalizers"] = [FINALIZER]
    house.server.delete_guest("default", "a")
    guest = house.server.guest("default", "a")
    decision = ReleaseFinalizer(node="node-z", why="the facts of a moment ago")
    await house.add_node("node-z", agent=False)
    with pytest.raises(NotNow, match="is back"):
        await perform(decision, guest, house.cluster, now=lambda: "")
    assert (GUESTS.plural, "default", "a") in house.server.objects


async def test_a_guest_whose_status_was_lost_is_left_to_its_agent(house: House) -> None:
    house.server.create_guest("default", "a", SPEC)
    house.server.lose_status("default", "a")
    assert await house.controller.turn(("default", "a")) == 600
    assert house.node_of("a") is None
    house.seconds += 600
    await house.controller.sweep()
    for name in ("node-a", "node-b"):
        await house.renew(name)
    await house.controller.sweep()
    await house.controller.turn(("default", "a"))
    assert house.node_of("a") is not None


async def test_events_of_placed_guests_cost_nothing(house: House) -> None:
    house.server.create_guest("default", "a", SPEC)
    house.server.bind_guest("default", "a", "node-a")
    house.controller.saw(parse_sighting(house.server.objects[GUESTS.plural, "default", "a"]), gone=False)
    assert house.woken == []


async def test_a_guest_that_is_gone_frees_its_memory(house: House) -> None:
    house.server.create_guest("default", "big", {"memory": {"size": "8Gi"}})
    await house.controller.turn(("default", "big"))
    sighting = parse_sighting(house.server.objects[GUESTS.plural, "default", "big"])
    house.server.drop_guest("default", "big")
    house.controller.saw(sighting, gone=True)
    house.server.create_guest("default", "next", {"memory": {"size": "8Gi"}})
    await house.controller.turn(("default", "next"))
    assert house.node_of("next") == "node-a"


async def test_nothing_is_bound_before_the_nodes_were_seen() -> None:
    house = House()
    await house.add_node("node-a")
    house.server.create_guest("default", "a", SPEC)
    with pytest.raises(NotNow):
        await house.controller.turn(("default", "a"))

from typing import Any

import pytest

from fakes.kube import FakeApiServer
from guestlet.errors import NotNow
from guestlet.kube.client import MERGE_PATCH, Request
from guestlet.kube.node import NodeOffer, NodeRegistration
from guestlet.kube.resources import LEASES, NODES

OFFER = NodeOffer(name="node-a", cpus=4, memory_bytes=8 * 2**30, memory_reserved_bytes=2**29)


class House:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.server = FakeApiServer(clock=lambda: self.now)
        self.registration = NodeRegistration(self.server, offer=OFFER, clock=lambda: self.now)

    async def create(self, **body: object) -> None:
        node = {"metadata": {"name": "node-a", "labels": {"mine": "kept"}}, **body}
        await self.server.send(Request(verb="create", resource=NODES, body=node))

    @property
    def node(self) -> dict[str, Any]:
        return self.server.objects[NODES.plural, "", "node-a"]


@pytest.fixture
def house() -> House:
    return House()


async def test_a_bare_node_becomes_ready_with_what_the_machine_has(house: House) -> None:
    await house.create()
    await house.registration.beat()
    assert house.node["metadata"]["labels"] == {
        "mine": "kept",
        "kubernetes.io/hostname": "node-a",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    status = house.node["status"]
    assert status["allocatable"] == {"cpu": "4", "memory": f"{15 * 2**19}Ki", "pods": "110"}
    (condition,) = status["conditions"]
    assert (condition["type"], condition["status"]) == ("Ready", "True")


async def test_a_node_that_is_right_is_only_looked_at(house: House) -> None:
    await house.create()
    await house.registration.beat()
    house.server.requests.clear()
    house.now += 10
    await house.registration.beat()
    assert [(request.verb, request.target) for request in house.server.requests] == [
        ("update", "leases"),
        ("get", "nodes"),
    ]


async def test_amounts_that_the_server_writes_differently_are_the_same(house: House) -> None:
    resources = {
        "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110", "hugepages-2Mi": "0"},
        "allocatable": {"cpu": "4", "memory": "7680Mi", "pods": "110"},
    }
    await house.create(status=resources)
    await house.registration.beat()
    assert house.node["status"]["capacity"] == resources["capacity"]


async def test_a_node_that_was_called_lost_is_ready_again_and_others_conditions_stay(house: House) -> None:
    await house.create()
    await house.registration.beat()
    lost = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "",
        "lastTransitionTime": "",
    }
    other = {"type": "DiskPressure", "status": "False"}
    patch = Request(
        verb="patch",
        resource=NODES,
        name="node-a",
        subresource="status",
        body={"status": {"conditions": [other, lost]}},
        content_type=MERGE_PATCH,
    )
    await house.server.send(patch)
    await house.registration.beat()
    states = {one["type"]: one["status"] for one in house.node["status"]["conditions"]}
    assert states == {"Ready": "True", "DiskPressure": "False"}


async def test_the_node_lease_is_renewed_even_when_there_is_no_node(house: House) -> None:
    with pytest.raises(NotNow, match="there is no Node node-a"):
        await house.registration.beat()
    lease = house.server.objects[LEASES.plural, "kube-node-lease", "node-a"]
    assert lease["spec"]["holderIdentity"] == "node-a"

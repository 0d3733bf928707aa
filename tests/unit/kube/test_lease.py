import asyncio
from pathlib import Path

import pytest

from fakes.kube import FakeApiServer
from guestlet.errors import NotNow, Refused
from guestlet.kube.facts import LeaseFacts, agent_lease_name, parse_lease
from guestlet.kube.lease import LeaseHolder, Times, local_identity
from guestlet.kube.resources import LEASES

START = 1_700_000_000.0


class House:
    """One Lease and those who want it, on one clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.server = FakeApiServer(clock=lambda: START + self.seconds)

    def holder(self, identity: str) -> LeaseHolder:
        times = Times(wall=lambda: START + self.seconds, monotonic=lambda: self.seconds)
        name = agent_lease_name("node-a")
        return LeaseHolder(self.server, namespace="guestlet-system", name=name, identity=identity, times=times)

    async def lease(self) -> LeaseFacts:
        body = await self.server.get(LEASES, namespace="guestlet-system", name="guestlet-agent-node-a")
        assert body is not None
        return parse_lease(body)


async def test_a_lease_is_made_and_names_its_holder() -> None:
    house = House()
    ours = house.holder("m/state")
    assert not ours.held
    await ours.renew()
    assert ours.held
    lease = await house.lease()
    assert (lease.holder, lease.renewed_at) == ("m/state", START)
    assert lease.hostname


async def test_a_renewal_is_one_write_and_no_read() -> None:
    house = House()
    ours = house.holder("m/state")
    await ours.renew()
    house.server.requests.clear()
    house.seconds = 10
    await ours.renew()
    assert [request.verb for request in house.server.requests] == ["update"]
    assert (await house.lease()).renewed_at == START + 10


async def test_a_second_agent_is_refused_and_the_first_is_named() -> None:
    house = House()
    await house.holder("m/one").renew()
    house.seconds = 39
    with pytest.raises(Refused, match="held by m/one"):
        await house.holder("m/two").renew()


async def test_a_silent_holder_is_followed_after_forty_seconds() -> None:
    house = House()
    first, second = house.holder("m/one"), house.holder("m/two")
    await first.renew()
    house.seconds = 40
    await second.renew()
    assert (await house.lease()).holder == "m/two"
    assert not first.held
    with pytest.raises(NotNow, match="Conflict"):
        await first.renew()
    with pytest.raises(Refused, match="held by m/two"):
        await first.renew()


async def test_the_same_agent_takes_its_lease_again_at_once() -> None:
    house = House()
    await house.holder("m/state").renew()
    again = house.holder("m/state")
    await again.renew()
    assert again.held


async def test_of_two_that_find_a_free_lease_one_wins() -> None:
    house = House()
    first, second = house.holder("m/one"), house.holder("m/two")
    house.server.fault_before = lambda _request: None
    outcomes = await asyncio.gather(first.renew(), second.renew(), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert [first.held, second.held].count(True) == 1


async def test_an_agent_cut_off_from_the_server_stops_acting_in_time() -> None:
    house = House()
    ours = house.holder("m/state")
    await ours.renew()
    house.server.fault_before = lambda _request: NotNow("ApiUnavailable", "away")
    house.seconds = 39.9
    with pytest.raises(NotNow):
        await ours.renew()
    assert ours.held
    house.seconds = 40
    assert not ours.held
    house.server.fault_before = lambda _request: None
    await ours.renew()
    assert ours.held


async def test_a_released_lease_is_free_at_once() -> None:
    house = House()
    ours = house.holder("m/one")
    await ours.renew()
    await ours.release()
    assert not ours.held
    await house.holder("m/two").renew()
    assert (await house.lease()).holder == "m/two"


async def test_losing_the_lease_is_told_and_ends_the_renewing() -> None:
    house = House()
    ours = house.holder("m/one")
    await ours.renew()
    house.seconds = 50
    await house.holder("m/two").renew()
    told: list[Refused] = []
    stop = asyncio.Event()
    fresh = house.holder("m/one")
    await asyncio.wait_for(fresh.run(stop=stop, lost=told.append), 1)
    assert [error.reason for error in told] == ["LeaseHeldByAnother"]


def test_an_identity_is_the_machine_and_the_state_directory(tmp_path: Path) -> None:
    assert local_identity(tmp_path).endswith(str(tmp_path.resolve()))
    assert local_identity(tmp_path) != local_identity(tmp_path / "other")


async def test_a_version_below_one_seen_before_tells_of_a_server_put_back() -> None:
    house = House()
    ours, told = house.holder("m/state"), []
    ours.conflicted = lambda: told.append(house.seconds)
    await ours.renew()
    await ours.renew()
    assert told == []

    house.server.newest_version = 1_000_000
    house.seconds = 10
    await ours.renew()
    await ours.renew()
    assert told == [10]

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from fakes.clock import VirtualClock
from guestlet.errors import Broken, NotNow, Refused, Unknown
from guestlet.reconcile.queue import KeyedQueue
from guestlet.reconcile.worker import Workers

Turn = Callable[[str], Awaitable[float | None]]


class House:
    """A queue and its workers on a virtual clock."""

    def __init__(self, turn: Turn, *, limit: int = 4) -> None:
        self.clock = VirtualClock()
        self.queue: KeyedQueue[str] = KeyedQueue(clock=self.clock, fraction=lambda: 1.0)
        self.results: list[str] = []
        self.stop = asyncio.Event()
        workers = Workers(
            queue=self.queue,
            turn=turn,
            clock=self.clock,
            report=lambda result, _: self.results.append(result),
            limit=limit,
        )
        self.task = asyncio.create_task(workers.run(self.stop, grace_s=0.05))

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def close(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 1)


async def test_a_turn_is_taken_for_each_key() -> None:
    seen = []

    async def turn(key: str) -> None:
        seen.append(key)

    house = House(turn)
    house.queue.add("a")
    house.queue.add("b")
    await house.settle()
    await house.close()
    assert seen == ["a", "b"]
    assert house.results == ["Done", "Done"]


async def test_no_more_turns_at_once_than_the_limit() -> None:
    running, most = 0, 0

    async def turn(key: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    house = House(turn, limit=2)
    for number in range(9):
        house.queue.add(f"key-{number}")
    for _ in range(5):
        await house.settle()
    await house.close()
    assert most == 2
    assert len(house.results) == 9


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (NotNow("ApiUnavailable", "no answer"), "NotNow"),
        (Refused("NoSuchBridge", "no bridge br9"), "Refused"),
        (Unknown("QemuSilent", "no greeting"), "Unknown"),
        (Broken("Forbidden", "may not patch"), "Broken"),
        (ZeroDivisionError("bug"), "Bug"),
    ],
)
async def test_a_failed_turn_is_taken_again_and_the_others_go_on(error: Exception, result: str) -> None:
    failing = True

    async def turn(key: str) -> None:
        if failing and key == "bad":
            raise error

    house = House(turn)
    house.queue.add("bad")
    house.queue.add("good")
    await house.settle()
    assert sorted(house.results) == sorted([result, "Done"])
    failing = False
    house.clock.advance(60)
    await house.settle()
    await house.close()
    assert house.results[-1] == "Done"


async def test_ten_minutes_without_an_answer_are_one_line_and_few_turns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    turns = 0

    async def turn(key: str) -> None:
        nonlocal turns
        turns += 1
        raise NotNow("ApiUnavailable", "the API server does not answer")

    house = House(turn)
    house.queue.add("a")
    for _ in range(600):
        await house.settle()
        house.clock.advance(1)
    await house.close()
    assert turns < 25
    lines = [record for record in caplog.records if record.name == "guestlet.reconcile.worker"]
    assert [line.levelname for line in lines] == ["INFO"]
    assert all(line.exc_info is None for line in lines)


async def test_a_defect_of_the_program_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def turn(key: str) -> None:
        raise ZeroDivisionError

    house = House(turn)
    house.queue.add("a")
    for _ in range(4):
        await house.settle()
        house.clock.advance(60)
    await house.close()
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_stopping_lets_a_short_turn_finish_and_abandons_a_long_one() -> None:
    finished, abandoned = [], []

    async def turn(key: str) -> None:
        try:
            await asyncio.sleep(0.01 if key == "short" else 60)
            finished.append(key)
        except asyncio.CancelledError:
            abandoned.append(key)
            raise

    house = House(turn)
    house.queue.add("short")
    house.queue.add("long")
    await house.settle()
    await house.close()
    assert finished == ["short"]
    assert abandoned == ["long"]

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.clock import VirtualClock
from guestlet.reconcile.queue import Backoff, KeyedQueue


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def queue_of(clock: VirtualClock, *, fraction: Callable[[], float] = lambda: 1.0) -> KeyedQueue[str]:
    return KeyedQueue(clock=clock, fraction=fraction, backoff=Backoff(first_s=1, last_s=8))


async def taken(queue: KeyedQueue[str]) -> list[str]:
    """What could be taken right now, in order."""
    keys = []
    while queue.depth:
        try:
            keys.append(await asyncio.wait_for(queue.take(), 0.01))
        except TimeoutError:
            break
    return keys


async def test_keys_come_in_the_order_they_were_added_and_once(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    for key in ("b", "a", "b", "c"):
        queue.add(key)
    assert await taken(queue) == ["b", "a", "c"]


async def test_a_key_added_during_its_turn_runs_once_more_afterwards(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    queue.add("a")
    assert await taken(queue) == ["a"]
    queue.add("a")
    queue.add("a")
    assert await taken(queue) == []
    queue.done("a")
    assert await taken(queue) == ["a"]
    queue.done("a")
    assert await taken(queue) == []


async def test_a_taker_that_waits_is_woken(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(waiting, 1) == "a"


async def test_a_delayed_key_comes_when_it_is_due_and_not_before(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    queue.add_after("a", 10)
    clock.advance(9.9)
    assert await taken(queue) == []
    clock.advance(0.1)
    assert await taken(queue) == ["a"]


async def test_the_earlier_of_two_delays_counts(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    queue.add_after("a", 10)
    queue.add_after("a", 2)
    queue.add_after("a", 5)
    clock.advance(2)
    assert await taken(queue) == ["a"]
    queue.done("a")
    clock.advance(60)
    assert await taken(queue) == []


async def test_adding_a_delayed_key_ends_the_delay(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    queue.add_after("a", 10)
    queue.add("a")
    assert await taken(queue) == ["a"]
    queue.done("a")
    clock.advance(60)
    assert await taken(queue) == []


async def test_a_turn_may_ask_to_be_looked_at_again(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    queue.add("a")
    await queue.take()
    queue.done("a", again_s=3)
    clock.advance(3)
    assert await taken(queue) == ["a"]


async def test_a_failing_key_rests_twice_as_long_each_time_up_to_a_limit(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    queue.add("a")
    rests = []
    for _ in range(6):
        await queue.take()
        rests.append(queue.failed("a"))
        clock.advance(rests[-1])
    assert rests == [1, 2, 4, 8, 8, 8]


async def test_success_makes_the_next_rest_short_again(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    queue.add("a")
    for _ in range(3):
        await queue.take()
        clock.advance(queue.failed("a"))
    await queue.take()
    queue.done("a")
    queue.add("a")
    await queue.take()
    assert queue.failed("a") == 1


async def test_rests_are_spread_by_chance(clock: VirtualClock) -> None:
    queue = queue_of(clock, fraction=lambda: 0.0)
    queue.add("a")
    await queue.take()
    assert queue.failed("a") == 0.5


async def test_a_wake_up_ends_the_rest_of_a_failing_key(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    queue.add("a")
    await queue.take()
    queue.failed("a")
    queue.add("a")
    assert await taken(queue) == ["a"]


async def test_a_key_that_keeps_failing_and_waking_itself_does_not_spin(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    queue.add("a")
    turns = 0
    for _ in range(1000):
        for key in await taken(queue):
            turns += 1
            queue.add(key)  # the turn's own write comes back as an event
            queue.failed(key)
        clock.advance(0.01)
    assert turns <= 16


async def test_all_resting_keys_can_be_woken_at_once_spread_over_a_second(clock: VirtualClock) -> None:
    fractions = iter([1.0, 1.0, 0.25, 0.75])
    queue = queue_of(clock, fraction=lambda: next(fractions))
    for key in ("a", "b"):
        queue.add(key)
        await queue.take()
        queue.failed(key)
    queue.wake_all(spread_s=0.8)
    clock.advance(0.2)
    assert await taken(queue) == ["a"]
    clock.advance(0.4)
    assert await taken(queue) == ["b"]


async def test_a_forgotten_key_does_not_come_back(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    queue.add("a")
    queue.add_after("b", 1)
    queue.forget("a")
    queue.forget("b")
    clock.advance(10)
    assert await taken(queue) == []
    assert queue.known == frozenset()


async def test_no_alarm_is_left_when_nothing_is_due(clock: VirtualClock) -> None:
    queue = queue_of(clock)
    for delay_s in (5, 4, 3):
        queue.add_after(f"key-{delay_s}", delay_s)
    assert clock.alarms == 1
    clock.advance(5)
    assert clock.alarms == 0
    assert await taken(queue) == ["key-3", "key-4", "key-5"]


Step = tuple[str, str, float]
steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add_after", "take", "done", "failed", "advance"]),
        st.sampled_from(["a", "b", "c"]),
        st.floats(min_value=0, max_value=20),
    ),
    max_size=60,
)


class Story:
    """Plays a script on a queue and keeps the books: who wants a turn, who is in one."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.queue = queue_of(self.clock)
        self.wanted: set[str] = set()
        self.held: set[str] = set()

    async def play(self, what: str, key: str, number: float) -> None:
        match what:
            case "add":
                self.queue.add(key)
                self.wanted.add(key)
            case "add_after":
                self.queue.add_after(key, number)
                self.wanted.add(key)
            case "advance":
                self.clock.advance(number)
            case "take":
                await self.take()
            case _ if key in self.held:
                self.end(what, key)

    async def take(self) -> None:
        for got in await taken(self.queue):
            assert got not in self.held
            self.held.add(got)
            self.wanted.discard(got)

    def end(self, how: str, key: str) -> None:
        self.held.discard(key)
        if how == "done":
            self.queue.done(key)
        else:
            self.queue.failed(key)
            self.wanted.add(key)


@given(steps)
async def test_no_key_is_ever_lost_or_in_two_turns(script: list[Step]) -> None:
    story = Story()
    for step in script:
        await story.play(*step)
    for key in sorted(story.held):
        story.end("done", key)
    seen: set[str] = set()
    for _ in range(8):
        story.clock.advance(20)
        for key in await taken(story.queue):
            seen.add(key)
            story.queue.done(key)
    assert story.wanted <= seen

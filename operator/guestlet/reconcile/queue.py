"""The keyed work queue: whose turn is next. One turn of a key at a time; a key added meanwhile runs once more.

It must never know what a turn does, and never lose a key: a key that was added is taken, is waiting, or is due later.
"""

import asyncio
import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

_STUBBORN_FAILURES = 5
_STUBBORN_REST_S = 1.0


class GuestKey(NamedTuple):
    """Names a guest: the one key of the guest itself and of all that acts on it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Alarm(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Makes it never happen."""


class Clock(Protocol):
    """Monotonic time and alarms. An asyncio loop is one; tests bring a virtual one."""

    def time(self) -> float:
        """Seconds since some moment."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Alarm:
        """Calls at ``time() == when``, or soon after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a failing key rests: doubling from ``first_s`` to ``last_s``, each multiplied by 0.5 to 1 at random."""

    first_s: float = 0.1
    last_s: float = 60.0

    def delay_s(self, failures: int, fraction: float) -> float:
        """Seconds after the n-th failure in a row (from 1); ``fraction`` is a random number from 0 to 1."""
        doublings = min(failures - 1, 32)
        return float(min(self.first_s * 2.0**doublings, self.last_s)) * (0.5 + fraction / 2)


class KeyedQueue(Generic[K]):
    """A queue of keys for many workers of one event loop; it is not safe for use from other threads."""

    def __init__(self, *, clock: Clock, fraction: Callable[[], float], backoff: Backoff | None = None) -> None:
        self._clock = clock
        self._fraction = fraction
        self._backoff = backoff or Backoff()
        self._ready: OrderedDict[K, None] = OrderedDict()
        self._taken: set[K] = set()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._ticket = itertools.count()
        self._failures: dict[K, int] = {}
        self._alarm: tuple[float, Alarm] | None = None
        self._wake = asyncio.Event()

    @property
    def depth(self) -> int:
        """Keys that could be taken now if they had a worker (keys in a turn are counted when they must run again)."""
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """Keys that are due later."""
        return len(self._due)

    @property
    def known(self) -> frozenset[K]:
        """Every key that is ready, taken, waiting or failing."""
        return frozenset(self._ready) | self._taken | self._due.keys() | self._failures.keys()

    def add(self, key: K) -> None:
        """Makes the key ready now, whatever it waited for; one that keeps failing is woken once a second."""
        if self._failures.get(key, 0) >= _STUBBORN_FAILURES:
            # A turn that fails and whose own writes wake it must not spin.
            self.add_after(key, _STUBBORN_REST_S)
            return
        self._make_ready(key)

    def _make_ready(self, key: K) -> None:
        self._due.pop(key, None)
        self._ready[key] = None
        self._signal()

    def add_after(self, key: K, delay_s: float) -> None:
        """Makes the key ready after a delay, unless it is ready sooner already."""
        if key in self._ready:
            return
        when = self._clock.time() + max(delay_s, 0.0)
        if self._due.get(key, when + 1) <= when:
            return
        self._due[key] = when
        heapq.heappush(self._heap, (when, next(self._ticket), key))
        self._set_alarm()

    async def take(self) -> K:
        """Waits for the next ready key that is not in a turn, and holds it until ``done`` or ``failed``."""
        while True:
            key = self._pop()
            if key is not None:
                return key
            self._wake.clear()
            await self._wake.wait()

    def done(self, key: K, *, again_s: float | None = None) -> None:
        """The turn succeeded; look again after ``again_s`` if nothing wakes the key before."""
        self._failures.pop(key, None)
        self._release(key)
        if again_s is not None:
            self.add_after(key, again_s)

    def failed(self, key: K) -> float:
        """The turn failed; returns the seconds that the key rests. Being added ends the rest."""
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        self._release(key)
        delay_s = self._backoff.delay_s(failures, self._fraction())
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """Drops a key for which nothing is left to do; a turn in hand is not disturbed."""
        self._ready.pop(key, None)
        self._due.pop(key, None)
        self._failures.pop(key, None)

    def wake_all(self, *, spread_s: float = 0.0) -> None:
        """Brings every waiting or failing key forward, spread at random over ``spread_s``; failures count from one."""
        self._failures.clear()
        for key in list(self._due):
            self.add_after(key, self._fraction() * spread_s)

    def _release(self, key: K) -> None:
        self._taken.discard(key)
        if key in self._ready:
            self._signal()

    def _pop(self) -> K | None:
        for key in self._ready:
            if key not in self._taken:
                del self._ready[key]
                self._taken.add(key)
                return key
        return None

    def _signal(self) -> None:
        self._wake.set()

    def _set_alarm(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        first = self._heap[0][0] if self._heap else None
        if self._alarm is not None:
            if self._alarm[0] == first:
                return
            self._alarm[1].cancel()
            self._alarm = None
        if first is not None:
            self._alarm = (first, self._clock.call_at(first, self._ring))

    def _ring(self) -> None:
        self._alarm = None
        now = self._clock.time()
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == when:
                self._make_ready(key)
        self._set_alarm()

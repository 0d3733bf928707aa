"""A clock that tests turn: it satisfies ``guestlet.reconcile.queue.Clock``."""

import heapq
import itertools
from collections.abc import Callable


class VirtualAlarm:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualClock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._alarms: list[tuple[float, int, VirtualAlarm, Callable[[], object]]] = []
        self._ticket = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], /) -> VirtualAlarm:
        alarm = VirtualAlarm()
        heapq.heappush(self._alarms, (when, next(self._ticket), alarm, callback))
        return alarm

    @property
    def alarms(self) -> int:
        return sum(1 for _, _, alarm, _ in self._alarms if not alarm.cancelled)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._alarms and self._alarms[0][0] <= end:
            when, _, alarm, callback = heapq.heappop(self._alarms)
            self.now = max(self.now, when)
            if not alarm.cancelled:
                callback()
        self.now = end

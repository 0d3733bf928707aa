"""Runs the turns of a queue's keys, many at once, and survives whatever a turn does.

It must never decide anything about a guest, and it holds the only ``except Exception`` of the program.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic

from guestlet.errors import Broken, GuestletError, NotNow, Refused, Unknown
from guestlet.reconcile.queue import Clock, K, KeyedQueue

log = logging.getLogger(__name__)


class Workers(Generic[K]):
    """At most ``limit`` turns at once; a failing key rests as its queue says.

    ``turn`` returns the seconds until the next one, or ``None`` when only a wake-up is needed.
    ``report`` is told each turn's result (``Done``, or the error's branch) and its seconds.
    """

    def __init__(
        self,
        *,
        queue: KeyedQueue[K],
        turn: Callable[[K], Awaitable[float | None]],
        clock: Clock,
        report: Callable[[str, float], None],
        limit: int = 64,
    ) -> None:
        self._queue = queue
        self._turn = turn
        self._clock = clock
        self._report = report
        self._slots = asyncio.Semaphore(limit)
        self._running: set[asyncio.Task[None]] = set()
        self._last_reason: dict[K, str] = {}

    async def run(self, stop: asyncio.Event, *, grace_s: float = 3.0) -> None:
        """Works until ``stop`` is set, then lets the turns in hand finish for ``grace_s`` and abandons the rest."""
        async with asyncio.TaskGroup() as turns:
            dispatcher = turns.create_task(self._dispatch(turns))
            await stop.wait()
            dispatcher.cancel()
            if self._running:
                await asyncio.wait(tuple(self._running), timeout=grace_s)
            for task in tuple(self._running):
                task.cancel()

    async def _dispatch(self, turns: asyncio.TaskGroup) -> None:
        while True:
            await self._slots.acquire()
            key = await self._queue.take()
            task = turns.create_task(self._take_turn(key), name=f"turn of {key}")
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._slots.release()

    async def _take_turn(self, key: K) -> None:
        started = self._clock.time()
        try:
            again_s = await self._turn(key)
        except asyncio.CancelledError:
            self._queue.done(key)
            raise
        except GuestletError as error:
            result = _branch(error)
            self._failed(key, error, reason=error.reason)
        except Exception as error:  # noqa: BLE001 one guest's bug must not end the other guests' turns
            result = "Bug"
            self._failed(key, error, reason="Bug")
        else:
            result = "Done"
            self._queue.done(key, again_s=again_s)
            if self._last_reason.pop(key, None) is not None:
                log.info("works again", extra={"guest": str(key)})
        self._report(result, self._clock.time() - started)

    def _failed(self, key: K, error: Exception, *, reason: str) -> None:
        rest_s = self._queue.failed(key)
        if self._last_reason.get(key) == reason:
            return
        self._last_reason[key] = reason
        told = {"guest": str(key), "reason": reason}
        match error:
            case NotNow():
                log.info("%s; next try in %.1f s", error.message, rest_s, extra=told)
            case GuestletError():
                log.warning("%s; next try in %.1f s", error.message, rest_s, extra=told)
            case _:
                log.error("a turn failed by a defect of the program", exc_info=error, extra=told)


def _branch(error: GuestletError) -> str:
    match error:
        case Refused():
            return "Refused"
        case NotNow():
            return "NotNow"
        case Unknown():
            return "Unknown"
        case Broken():
            return "Broken"
        case _:
            return "GuestletError"

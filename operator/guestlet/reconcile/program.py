"""What agent and controller share: signals, exit codes, the bridge from kopf's thread.

It must never leave a guest in another state than it found it: a program that ends ends only itself.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

from guestlet.errors import GuestletError, NotNow
from guestlet.kube.lease import LeaseHolder

log = logging.getLogger(__name__)

_RETRY_S = 2.0


async def run_until_signal(program: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Runs the program with an event that SIGTERM and SIGINT set; the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await program(stop)
    except GuestletError as error:
        log.error("%s", error.message, extra={"reason": error.reason})
        return 1
    return 0


async def acquire(lease: LeaseHolder, stop: asyncio.Event) -> bool:
    """Takes the Lease as soon as the API server answers; false when ``stop`` came first.

    Raises:
        Refused: LeaseHeldByAnother.
    """
    said = False
    while not stop.is_set():
        try:
            await lease.renew()
        except NotNow as error:
            if not said:
                log.warning("waits for its Lease: %s", error.message, extra={"reason": error.reason})
                said = True
            await pause(stop, _RETRY_S)
            continue
        return True
    return False


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleeps, but not over ``stop``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


class Bridge:
    """Calls from another thread into this program's loop; after the loop's end they are dropped."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def call(self, callback: Callable[..., object], *arguments: object) -> None:
        """Calls in the loop, soon."""
        with suppress(RuntimeError):  # the loop is closed: the program has ended
            self._loop.call_soon_threadsafe(callback, *arguments)

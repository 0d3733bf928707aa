"""The authoritative list: what a watch missed, or never took back, is seen here at the latest.

It must never be the usual way to learn of a change, and never conclude that a guest is gone: the key's turn reads that.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from guestlet.errors import GuestletError

log = logging.getLogger(__name__)

_RETRY_S = 5.0


class Resync:
    """Lists now, then every ``period_s`` give or take a tenth, and whenever ``soon`` is called."""

    def __init__(
        self, relist: Callable[[], Awaitable[None]], *, period_s: float, fraction: Callable[[], float]
    ) -> None:
        self._relist = relist
        self._period_s = period_s
        self._fraction = fraction
        self._wanted = asyncio.Event()
        self.listed = asyncio.Event()

    def soon(self) -> None:
        """Lists again at once (the watch or the API server came back)."""
        self._wanted.set()

    async def run(self) -> None:
        """Lists for ever; a list that fails is tried again after five seconds."""
        while True:
            self._wanted.clear()
            pause_s = self._period_s * (0.9 + self._fraction() / 5)
            try:
                await self._relist()
                self.listed.set()
            except GuestletError as error:
                log.debug("the list of guests failed: %s", error)
                pause_s = _RETRY_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            except TimeoutError:
                continue

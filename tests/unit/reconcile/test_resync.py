import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from guestlet.errors import NotNow
from guestlet.reconcile.resync import Resync


@asynccontextmanager
async def resyncing(relist: Callable[[], Awaitable[None]], *, period_s: float = 3600.0) -> AsyncIterator[Resync]:
    resync = Resync(relist, period_s=period_s, fraction=lambda: 0.5)
    task = asyncio.create_task(resync.run())
    yield resync
    task.cancel()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_first_list_comes_at_once_and_is_announced() -> None:
    async def relist() -> None:
        return

    async with resyncing(relist) as resync:
        await asyncio.wait_for(resync.listed.wait(), 1)


async def test_it_lists_again_when_asked_and_after_its_period() -> None:
    lists = 0

    async def relist() -> None:
        nonlocal lists
        lists += 1

    async with resyncing(relist) as resync:
        await settle()
        resync.soon()
        await settle()
        assert lists == 2
    async with resyncing(relist, period_s=0.005):
        await asyncio.sleep(0.05)
        assert lists > 4


async def test_a_list_that_fails_announces_nothing_and_is_tried_again() -> None:
    failing = True

    async def relist() -> None:
        if failing:
            raise NotNow("ApiUnavailable", "away")

    async with resyncing(relist) as resync:
        await settle()
        assert not resync.listed.is_set()
        failing = False
        resync.soon()
        await asyncio.wait_for(resync.listed.wait(), 1)

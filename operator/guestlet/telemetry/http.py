"""/healthz, /readyz and /metrics on one address, loopback unless the settings say otherwise; nothing changes here."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from guestlet.errors import Refused

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Check = Callable[[], str | None]


@asynccontextmanager
async def serving(
    address: str, port: int, *, metrics: Callable[[], bytes], healthy: Check, ready: Check
) -> AsyncIterator[int]:
    """Serves while the block runs and gives the port; a check returns ``None`` for yes, or why not.

    Raises:
        Refused: AddressTaken, the address cannot be listened on.
    """
    app = web.Application()
    app.router.add_get("/healthz", _checked(healthy))
    app.router.add_get("/readyz", _checked(ready))

    async def numbers(_request: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": _METRICS_TYPE})

    app.router.add_get("/metrics", numbers)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, port)
        try:
            await site.start()
        except OSError as error:
            raise Refused("AddressTaken", f"httpAddress {address}, httpPort {port}: {error.strerror}") from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _checked(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        why_not = check()
        return web.Response(text=why_not or "ok", status=200 if why_not is None else 503)

    return answer

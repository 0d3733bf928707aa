import aiohttp
import pytest

from guestlet.errors import Refused
from guestlet.telemetry.http import serving


async def get(port: int, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_health_readiness_and_numbers() -> None:
    why_not: str | None = "not yet"
    async with serving(
        "127.0.0.1", 0, metrics=lambda: b"guestlet_up 1\n", healthy=lambda: None, ready=lambda: why_not
    ) as port:
        assert await get(port, "/healthz") == (200, "ok")
        assert await get(port, "/readyz") == (503, "not yet")
        why_not = None
        assert await get(port, "/readyz") == (200, "ok")
        assert await get(port, "/metrics") == (200, "guestlet_up 1\n")
        assert (await get(port, "/other"))[0] == 404


async def test_a_taken_port_is_refused_with_its_number() -> None:
    async with serving("127.0.0.1", 0, metrics=bytes, healthy=lambda: None, ready=lambda: None) as port:
        with pytest.raises(Refused, match=str(port)):
            async with serving("127.0.0.1", port, metrics=bytes, healthy=lambda: None, ready=lambda: None):
                pass

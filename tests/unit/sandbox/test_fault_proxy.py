"""The fault proxy passes everything on unchanged until it is told otherwise. A small server stands in for the API's."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientPayloadError, ClientResponse, ClientSession, TCPConnector, web
from yarl import URL

from sandbox.certificates import Identity, ensure_authority, ensure_certificate
from sandbox.fault_proxy import Delay, Drop, FaultProxy, Gone, Respond, Rule

pytestmark = pytest.mark.slow


class Upstream:
    """Echoes every request; a watch gets an event whenever the test says one."""

    def __init__(self, pki: Path) -> None:
        self.pki = pki
        self.asked: list[str] = []
        self.events: asyncio.Queue[str] = asyncio.Queue()
        self.port = 0

    async def start(self) -> web.AppRunner:
        pair = ensure_certificate(self.pki, "upstream", Identity(common_name="upstream", hosts=("127.0.0.1",)))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.certificate, pair.key)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.raw_path}")
        if "watch" in request.query:
            return await self.watch(request)
        body = {"body": await request.text(), "authorization": request.headers.get("Authorization")}
        return web.json_response(body, headers=[("Warning", "one"), ("Warning", "two")])

    async def watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(f"{await self.events.get()}\n".encode())


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    value = Upstream(tmp_path / "pki")
    runner = await value.start()
    yield value
    await runner.cleanup()


@pytest.fixture
async def proxy(upstream: Upstream) -> AsyncIterator[FaultProxy]:
    with FaultProxy(f"https://127.0.0.1:{upstream.port}", upstream.pki) as value:
        yield value


@pytest.fixture
async def client(proxy: FaultProxy, upstream: Upstream) -> AsyncIterator[ClientSession]:
    trust = ssl.create_default_context(cafile=str(ensure_authority(upstream.pki).certificate))
    headers = {"Authorization": "Bearer token", "User-Agent": "agent/1"}
    async with ClientSession(proxy.url, connector=TCPConnector(ssl=trust), headers=headers) as session:
        yield session


async def next_line(answer: ClientResponse, *, within_s: float = 5) -> str:
    async with asyncio.timeout(within_s):
        return (await answer.content.readline()).decode().strip()


async def test_a_request_and_its_answer_pass_unchanged(client: ClientSession, upstream: Upstream) -> None:
    async with client.post(URL("/api/v1/x?fieldSelector=status.nodeName%3Da%2Cb", encoded=True), data="body") as answer:
        assert await answer.json() == {"body": "body", "authorization": "Bearer token"}
        assert answer.headers.getall("Warning") == ["one", "two"]
    assert upstream.asked == ["POST /api/v1/x?fieldSelector=status.nodeName%3Da%2Cb"]


async def test_what_was_asked_is_remembered(client: ClientSession, proxy: FaultProxy) -> None:
    async with client.get("/api/v1/nodes?limit=1"):
        pass
    [seen] = proxy.seen
    assert (seen.method, seen.path, seen.user_agent) == ("GET", "/api/v1/nodes?limit=1", "agent/1")
    assert (seen.is_watch, seen.fault) == (False, None)


async def test_too_many_requests_are_answered_with_the_time_to_wait(
    client: ClientSession, proxy: FaultProxy, upstream: Upstream
) -> None:
    proxy.add(Rule(fault=Respond(status=429, retry_after_s=7), times=1))
    async with client.get("/x") as refused, client.get("/x") as passed:
        assert (refused.status, refused.headers["Retry-After"]) == (429, "7")
        assert (await refused.json())["code"] == 429
        assert passed.status == 200
    assert len(upstream.asked) == 1


async def test_a_rule_befalls_only_what_it_names(client: ClientSession, proxy: FaultProxy) -> None:
    proxy.add(Rule(fault=Respond(status=500), methods=("PATCH",), path="/status", user_agent="agent"))
    async with client.get("/g/status") as read, client.patch("/g") as other, client.patch("/g/status") as hit:
        assert (read.status, other.status, hit.status) == (200, 200, 500)
    proxy.clear()
    async with client.patch("/g/status") as again:
        assert again.status == 200


async def test_a_slow_answer_comes_all_the_same(client: ClientSession, proxy: FaultProxy) -> None:
    proxy.add(Rule(fault=Delay(delay_s=0.05)))
    started = asyncio.get_running_loop().time()
    async with client.get("/x") as answer:
        assert answer.status == 200
    assert asyncio.get_running_loop().time() - started >= 0.05


@pytest.mark.parametrize(("applied", "heard"), [(False, []), (True, ["POST /x"])])
async def test_a_dropped_request_gets_no_answer(
    client: ClientSession, proxy: FaultProxy, upstream: Upstream, applied: bool, heard: list[str]
) -> None:
    proxy.add(Rule(fault=Drop(applied=applied)))
    with pytest.raises(ClientConnectionError):
        await client.post("/x")
    assert upstream.asked == heard


async def test_nobody_is_let_in_while_it_refuses(client: ClientSession, proxy: FaultProxy) -> None:
    proxy.refuse()
    with pytest.raises(ClientConnectionError):
        await client.get("/x")
    proxy.accept()
    async with client.get("/x") as answer:
        assert answer.status == 200


async def test_events_of_a_watch_pass_as_they_come(client: ClientSession, upstream: Upstream) -> None:
    async with client.get("/x?watch=true") as watch:
        upstream.events.put_nowait("one")
        assert await next_line(watch) == "one"
        upstream.events.put_nowait("two")
        assert await next_line(watch) == "two"


async def test_a_cut_watch_ends_in_the_middle(client: ClientSession, proxy: FaultProxy, upstream: Upstream) -> None:
    async with client.get("/x?watch=true") as watch:
        upstream.events.put_nowait("one")
        await next_line(watch)
        assert proxy.cut_watches() == 1
        with pytest.raises(ClientPayloadError):
            await next_line(watch)


async def test_a_held_watch_is_silent_until_it_is_released(
    client: ClientSession, proxy: FaultProxy, upstream: Upstream
) -> None:
    async with client.get("/x?watch=true") as watch:
        proxy.hold_watches()
        upstream.events.put_nowait("one")
        with pytest.raises(TimeoutError):
            await next_line(watch, within_s=0.05)
        proxy.release_watches()
        assert await next_line(watch) == "one"


async def test_a_watch_from_too_long_ago_is_told_so_inside_the_stream(client: ClientSession, proxy: FaultProxy) -> None:
    proxy.add(Rule(fault=Gone(), watches=True))
    async with client.get("/x?watch=true") as watch, client.get("/x") as listing:
        assert json.loads(await next_line(watch))["object"]["code"] == 410
        assert (watch.status, listing.status) == (200, 200)


async def test_a_lost_upstream_is_a_cut_connection(client: ClientSession, upstream: Upstream, tmp_path: Path) -> None:
    with FaultProxy("https://127.0.0.1:1", upstream.pki) as lost, pytest.raises(ClientConnectionError):
        await client.get(f"{lost.url}/x")

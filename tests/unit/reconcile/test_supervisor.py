import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from fakes.api_socket import answering
from guestlet.kube.credentials import Credentials
from guestlet.kube.facts import GuestSighting
from guestlet.reconcile.supervisor import EndlessBackoff, KopfThread, Watch, import_kopf, kopf_settings

DISCOVERY = {
    "/api/v1": ("namespaces", "events"),
    "/apis/apiextensions.k8s.io/v1": ("customresourcedefinitions",),
    "/apis/guestlet.io/v1alpha1": ("virtualguests",),
}


def groups() -> dict[str, Any]:
    found = []
    for path in DISCOVERY:
        if path.startswith("/apis/"):
            _, _, name, version = path.split("/")
            found.append({"name": name, "versions": [{"version": version}], "preferredVersion": {"version": version}})
    return {"groups": found}


def kinds(plurals: tuple[str, ...]) -> dict[str, Any]:
    return {
        "resources": [
            {
                "name": plural,
                "singularName": plural[:-1],
                "kind": plural,
                "namespaced": True,
                "verbs": ["list", "watch"],
            }
            for plural in plurals
        ]
    }


def guest(name: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", "uid": name, "resourceVersion": "5"}
    return {"apiVersion": "guestlet.io/v1alpha1", "kind": "VirtualGuest", "metadata": meta, "spec": {}}


class ApiServer:
    """Just enough of an API server for kopf to watch: discovery, a list, and a stream that tests write to."""

    def __init__(self) -> None:
        self.queries: list[Mapping[str, str]] = []
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.writes: list[str] = []
        self.list_status = 200
        self.refused = asyncio.Semaphore(0)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method != "GET":
            self.writes.append(f"{request.method} {request.path}")
        match request.path:
            case "/api":
                return web.json_response({"versions": ["v1"]})
            case "/apis":
                return web.json_response(groups())
            case path if path in DISCOVERY:
                return web.json_response(kinds(DISCOVERY[path]))
            case "/apis/guestlet.io/v1alpha1/virtualguests":
                self.queries.append(dict(request.query))
                return await self._watch(request) if "watch" in request.query else self._list()
            case _:
                return web.json_response({"code": 404}, status=404)

    def _list(self) -> web.Response:
        if self.list_status != 200:
            self.refused.release()
            return web.json_response({"code": self.list_status}, status=self.list_status)
        return web.json_response({"items": [guest("listed")], "metadata": {"resourceVersion": "5"}})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            line = await self.lines.get()
            if not line:
                return response
            await response.write(line + b"\n")


class House:
    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.seen: asyncio.Queue[tuple[str | None, str]] = asyncio.Queue()
        self.restarts = 0

    async def next(self) -> tuple[str | None, str]:
        return await asyncio.wait_for(self.seen.get(), 10)


@asynccontextmanager
async def watching(*, field_selector: str = "status.nodeName=node-a") -> AsyncIterator[House]:
    server = ApiServer()
    house = House(server)
    loop = asyncio.get_running_loop()

    def changed(change: str | None, seen: GuestSighting) -> None:
        loop.call_soon_threadsafe(house.seen.put_nowait, (change, seen.name))

    def restarted() -> None:
        house.restarts += 1

    async with answering(server.answer) as url:
        thread = KopfThread(
            Watch(
                field_selector=field_selector,
                login=lambda: Credentials(server=url, token="t"),
                changed=changed,
                restarted=restarted,
            )
        )
        thread.start()
        try:
            yield house
        finally:
            server.lines.put_nowait(b"")
            await thread.stop()


@pytest.mark.slow
async def test_listed_and_changed_guests_are_told_and_nothing_is_written() -> None:
    async with watching() as house:
        assert await house.next() == (None, "listed")
        house.server.lines.put_nowait(b'{"type": "DELETED", "object": ' + _json(guest("gone")) + b"}")
        assert await house.next() == ("DELETED", "gone")
        assert house.server.writes == []


@pytest.mark.slow
async def test_the_list_and_the_watch_carry_the_field_selector() -> None:
    async with watching() as house:
        await house.next()
        house.server.lines.put_nowait(b'{"type": "MODIFIED", "object": ' + _json(guest("a")) + b"}")
        await house.next()
        assert len(house.server.queries) >= 2
        assert {query["fieldSelector"] for query in house.server.queries} == {"status.nodeName=node-a"}


@pytest.mark.slow
async def test_a_watch_error_that_ends_kopf_is_survived() -> None:
    async with watching() as house:
        await house.next()
        house.server.lines.put_nowait(b'{"type": "ERROR", "object": {"kind": "Status", "code": 500}}')
        assert await house.next() == (None, "listed")
        assert house.restarts == 1


@pytest.mark.slow
async def test_stopping_takes_no_longer_than_three_seconds_even_while_nothing_happens() -> None:
    loop = asyncio.get_running_loop()
    async with watching() as house:
        await house.next()
        began = loop.time()
    assert loop.time() - began < 3


@pytest.mark.slow
async def test_a_server_that_fails_is_asked_again_and_again_without_a_restart() -> None:
    async with watching() as house:
        await house.next()
        house.server.list_status = 503
        house.server.lines.put_nowait(b'{"type": "ERROR", "object": {"kind": "Status", "code": 410}}')
        for _ in range(3):
            await asyncio.wait_for(house.server.refused.acquire(), 10)
        house.server.list_status = 200
        assert await house.next() == (None, "listed")
        assert house.restarts == 0


def test_backoffs_never_end_and_never_grow_beyond_eight_seconds() -> None:
    pauses = list(itertools.islice(EndlessBackoff(), 200))
    assert max(pauses) <= 8
    assert min(pauses[10:]) >= 4


def test_kopf_watches_and_does_nothing_else() -> None:
    import_kopf()
    settings = kopf_settings("status.nodeName=node-a")
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert not settings.watching.initial_streaming
    assert isinstance(settings.watching.server_timeout, int)
    assert not hasattr(settings.networking.error_backoffs, "__len__")


def _json(body: Mapping[str, Any]) -> bytes:
    return web.json_response(body).body  # type: ignore[return-value]  # always bytes here

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fakes.api_socket import answering
from guestlet.errors import Broken, GuestletError, NotNow, Refused
from guestlet.kube.client import JSON_PATCH, KubeClient, Request
from guestlet.kube.credentials import Credentials
from guestlet.kube.resources import GUESTS, NODES

Count = tuple[str, str, str]


@asynccontextmanager
async def client_of(
    answer: Callable[[web.Request], web.Response], *, token_file: Path | None = None, timeout_s: float = 5.0
) -> AsyncIterator[tuple[KubeClient, list[Count]]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return answer(request)

    counts: list[Count] = []
    async with answering(handle) as url:
        credentials = Credentials(server=url, token="secret", token_file=token_file)
        client = KubeClient(credentials, count=lambda *count: counts.append(count), timeout_s=timeout_s)
        yield client, counts
        await client.close()


def said(status: int, message: str = "because", **details: Any) -> web.Response:
    body = {"kind": "Status", "message": message, "details": details}
    return web.json_response(body, status=status)


GET = Request(verb="get", resource=GUESTS, namespace="default", name="a")
STATUS_PATCH = Request(
    verb="patch",
    resource=GUESTS,
    namespace="default",
    name="a",
    subresource="status",
    body=[],
    content_type=JSON_PATCH,
)


async def test_an_answer_is_the_object_and_is_counted() -> None:
    async with client_of(lambda _request: web.json_response({"kind": "VirtualGuest"})) as (client, counts):
        assert await client.send(GET) == {"kind": "VirtualGuest"}
        assert counts == [("get", "virtualguests", "200")]


async def test_the_request_names_the_object_and_carries_the_token() -> None:
    seen: list[str] = []

    def answer(request: web.Request) -> web.Response:
        seen.extend([request.method, request.path, request.headers["Authorization"], request.content_type])
        return web.json_response({})

    async with client_of(answer) as (client, _):
        await client.send(STATUS_PATCH)
    assert seen == [
        "PATCH",
        "/apis/guestlet.io/v1alpha1/namespaces/default/virtualguests/a/status",
        "Bearer secret",
        "application/json-patch+json",
    ]


async def test_not_found_is_none() -> None:
    async with client_of(lambda _request: said(404)) as (client, _):
        assert await client.send(GET) is None


@pytest.mark.parametrize(
    ("request_", "status", "kind", "reason"),
    [
        (GET, 409, NotNow, "Conflict"),
        (STATUS_PATCH, 422, NotNow, "Conflict"),
        (GET, 422, Refused, "Invalid"),
        (GET, 400, Refused, "Invalid"),
        (GET, 401, Broken, "Unauthorized"),
        (GET, 403, Broken, "Forbidden"),
        (GET, 429, NotNow, "ApiUnavailable"),
        (GET, 500, NotNow, "ApiUnavailable"),
        (GET, 503, NotNow, "ApiUnavailable"),
        (GET, 418, Broken, "ApiAnswer"),
    ],
)
async def test_every_refusal_has_its_branch(
    request_: Request, status: int, kind: type[GuestletError], reason: str
) -> None:
    async with client_of(lambda _request: said(status)) as (client, _):
        with pytest.raises(kind) as caught:
            await client.send(request_)
    assert caught.value.reason == reason
    assert "because" in caught.value.message


async def test_a_patch_that_breaks_the_schema_is_no_conflict() -> None:
    async with client_of(lambda _request: said(422, causes=[{"field": "status.phase"}])) as (client, _):
        with pytest.raises(Refused):
            await client.send(STATUS_PATCH)


async def test_what_is_forbidden_is_named() -> None:
    async with client_of(lambda _request: said(403)) as (client, _):
        with pytest.raises(Broken, match="may not patch virtualguests/status"):
            await client.send(STATUS_PATCH)


async def test_nobody_there_is_not_now_and_is_said_once_and_so_is_the_return(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    status, recovered = 503, asyncio.Event()
    async with client_of(lambda _request: said(status)) as (client, _):
        client.recovered = recovered.set
        for _ in range(3):
            with pytest.raises(NotNow):
                await client.send(GET)
        assert not client.answers
        status = 404
        await client.send(GET)
        await asyncio.wait_for(recovered.wait(), 1)
        assert client.answers
    lines = [record.message for record in caplog.records if record.name == "guestlet.kube.client"]
    assert lines == ["the API server answers with 503; guests run on", "the API server answers again"]


async def test_a_closed_port_is_not_now() -> None:
    counts: list[Count] = []
    client = KubeClient(Credentials(server="http://127.0.0.1:1"), count=lambda *count: counts.append(count))
    with pytest.raises(NotNow, match="did not answer"):
        await client.send(GET)
    await client.close()
    assert counts == [("get", "virtualguests", "none")]


async def test_a_server_that_never_answers_meets_the_deadline() -> None:
    async def sleep(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    async with answering(sleep) as url:
        client = KubeClient(Credentials(server=url), timeout_s=0.05)
        with pytest.raises(NotNow, match="did not answer"):
            await client.send(GET)
        await client.close()


async def test_an_answer_that_is_no_json_is_broken() -> None:
    async with client_of(lambda _request: web.Response(text="<html>proxy</html>")) as (client, _):
        with pytest.raises(Broken):
            await client.send(GET)


async def test_retry_after_is_honoured_without_asking_again() -> None:
    asked = 0

    def answer(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"message": "slow down"}, status=429, headers={"Retry-After": "30"})

    async with client_of(answer) as (client, _):
        for _ in range(5):
            with pytest.raises(NotNow):
                await client.send(GET)
    assert asked == 1


async def test_a_rotated_token_is_read_again_at_once(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")

    def answer(request: web.Request) -> web.Response:
        return web.json_response({}) if request.headers["Authorization"] == "Bearer new" else said(401)

    async with client_of(answer, token_file=token) as (client, _):
        with pytest.raises(Broken, match="Unauthorized"):
            await client.send(GET)
        token.write_text("new\n")
        assert await client.send(GET) == {}


async def test_a_list_is_read_page_by_page() -> None:
    def answer(request: web.Request) -> web.Response:
        assert request.query["fieldSelector"] == "status.nodeName=a"
        token = request.query.get("continue")
        page = [{"n": 3}] if token else [{"n": 1}, {"n": 2}]
        return web.json_response({"items": page, "metadata": {} if token else {"continue": "more"}})

    async with client_of(answer) as (client, counts):
        found = await client.list(GUESTS, fields="status.nodeName=a")
    assert [item["n"] for item in found] == [1, 2, 3]
    assert counts == [("list", "virtualguests", "200")] * 2


async def test_a_kind_that_the_server_does_not_know_is_said() -> None:
    async with client_of(lambda _request: said(404)) as (client, _):
        with pytest.raises(Broken, match="does not know nodes"):
            await client.list(NODES)

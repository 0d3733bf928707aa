"""A proxy before the API server that misbehaves on demand, and remembers who asked for what.

It terminates TLS with a certificate of the sandbox's authority and passes bearer tokens on; users known by client
certificate cannot come through it. It must never change a request or an answer, only refuse, delay, cut or replace it.
It runs on a thread and event loop of its own: a test that blocks does not slow it, and it may be steered from anywhere.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, assert_never

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

from sandbox.certificates import Identity, ensure_certificate
from sandbox.errors import SandboxError
from sandbox.ports import free_port

_STEER_TIMEOUT_S = 10.0
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"})
_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """Answer with this status instead of asking the API server."""

    status: int
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Pass the request on after this time."""

    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Cut the connection without an answer: before the API server hears of it, or after it did what was asked."""

    applied: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """Start the watch and say at once that its resource version is too old (410 inside the stream)."""


Fault = Respond | Delay | Drop | Gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which requests a fault befalls: all that match every field; an empty field matches all.

    Args:
        fault: what happens to them.
        methods: HTTP methods, upper case.
        path: a part of the path with its query.
        user_agent: a part of the client's name.
        watches: only watches (True), only others (False).
        times: how often, None for always.
    """

    fault: Fault
    methods: tuple[str, ...] = ()
    path: str = ""
    user_agent: str = ""
    watches: bool | None = None
    times: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request that reached the proxy, when (monotonic seconds), and the fault that befell it."""

    at_s: float
    method: str
    path: str
    user_agent: str
    is_watch: bool
    fault: Fault | None


class FaultProxy:
    """A proxy before the API server of one sandbox; `with FaultProxy(...) as proxy` starts and stops it."""

    def __init__(self, upstream: str, pki: Path) -> None:
        self._upstream = upstream
        self._authority = pki / "ca.crt"
        self._certificate = ensure_certificate(
            pki, "fault-proxy", Identity(common_name="fault-proxy", hosts=("localhost", "127.0.0.1"))
        )
        self._port = free_port()
        self._lock = threading.Lock()
        self._rules: list[tuple[Rule, int | None]] = []
        self._seen: list[Seen] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._watches: set[asyncio.Transport] = set()
        self._flowing = asyncio.Event()
        self._resources = AsyncExitStack()
        self._session: ClientSession | None = None
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        self._steer(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._steer(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STEER_TIMEOUT_S)
        self._loop.close()

    @property
    def url(self) -> str:
        """Where clients find it: what a kubeconfig names as server."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def seen(self) -> tuple[Seen, ...]:
        """Every request so far, in the order of arrival."""
        with self._lock:
            return tuple(self._seen)

    def add(self, rule: Rule) -> None:
        """Let a fault befall what comes from now on; of several rules that match the oldest counts."""
        with self._lock:
            self._rules.append((rule, rule.times))

    def clear(self) -> None:
        """Forget every rule, and let held watches flow again."""
        with self._lock:
            self._rules.clear()
        self.release_watches()

    def refuse(self) -> None:
        """Stop listening and cut every connection, as an API server does that is gone."""
        self._steer(self._stop_listening())

    def accept(self) -> None:
        """Listen again, on the same port."""
        self._steer(self._listen())

    def cut_watches(self) -> int:
        """Cut every open watch in the middle of whatever it says, and tell how many there were."""
        return self._steer(self._cut_watches())

    def hold_watches(self) -> None:
        """Keep watches open and silent: what happens is held back until they are released."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def release_watches(self) -> None:
        """Let the watches say what was held back, in order."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _steer(self, work: Coroutine[object, object, _Result]) -> _Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(_STEER_TIMEOUT_S)
        except TimeoutError as error:
            raise SandboxError("the fault proxy does not answer") from error

    async def _open(self) -> None:
        trust = ssl.create_default_context(cafile=str(self._authority))
        self._session = await self._resources.enter_async_context(
            ClientSession(
                connector=TCPConnector(ssl=trust, limit=0),
                # What the API server packed stays packed, and a watch may be silent for as long as it likes.
                auto_decompress=False,
                timeout=ClientTimeout(total=None, sock_connect=10),
            )
        )
        self._flowing.set()
        await self._listen()

    async def _close(self) -> None:
        await self._stop_listening()
        await self._resources.aclose()

    async def _listen(self) -> None:
        if self._runner is not None:
            return
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._handle)
        # A handler ends with its client: else a silent watch would stay open at the API server.
        runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=0.1, auto_decompress=False, handler_cancellation=True
        )
        await runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._certificate.certificate, self._certificate.key)
        await web.TCPSite(runner, "127.0.0.1", self._port, ssl_context=context).start()
        self._runner = runner

    async def _stop_listening(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for connection in runner.server.connections if runner.server is not None else ():
            if isinstance(connection.transport, asyncio.Transport):
                connection.transport.abort()
        await runner.cleanup()

    async def _cut_watches(self) -> int:
        watches = tuple(self._watches)
        for transport in watches:
            transport.abort()
        return len(watches)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = self._fault_for(request)
        match fault:
            case None:
                return await self._pass_on(request)
            case Respond():
                return _answer(fault)
            case Delay():
                await asyncio.sleep(fault.delay_s)
                return await self._pass_on(request)
            case Drop():
                if fault.applied:
                    async with self._ask(request) as answer:
                        await answer.read()
                return _cut(request)
            case Gone():
                return await _say_gone(request)
            case _:
                assert_never(fault)

    def _fault_for(self, request: web.Request) -> Fault | None:
        with self._lock:
            fault = self._next_fault(request)
            self._seen.append(
                Seen(
                    at_s=time.monotonic(),
                    method=request.method,
                    path=request.path_qs,
                    user_agent=request.headers.get("User-Agent", ""),
                    is_watch=_is_watch(request),
                    fault=fault,
                )
            )
            return fault

    def _next_fault(self, request: web.Request) -> Fault | None:
        for index, (rule, left) in enumerate(self._rules):
            if left != 0 and _matches(rule, request):
                self._rules[index] = (rule, None if left is None else left - 1)
                return rule.fault
        return None

    def _ask(self, request: web.Request) -> "_Asking":
        if self._session is None:
            raise SandboxError("the fault proxy is not started")
        return _Asking(self._session, self._upstream + request.raw_path, request)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        try:
            async with self._ask(request) as answer:
                return await self._stream(request, answer)
        except (ClientError, TimeoutError):
            # The API server is gone: so is the connection, as it would be without us.
            return _cut(request)

    async def _stream(self, request: web.Request, answer: ClientResponse) -> web.StreamResponse:
        headers = _passed_on(answer.headers)
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        transport = request.transport
        if transport is None:
            return response
        watch = _is_watch(request)
        if watch and isinstance(transport, asyncio.Transport):
            self._watches.add(transport)
        try:
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                if watch:
                    await self._flowing.wait()
                await response.write(chunk)
            await response.write_eof()
        except ConnectionError:
            # The client left, or we cut its watch.
            pass
        finally:
            if isinstance(transport, asyncio.Transport):
                self._watches.discard(transport)
        return response


class _Asking:
    """The same request, on its way to the API server."""

    def __init__(self, session: ClientSession, url: str, request: web.Request) -> None:
        self._session = session
        self._url = url
        self._request = request
        self._answer: ClientResponse | None = None

    async def __aenter__(self) -> ClientResponse:
        headers = _passed_on(self._request.headers)
        body = await self._request.read()
        self._answer = await self._session.request(
            self._request.method, URL(self._url, encoded=True), headers=headers, data=body or None
        )
        return self._answer

    async def __aexit__(self, *_: object) -> None:
        if self._answer is None:
            return
        if self._answer.content.at_eof():
            self._answer.release()
        else:
            # A watch that the client left has an endless body: its connection cannot serve another request.
            connection = self._answer.connection
            if connection is not None and connection.transport is not None:
                connection.transport.abort()
            self._answer.close()


def _passed_on(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP]


def _is_watch(request: web.Request) -> bool:
    return request.query.get("watch", "") in {"1", "true", "True"}


def _matches(rule: Rule, request: web.Request) -> bool:
    conditions: tuple[Callable[[], bool], ...] = (
        lambda: not rule.methods or request.method in rule.methods,
        lambda: rule.path in request.path_qs,
        lambda: rule.user_agent in request.headers.get("User-Agent", ""),
        lambda: rule.watches is None or rule.watches == _is_watch(request),
    )
    return all(condition() for condition in conditions)


def _answer(fault: Respond) -> web.Response:
    headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    return web.json_response(
        _status(fault.status, _REASONS.get(fault.status, "")), status=fault.status, headers=headers
    )


def _cut(request: web.Request) -> web.Response:
    if isinstance(request.transport, asyncio.Transport):
        request.transport.abort()
    return web.Response()


async def _say_gone(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    event = {"type": "ERROR", "object": _status(410, _REASONS[410])}
    await response.write(json.dumps(event).encode() + b"\n")
    await response.write_eof()
    return response


def _status(code: int, reason: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "reason": reason,
        "message": "a fault made by the test",
        "code": code,
    }

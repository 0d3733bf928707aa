"""Events for people: posted in the background, repeated ones counted instead of posted again, never a flood.

It must never block a turn, never raise into one, and never flood etcd.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from guestlet.errors import GuestletError
from guestlet.kube.client import MERGE_PATCH, KubeApi, Request
from guestlet.kube.resources import EVENTS

log = logging.getLogger(__name__)

_QUEUE_MAX = 256
_REMEMBERED = 1024
_SERIES_WINDOW_S = 600.0
_NOTE_MAX = 1024  # of events.k8s.io/v1
_TOKENS_MAX = 10.0
_TOKEN_EVERY_S = 15.0
_RESTS_S = (5.0, 20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regarding:
    """The object an Event is about; cluster-scoped ones have an empty namespace."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One Event as it is told; equal notes are the same event happening again."""

    about: Regarding
    reason: str
    message: str
    warning: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """What is known of one event: its name at the server, how often it happened, how often the server was told."""

    name: str
    count: int
    told: int
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bucket:
    tokens: float
    at: float


class Recorder:
    """Posts Events of one reporter; ``run`` must be running for anything to be sent.

    Repeated events (same object, reason and message within ten minutes) raise ``series.count``; each object has a
    bucket of ten requests that refills by one every fifteen seconds. ``clock`` gives seconds since the epoch.
    """

    def __init__(self, client: KubeApi, *, controller: str, instance: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._controller = controller
        self._instance = instance[:128]
        self._clock = clock
        self._queue: asyncio.Queue[tuple[Note, int]] = asyncio.Queue(_QUEUE_MAX)
        self._series: OrderedDict[Note, _Series] = OrderedDict()
        self._buckets: OrderedDict[Regarding, _Bucket] = OrderedDict()

    def record(self, about: Regarding, *, reason: str, message: str, warning: bool) -> None:
        """Queues an Event; dropped silently when hundreds wait already."""
        note = Note(about=about, reason=reason, message=message[:_NOTE_MAX], warning=warning)
        self._put(note, 0)

    async def run(self) -> None:
        """Posts what is queued, for ever; an Event that fails is tried again twice, then it is lost."""
        while True:
            note, attempt = await self._queue.get()
            request = self.request_for(note)
            if request is None:
                continue
            try:
                await self._client.send(request)
            except GuestletError as error:
                log.debug("an Event was not posted: %s", error)
                self._series.pop(note, None)
                # A server that has just come back refuses for some seconds what it allows otherwise.
                if attempt < len(_RESTS_S):
                    asyncio.get_running_loop().call_later(_RESTS_S[attempt], self._put, note, attempt + 1)

    def _put(self, note: Note, attempt: int) -> None:
        if not self._queue.full():
            self._queue.put_nowait((note, attempt))

    def request_for(self, note: Note) -> Request | None:
        """The write that tells of one more ``note`` now, or ``None`` when it is only counted."""
        now = self._clock()
        known = self._series.get(note)
        if known is not None and now - known.last <= _SERIES_WINDOW_S:
            return self._again(note, replace(known, count=known.count + 1, last=now), now)
        if not self._pay(note.about, now):
            return None
        fresh = _Series(name=f"{note.about.name[:200]}.{secrets.token_hex(8)}", count=1, told=1, last=now)
        self._series[note] = fresh
        while len(self._series) > _REMEMBERED:
            self._series.popitem(last=False)
        return self._posted(note, fresh, now)

    def _again(self, note: Note, series: _Series, now: float) -> Request | None:
        self._series[note] = series
        self._series.move_to_end(note)
        # Told at 2, 4, 8, …: a flapping guest costs a handful of writes, not one each time.
        if series.count < 2 * series.told or not self._pay(note.about, now):
            return None
        self._series[note] = replace(series, told=series.count)
        return self._counted(note, series, now)

    def _pay(self, about: Regarding, now: float) -> bool:
        bucket = self._buckets.pop(about, None) or _Bucket(tokens=_TOKENS_MAX, at=now)
        tokens = min(_TOKENS_MAX, bucket.tokens + (now - bucket.at) / _TOKEN_EVERY_S)
        pays = tokens >= 1
        self._buckets[about] = _Bucket(tokens=tokens - 1 if pays else tokens, at=now)
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return pays

    def _posted(self, note: Note, series: _Series, now: float) -> Request:
        about = note.about
        namespace = about.namespace or "default"
        regarding = {"apiVersion": about.api_version, "kind": about.kind, "name": about.name, "uid": about.uid}
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": series.name, "namespace": namespace},
            "eventTime": _micro(now),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "action": note.reason,
            "reason": note.reason,
            "regarding": regarding | ({"namespace": about.namespace} if about.namespace else {}),
            "note": note.message,
            "type": "Warning" if note.warning else "Normal",
        }
        return Request(verb="create", resource=EVENTS, namespace=namespace, body=body)

    def _counted(self, note: Note, series: _Series, now: float) -> Request:
        return Request(
            verb="patch",
            resource=EVENTS,
            namespace=note.about.namespace or "default",
            name=series.name,
            body={"series": {"count": series.count, "lastObservedTime": _micro(now)}},
            content_type=MERGE_PATCH,
        )


def _micro(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

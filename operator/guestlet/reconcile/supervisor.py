"""Keeps kopf watching: in a thread and loop of its own, started again whenever it ends.

Why a thread: on its exit kopf cancels every task that its loop got after its start (kopf ``running.py``, run_tasks);
ours would die with it. Why a supervisor: a watch error other than 410 ends the whole operator, and so do refused
credentials. What kopf says reaches the program's loop by ``call_soon_threadsafe`` alone.
"""

import asyncio
import importlib
import itertools
import logging
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, cast

from guestlet.api.guest import GROUP, PLURAL
from guestlet.kube.credentials import Credentials
from guestlet.kube.facts import GuestSighting

if TYPE_CHECKING:
    import kopf

log = logging.getLogger(__name__)

_FIRST_REST_S = 1.0
_LAST_REST_S = 30.0
_LAST_BACKOFF_S = 8.0
_STOP_S = 2.0


class EndlessBackoff:
    """Seconds between kopf's attempts, for ever: a list that ends would end the operator after a minute of 5xx."""

    def __iter__(self) -> Iterator[float]:
        """Doubling from a quarter of a second, spread at random so that a hundred nodes do not come at once."""
        for attempt in itertools.count():
            yield min(0.25 * 2.0 ** min(attempt, 16), _LAST_BACKOFF_S) * (0.5 + random.random() / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is watched: a field selector (empty: every guest), and who is told.

    ``changed`` gets the event's type and the object, and ``restarted`` nothing, both in kopf's thread.
    """

    field_selector: str
    login: Callable[[], Credentials]
    changed: Callable[[str | None, GuestSighting], None]
    restarted: Callable[[], None]


def import_kopf() -> None:
    """Loads kopf without the Kubernetes client, which it would import for the sake of a few isinstance checks.

    Measured: where that client is installed, importing kopf costs 19 MiB more. ``None`` in ``sys.modules`` is Python's
    way to say that a module is not there; kopf goes without it, and so does the rest of this program.
    """
    sys.modules.setdefault("kubernetes", cast(ModuleType, None))
    importlib.import_module("kopf")


def kopf_settings(field_selector: str) -> "kopf.OperatorSettings":
    """Kopf as the layer that watches and nothing more (reference: kubernetes.md 1.8, all measured)."""
    import kopf

    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    if field_selector:
        # A tuple: the documented "group/plural" string is parsed wrongly and filters nothing, silently.
        settings.watching.field_selectors[GROUP, PLURAL] = field_selector
    settings.watching.chunk_size = 500
    settings.watching.inactivity_timeout = 70
    settings.watching.server_timeout = 600 + random.randrange(120)  # an int: the server refuses fractions
    settings.networking.error_backoffs = EndlessBackoff()
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.posting.enabled = False
    settings.queueing.worker_limit = None
    settings.persistence.finalizer = "guestlet.io/unused"
    return settings


class KopfThread:
    """One watch in a thread; ``start`` returns at once, ``stop`` within two seconds."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._thread = threading.Thread(target=self._main, name="kopf", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = False

    def start(self) -> None:
        """Starts to watch."""
        self._thread.start()

    def restart(self) -> None:
        """Begins a new watch with a list, when the old one can no longer be trusted; without one, nothing."""
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with suppress(RuntimeError):  # the loop closed by itself meanwhile
                loop.call_soon_threadsafe(stop.set)

    async def stop(self) -> None:
        """Ends the watch; a thread that does not end in time is left to the end of the process."""
        self._stopping = True
        self.restart()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _STOP_S)

    def _main(self) -> None:
        asyncio.run(self._supervise())

    async def _supervise(self) -> None:
        self._loop = asyncio.get_running_loop()
        rest_s = _FIRST_REST_S
        while True:
            self._stop = asyncio.Event()
            if self._stopping:
                return
            began = self._loop.time()
            task = asyncio.create_task(self._operate(self._stop), name="kopf")
            await asyncio.wait({task})
            error = None if task.cancelled() else task.exception()
            if self._stopping:
                return
            rest_s = _FIRST_REST_S if self._loop.time() - began > _LAST_REST_S else min(rest_s * 2, _LAST_REST_S)
            log.warning("the watch ended (%r); started again in %.0f s", error, rest_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._stop.wait()
            self._watch.restarted()

    async def _operate(self, stop: asyncio.Event) -> None:
        # Imported here: it takes a third of a second that the guests' first turns need not wait for.
        import_kopf()
        import kopf

        from guestlet.handlers import build_registry

        await kopf.operator(
            registry=build_registry(login=self._watch.login, changed=self._watch.changed),
            settings=kopf_settings(self._watch.field_selector),
            clusterwide=True,
            standalone=True,
            stop_flag=stop,
        )

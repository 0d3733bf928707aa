"""The controller put together: leader election, sweep, queue, watch. No decision is made here.

It must never act without the controllers' Lease.
"""

import asyncio
import logging
import os
import random
import socket
import time

from guestlet.errors import GuestletError, NotNow, Refused
from guestlet.kube.client import KubeClient
from guestlet.kube.cluster import KubeCluster
from guestlet.kube.credentials import load_credentials
from guestlet.kube.facts import GuestSighting
from guestlet.kube.guests import rfc3339
from guestlet.kube.lease import LeaseHolder, Terms, Times
from guestlet.kube.recorder import Recorder
from guestlet.placement.controller import SWEEP_EVERY_S, Clocks, Controller, Rules
from guestlet.reconcile.program import Bridge, acquire, pause
from guestlet.reconcile.queue import GuestKey, KeyedQueue
from guestlet.reconcile.resync import Resync
from guestlet.reconcile.supervisor import KopfThread, Watch
from guestlet.reconcile.worker import Workers
from guestlet.settings import ControllerSettings
from guestlet.telemetry.http import serving
from guestlet.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_REPORTER = "guestlet.io/controller"
_LEASE = "guestlet-controller"
_TERMS = Terms(renew_every_s=5.0, stale_after_s=15.0)
_STAND_BY_S = 2.0


class Leader:
    """One controller process; made and run in one event loop."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self._metrics = Metrics("controller")
        self._client = KubeClient(
            load_credentials(settings.kubeconfig), count=self._metrics.request, user_agent="guestlet-controller"
        )
        self._lease = LeaseHolder(
            self._client,
            namespace=settings.system_namespace,
            name=_LEASE,
            # A controller that starts again is another one: the Lease of the one before must run out or be released.
            identity=f"{socket.gethostname()}/{os.getpid()}/{time.time():.0f}",
            times=Times(wall=time.time, monotonic=time.monotonic),
            terms=_TERMS,
        )
        self._term: _Term | None = None
        self._rival: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Stands by and leads, by turns, until ``stop``.

        Raises:
            Refused: the address of /metrics cannot be listened on.
        """
        settings = self._settings
        try:
            async with serving(
                settings.http_address,
                settings.http_port,
                metrics=self._numbers,
                healthy=lambda: None,
                ready=self._why_not_ready,
            ) as port:
                log.info("the controller answers on %s:%d", settings.http_address, port)
                while await self._elected(stop):
                    self._term = _Term(settings, self._client, self._lease, self._metrics)
                    await self._term.lead(stop)
                    self._term = None
                await self._lease.release()
        finally:
            await self._client.close()

    async def _elected(self, stop: asyncio.Event) -> bool:
        """Waits until the Lease is ours; false when ``stop`` came first."""
        while not stop.is_set():
            try:
                elected = await acquire(self._lease, stop)
            except Refused as error:
                if self._rival is None:
                    log.info("stands by: %s", error.message)
                self._rival = error.message
                await pause(stop, _STAND_BY_S)
                continue
            self._rival = None
            if elected:
                log.info("leads")
            return elected
        return False

    def _numbers(self) -> bytes:
        if self._term is not None:
            self._metrics.queue(depth=self._term.queue.depth, waiting=self._term.queue.waiting)
        return self._metrics.text()

    def _why_not_ready(self) -> str | None:
        if self._rival is not None:
            return None  # standing by is what a second controller is for
        if self._term is None or not self._lease.held:
            return "the controllers' Lease is not held"
        return None if self._term.listed else "the guests have not been listed yet"


class _Term:
    """One time as the leader: everything known is of this time alone."""

    def __init__(self, settings: ControllerSettings, client: KubeClient, lease: LeaseHolder, metrics: Metrics) -> None:
        loop = asyncio.get_running_loop()
        self.queue: KeyedQueue[GuestKey] = KeyedQueue(clock=loop, fraction=random.random)
        self._lease = lease
        self._over = asyncio.Event()
        self._recorder = Recorder(client, controller=_REPORTER, instance=socket.gethostname(), clock=time.time)
        self._controller = Controller(
            KubeCluster(client, recorder=self._recorder, namespace=settings.system_namespace),
            clocks=Clocks(monotonic=time.monotonic, wall=time.time, text=lambda: rfc3339(time.time())),
            rules=Rules(resync_s=settings.resync_seconds, stale_after_s=settings.lease_stale_seconds),
            wake=lambda name: self.queue.add(GuestKey(*name)),
        )
        self._workers = Workers(queue=self.queue, turn=self._turn, clock=loop, report=metrics.turn, limit=32)
        self._resync = Resync(self._controller.resync, period_s=settings.resync_seconds, fraction=random.random)
        client.recovered = self._recovered
        lease.conflicted = self._distrust
        bridge = Bridge()
        self._kopf = KopfThread(
            Watch(
                field_selector="",
                login=lambda: load_credentials(settings.kubeconfig),
                changed=lambda change, seen: bridge.call(self._saw, seen, change == "DELETED"),
                restarted=lambda: bridge.call(self._resync.soon),
            )
        )

    @property
    def listed(self) -> bool:
        """Whether all guests were listed once."""
        return self._resync.listed.is_set()

    async def lead(self, stop: asyncio.Event) -> None:
        """Leads until ``stop``, or until another holds the Lease."""
        try:
            async with asyncio.TaskGroup() as group:
                services = [
                    group.create_task(self._end_with(stop)),
                    group.create_task(self._lease.run(stop=self._over, lost=self._lose)),
                    group.create_task(self._recorder.run()),
                    group.create_task(self._sweep()),
                    group.create_task(self._resync.run()),
                    group.create_task(self._watch()),
                ]
                await self._workers.run(self._over)
                for service in services:
                    service.cancel()
        finally:
            await self._kopf.stop()

    async def _end_with(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._over.set()

    async def _watch(self) -> None:
        # kopf watches only kinds it finds at its start.
        await self._resync.listed.wait()
        self._kopf.start()

    async def _sweep(self) -> None:
        while True:
            try:
                await self._controller.sweep()
            except GuestletError as error:
                log.debug("the nodes were not seen: %s", error)
            await asyncio.sleep(SWEEP_EVERY_S)

    async def _turn(self, key: GuestKey) -> float | None:
        if not self._lease.held:
            raise NotNow("LeaseNotHeld", "this controller could not renew its Lease, so it does not act")
        return await self._controller.turn((key.namespace, key.name))

    def _saw(self, sighting: GuestSighting, gone: bool) -> None:
        self._controller.saw(sighting, gone=gone)

    def _distrust(self) -> None:
        self._kopf.restart()
        self._recovered()

    def _recovered(self) -> None:
        self.queue.wake_all(spread_s=1.0)
        self._resync.soon()

    def _lose(self, error: Refused) -> None:
        log.warning("leads no more: %s", error.message, extra={"reason": error.reason})
        self._over.set()

"""The agent put together: host, API server, queue, Lease, watch. No decision is made here.

It must never act without its node's Lease, and its end must never be a guest's.
"""

import asyncio
import logging
import random
import socket
import time

from guestlet.api.quantity import parse_quantity
from guestlet.errors import NotNow, Refused
from guestlet.host.facts import LaunchUser
from guestlet.host.inventory import node_facts
from guestlet.kube.client import KubeClient
from guestlet.kube.credentials import load_credentials
from guestlet.kube.facts import GuestSighting, agent_lease_name, parse_sighting
from guestlet.kube.guests import KubeGuests
from guestlet.kube.lease import LeaseHolder, Times, local_identity
from guestlet.kube.node import NodeOffer, NodeRegistration
from guestlet.kube.recorder import Recorder
from guestlet.kube.resources import GUESTS
from guestlet.reconcile.loop import GuestLoop
from guestlet.reconcile.program import Bridge, acquire, pause
from guestlet.reconcile.queue import GuestKey, KeyedQueue
from guestlet.reconcile.resync import Resync
from guestlet.reconcile.supervisor import KopfThread, Watch
from guestlet.reconcile.watched_host import WatchedHost
from guestlet.reconcile.worker import Workers
from guestlet.settings import AgentSettings
from guestlet.telemetry.http import serving
from guestlet.telemetry.metrics import AgentMetrics

log = logging.getLogger(__name__)

_REPORTER = "guestlet.io/agent"
_WAKE_SPREAD_S = 1.0
_RESYNC_SPREAD = 0.1
_ADOPTION_HEAD_START_S = 1.0


class Agent:
    """One node's agent; made and run in one event loop."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._metrics = AgentMetrics()
        loop = asyncio.get_running_loop()
        self._queue: KeyedQueue[GuestKey] = KeyedQueue(clock=loop, fraction=random.random)
        self._client = KubeClient(
            load_credentials(settings.kubeconfig), count=self._metrics.request, user_agent="guestlet-agent"
        )
        self._client.recovered = self._recovered
        self._host = WatchedHost(settings, wake=self._queue.add, timed=self._metrics.command)
        self._recorder = Recorder(
            self._client, controller=_REPORTER, instance=f"{settings.node_name}@{socket.gethostname()}", clock=time.time
        )
        self._guests = GuestLoop(
            node=settings.node_name,
            host=self._host,
            api=KubeGuests(self._client, recorder=self._recorder, clock=time.time),
            clock=time.time,
            journal=self._metrics,
        )
        self._lease = LeaseHolder(
            self._client,
            namespace=settings.system_namespace,
            name=agent_lease_name(settings.node_name),
            identity=local_identity(settings.state_dir),
            times=Times(wall=time.time, monotonic=time.monotonic),
        )
        self._lease.conflicted = self._distrust
        self._workers = Workers(queue=self._queue, turn=self._turn, clock=loop, report=self._metrics.turn)
        self._resync = Resync(self._relist, period_s=settings.resync_seconds, fraction=random.random)
        bridge = Bridge()
        self._kopf = KopfThread(
            Watch(
                field_selector=f"status.nodeName={settings.node_name}",
                login=lambda: load_credentials(settings.kubeconfig),
                changed=lambda change, seen: bridge.call(self._saw, change, seen),
                restarted=lambda: bridge.call(self._resync.soon),
            )
        )
        self._lost: Refused | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until ``stop``, or until another holds the node's Lease.

        Raises:
            Refused: the node cannot be had (its directories or its Lease are another's, no QEMU, a port is taken).
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
                log.info("the agent of %s answers on %s:%d", settings.node_name, settings.http_address, port)
                await self._host.start()
                if self._host.launch_user is LaunchUser.AGENT:
                    log.warning("this agent is not root: QEMU runs with the agent's own rights, and there are no taps")
                if await acquire(self._lease, stop):
                    await self._serve(stop)
        finally:
            await self._kopf.stop()
            await self._host.close()
            await self._client.close()
        if self._lost is not None:
            raise self._lost

    async def _serve(self, stop: asyncio.Event) -> None:
        keys = await self._guests.start()
        for key in keys:
            self._queue.add(key)
        async with asyncio.TaskGroup() as group:
            services = [
                group.create_task(self._lease.run(stop=stop, lost=lambda error: self._lose(error, stop))),
                group.create_task(self._recorder.run()),
                group.create_task(self._resync.run()),
                group.create_task(self._watch(stop, after_s=_ADOPTION_HEAD_START_S if keys else 0.0)),
            ]
            if self._settings.register_node:
                services.append(group.create_task(self._registration().run(stop=stop)))
            await self._workers.run(stop)
            for service in services:
                service.cancel()

    async def _watch(self, stop: asyncio.Event, *, after_s: float) -> None:
        # kopf watches only kinds it finds at its start, and importing it would slow the guests' first turns.
        await self._resync.listed.wait()
        await pause(stop, after_s)
        if not stop.is_set():
            self._kopf.start()

    def _saw(self, change: str | None, seen: GuestSighting) -> None:
        # The echo of our own write tells nothing new; a turn for each would be half of all turns.
        if change == "DELETED" or not self._guests.wrote(_key(seen), seen.version):
            self._queue.add(_key(seen))

    async def _turn(self, key: GuestKey) -> float | None:
        if not self._lease.held:
            raise NotNow("LeaseNotHeld", "this agent could not renew its node's Lease, so it does not act")
        return await self._guests.turn(key)

    async def _relist(self) -> None:
        bodies = await self._client.list(GUESTS, fields=f"status.nodeName={self._settings.node_name}")
        listed = {_key(parse_sighting(body)) for body in bodies}
        first = not self._resync.listed.is_set()
        for key in sorted(listed | self._host.keys):
            if first:
                self._queue.add(key)
            else:
                self._queue.add_after(key, random.random() * self._settings.resync_seconds * _RESYNC_SPREAD)

    def _distrust(self) -> None:
        # An agent that asks little may miss the outage in which an API server was put back to an older state.
        self._guests.distrust()
        self._kopf.restart()
        self._recovered()

    def _recovered(self) -> None:
        self._queue.wake_all(spread_s=_WAKE_SPREAD_S)
        self._resync.soon()

    def _lose(self, error: Refused, stop: asyncio.Event) -> None:
        self._lost = error
        stop.set()

    def _registration(self) -> NodeRegistration:
        facts = node_facts(self._settings)
        offer = NodeOffer(
            name=facts.name,
            cpus=facts.cpus,
            memory_bytes=facts.memory_bytes,
            memory_reserved_bytes=parse_quantity(self._settings.memory_reserved),
        )
        return NodeRegistration(self._client, offer=offer, clock=time.time)

    def _numbers(self) -> bytes:
        self._metrics.queue(depth=self._queue.depth, waiting=self._queue.waiting)
        self._metrics.lease(held=self._lease.held)
        return self._metrics.text()

    def _why_not_ready(self) -> str | None:
        if not self._lease.held:
            return "the node's Lease is not held"
        return None if self._resync.listed.is_set() else "the guests of this node have not been listed yet"


def _key(seen: GuestSighting) -> GuestKey:
    return GuestKey(seen.namespace, seen.name)

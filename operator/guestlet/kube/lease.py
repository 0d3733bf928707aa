"""Leases: who is the agent of a node, and who is the controller. Held by compare-and-swap, renewed, never waited for.

It must never act for a holder that could not renew in time: ``held`` turns false by the clock, without the server.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guestlet.errors import GuestletError, NotNow, Refused
from guestlet.kube.client import Body, KubeApi, Request, version_of
from guestlet.kube.facts import HOSTNAME_ANNOTATION, LeaseFacts, parse_lease
from guestlet.kube.resources import LEASES

log = logging.getLogger(__name__)

RENEW_EVERY_S = 10.0
STALE_AFTER_S = 40.0

_MACHINE_ID = Path("/etc/machine-id")


def local_identity(state_dir: Path) -> str:
    """Who an agent is: this machine and the state directory that its records lie in."""
    try:
        machine = _MACHINE_ID.read_text().strip()
    except OSError:
        machine = ""
    return f"{machine or socket.gethostname()}{state_dir.resolve()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The two clocks: seconds since the epoch for what is written, monotonic seconds for how long we may act."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How often a Lease is renewed, and the age from which a renewal counts no more: ours too, so that we stop."""

    renew_every_s: float = RENEW_EVERY_S
    stale_after_s: float = STALE_AFTER_S


class LeaseHolder:
    """One Lease and our claim on it."""

    def __init__(
        self,
        api: KubeApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: Times,
        terms: Terms | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times
        self._terms = terms or Terms()
        self._live: Body | None = None
        self._until = 0.0

        # Called when our own Lease was not as we left it, or its new version is below one seen before: an API server
        # put back to an older state, whose watches then wait, silently, for a version that is still to come.
        self.conflicted: Callable[[], None] = lambda: None

    @property
    def held(self) -> bool:
        """Whether the Lease names us and our last renewal is young enough to act on."""
        return self._times.monotonic() < self._until

    async def renew(self) -> None:
        """Takes the Lease, or keeps it: one write, and one read first when we do not know its state.

        Raises:
            Refused: LeaseHeldByAnother; the message names the holder. NotNow: ApiUnavailable, Conflict.
        """
        started = self._times.monotonic()
        if self._live is None:
            self._live = await self._api.get(LEASES, namespace=self._namespace, name=self._name)
        if self._live is not None:
            self._refuse_rival(parse_lease(self._live))
        try:
            self._live = await self._write(self._live)
        except GuestletError:
            # Whatever the server has now, what we knew is not it: read before the next write.
            self._live = None
            raise
        self._until = started + self._terms.stale_after_s

    async def run(self, *, stop: asyncio.Event, lost: Callable[[Refused], None]) -> None:
        """Renews until ``stop``; ``lost`` is told once when another holds the Lease, then it ends."""
        while not stop.is_set():
            try:
                await self.renew()
                pause_s = self._terms.renew_every_s
            except Refused as error:
                self._until = 0.0
                lost(error)
                return
            except GuestletError as error:
                log.debug("the Lease %s was not renewed: %s", self._name, error)
                if error.reason == "Conflict":
                    self.conflicted()
                pause_s = self._terms.renew_every_s / 5
            await _pause(stop, pause_s)

    async def release(self) -> None:
        """Gives the Lease up so that the next holder need not wait; best effort."""
        if not self.held or self._live is None:
            return
        self._until = 0.0
        body = _spec(self._live, {"holderIdentity": None, "renewTime": None, "leaseDurationSeconds": 1})
        try:
            await self._api.send(self._update(body))
        except GuestletError as error:
            log.debug("the Lease %s was not released: %s", self._name, error)

    def _refuse_rival(self, lease: LeaseFacts) -> None:
        age_s = self._times.wall() - lease.renewed_at
        if not lease.holder or lease.holder == self._identity or age_s >= self._terms.stale_after_s:
            return
        self._live = None
        raise Refused(
            "LeaseHeldByAnother",
            f"the Lease {self._namespace}/{self._name} is held by {lease.holder} on {lease.hostname or 'its host'}, "
            f"renewed {max(age_s, 0.0):.0f} s ago: stop that one first; "
            f"{self._terms.stale_after_s:.0f} s after its end the Lease is free",
        )

    async def _write(self, live: Body | None) -> Body:
        now = datetime.fromtimestamp(self._times.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = {
            "holderIdentity": self._identity,
            "renewTime": now,
            "leaseDurationSeconds": int(self._terms.stale_after_s),
        }
        if live is None:
            request = self._create({**ours, "acquireTime": now})
        else:
            changed = parse_lease(live).holder != self._identity
            transitions = int((live.get("spec") or {}).get("leaseTransitions") or 0)
            new = {"acquireTime": now, "leaseTransitions": transitions + 1} if changed else {}
            request = self._update(_spec(live, ours | new))
        before = self._api.newest_version
        answer = await self._api.send(request)
        if answer is None:
            reason = "ApiUnavailable" if live is None else "Conflict"
            raise NotNow(reason, f"the namespace {self._namespace} or the Lease {self._name} is gone")
        if 0 < version_of(answer) < before:
            # A renewal always makes a new version: a lower one than was seen before is an older state's.
            self._api.newest_version = version_of(answer)
            self.conflicted()
        return answer

    def _create(self, spec: dict[str, Any]) -> Request:
        meta = {
            "name": self._name,
            "namespace": self._namespace,
            "annotations": {HOSTNAME_ANNOTATION: socket.gethostname()},
        }
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        return Request(verb="create", resource=LEASES, namespace=self._namespace, body=body)

    def _update(self, body: Body) -> Request:
        # The resourceVersion of what we last saw travels in the body: an update of anything else is a Conflict.
        return Request(verb="update", resource=LEASES, namespace=self._namespace, name=self._name, body=body)


def _spec(live: Body, changes: dict[str, Any]) -> Body:
    meta = dict(live["metadata"])
    meta["annotations"] = {**(meta.get("annotations") or {}), HOSTNAME_ANNOTATION: socket.gethostname()}
    meta.pop("managedFields", None)
    return {**live, "metadata": meta, "spec": {**(live.get("spec") or {}), **changes}}


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return

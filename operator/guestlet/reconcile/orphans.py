"""Guests that run here and should be known elsewhere: records whose object is gone, or placed on another node.

An orphan runs on and is reported; nothing but a person ends it (``guestlet forget UID``, which leaves a mark in the
guest's state directory). This module must never stop a guest by itself.
"""

import logging
from collections.abc import Callable

from guestlet.guest.files import FORGET_MARK
from guestlet.guest.ports import GuestApi, GuestHost
from guestlet.guest.record import Record
from guestlet.reconcile.queue import GuestKey

log = logging.getLogger(__name__)


class Orphans:
    """The orphans of one node, each reported once when it becomes one."""

    def __init__(self, *, node: str, host: GuestHost, api: GuestApi, count: Callable[[int], None]) -> None:
        self._node = node
        self._host = host
        self._api = api
        self._count = count
        self._known: set[GuestKey] = set()
        self._moved: set[tuple[str, str | None]] = set()

    def found(self, key: GuestKey) -> None:
        """The guest's object is there (again)."""
        if key in self._known:
            self._known.discard(key)
            self._count(len(self._known))

    async def orphaned(self, key: GuestKey, record: Record) -> bool:
        """The server says NotFound. Whether the record is gone now: a person asked for that, or nothing ever ran."""
        if await self._host.read_file(record.uuid, FORGET_MARK) is not None:
            await self._end(key, record, why="as a person asked")
            return True
        if key in self._known:
            return False
        process = await self._host.process(record.uuid)
        if record.machine is None and process.running is None:
            # It never had a QEMU, so no finalizer either: its object went without a word when it was deleted.
            await self._end(key, record, why="it never ran")
            return True
        self._known.add(key)
        self._count(len(self._known))
        does = f"its QEMU {process.running.pid} runs on" if process.running else "it does not run"
        message = (
            f"guest {key} ({record.uuid}) has no VirtualGuest any more; {does} and its images stay. A new VirtualGuest "
            f"of that namespace and name on this node takes it over; 'guestlet forget {record.uuid}' ends it"
        )
        log.warning("%s", message, extra={"guest": str(key), "reason": "Orphaned"})
        await self._api.node_event(self._node, reason="GuestOrphaned", message=message)
        return False

    async def _end(self, key: GuestKey, record: Record, *, why: str) -> None:
        process = await self._host.process(record.uuid)
        if process.running is not None:
            await self._host.kill(record.uuid, process.running)
        await self._host.forget(record.uuid)
        self._host.hold(record.uuid, None)
        self.found(key)
        log.info("forgotten: %s", why, extra={"guest": str(key), "action": "Forget"})

    async def moved(self, record: Record, node: str | None) -> None:
        """The object is placed elsewhere while this node has a record of it: reported, nothing is done."""
        if (record.uuid, node) in self._moved:
            return
        self._moved.add((record.uuid, node))
        process = await self._host.process(record.uuid)
        if process.running is None:
            return
        message = (
            f"guest {record.namespace}/{record.name} ({record.uuid}) is placed on {node}, and its QEMU "
            f"{process.running.pid} runs here; it is left alone: find out which one is right before anything starts"
        )
        log.warning("%s", message, extra={"guest": f"{record.namespace}/{record.name}", "reason": "PlacementMoved"})
        await self._api.node_event(self._node, reason="PlacementMoved", message=message)

"""The node's host as the agent runs it: QEMU's answers are timed, and what it says wakes the right guest.

It must never change what a call does.
"""

import time
from collections.abc import Callable

from guestlet.host.ledger import Holding
from guestlet.host.node import NodeHost
from guestlet.qemu.commands import Command
from guestlet.qemu.events import Event, Other
from guestlet.reconcile.queue import GuestKey
from guestlet.settings import AgentSettings


class WatchedHost(NodeHost):
    """``wake`` is called with the key of a guest whose QEMU said something or ended; ``timed`` with each command."""

    def __init__(
        self, settings: AgentSettings, *, wake: Callable[[GuestKey], None], timed: Callable[[str, float], None]
    ) -> None:
        super().__init__(settings, on_event=self._heard, on_exit=self._ended)
        self._wake = wake
        self._timed = timed
        self._keys: dict[str, GuestKey] = {}

    @property
    def keys(self) -> frozenset[GuestKey]:
        """Every guest that this node remembers."""
        return frozenset(self._keys.values())

    def hold(self, guest: str, holding: Holding | None) -> None:
        """Takes note of what a guest holds, and of its name."""
        super().hold(guest, holding)
        if holding is None:
            self._keys.pop(guest, None)
        else:
            namespace, _, name = holding.label.partition("/")
            self._keys[guest] = GuestKey(namespace, name)

    async def execute(self, guest: str, command: Command) -> object:
        """One QMP command, timed."""
        started = time.monotonic()
        try:
            return await super().execute(guest, command)
        finally:
            self._timed(command.name, time.monotonic() - started)

    def _heard(self, guest: str, event: Event) -> None:
        if not isinstance(event, Other):
            self._ended(guest)

    def _ended(self, guest: str) -> None:
        key = self._keys.get(guest)
        if key is not None:
            self._wake(key)

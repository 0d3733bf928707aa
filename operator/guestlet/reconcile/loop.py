"""One guest's turn: read, observe, plan, act, publish. Level-triggered: a turn trusts no event, only what it reads.

Every step may be the agent's last: the record is written before the effect it speaks of, so that the next turn (of this
agent or the next) repairs what was cut off. This module must never decide what is right for a guest: ``plan`` does.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from guestlet.api.guest import VirtualGuest
from guestlet.api.reasons import Reason
from guestlet.errors import Broken, GuestletError, NotNow, Refused, Unknown
from guestlet.guest.act import Effect, perform
from guestlet.guest.actions import GUARDED, QUIET, Action, CreateImage, Launch, Tell
from guestlet.guest.ask import describe_guest
from guestlet.guest.change.look import RETRY_S
from guestlet.guest.desired import Guest, build_guest
from guestlet.guest.images import holding_of
from guestlet.guest.observe import observe_guest
from guestlet.guest.observed import ChangeFailure, ObservedGuest
from guestlet.guest.outcome import retry_s, transitions, verdict_of
from guestlet.guest.plan import plan_guest
from guestlet.guest.ports import GuestApi, GuestHost
from guestlet.guest.record import RECORD_FILE, Record, parse_record
from guestlet.guest.recover import must_ask, record_key, recovered_record
from guestlet.guest.status import Outcome, build_status
from guestlet.guest.verdict import Plan, Verdict
from guestlet.host.facts import ProcessFacts
from guestlet.reconcile.orphans import Orphans
from guestlet.reconcile.queue import GuestKey

log = logging.getLogger(__name__)

# A start is three looks (start, resume, see it run); a plan that is still not done after this many turns in a circle.
MAX_STEPS = 12
# One edit may ask for thirty disks, each in some steps.
MAX_CHANGES = 400
# An effect that takes longer than this lets status say meanwhile what is being waited for.
SLOW_ACTION_S = 2.0
# How often an orphan is looked at: a person who forgets one waits for that.
ORPHAN_LOOK_S = 10.0
# A read that was asked for this short a time ago is as live as one asked for now: the answer travels as long.
LIVE_S = 0.05


class LoopJournal(Protocol):
    """Where a loop tells what it did (metrics)."""

    def action(self, kind: str, outcome: str) -> None:
        """One action ended: ``Done`` or the reason of its error."""

    def phase(self, guest: str, phase: str | None) -> None:
        """The guest's phase now; ``None``: it is gone."""

    def orphans(self, count: int) -> None:
        """How many guests run here without an object."""


class _Turn:
    """What one turn knows, replaced as it learns more. ``read_at``: when the object was last asked for (clock)."""

    def __init__(self, wire: VirtualGuest, key: str, record: Record | None, *, read_at: float) -> None:
        self.wire = wire
        self.guest: Guest = build_guest(wire)
        self.key = key
        self.record = record
        self.observed: ObservedGuest | None = None
        self.read_at = read_at
        self.forgotten = False


class GuestLoop:
    """The turns of all guests of one node. ``clock`` gives seconds since the epoch; a read of the object counts as live
    for ``live_s`` seconds.
    """

    def __init__(
        self,
        *,
        node: str,
        host: GuestHost,
        api: GuestApi,
        clock: Callable[[], float],
        journal: LoopJournal,
        live_s: float = LIVE_S,
    ) -> None:
        self._live_s = live_s
        self._node = node
        self._host = host
        self._api = api
        self._clock = clock
        self._journal = journal
        self._records: dict[GuestKey, Record] = {}
        self._versions: dict[GuestKey, str] = {}
        self._failures: dict[GuestKey, dict[str, ChangeFailure]] = {}
        self._unreadable: set[str] = set()  # records told of at start, and not asked again
        self._orphans = Orphans(node=node, host=host, api=api, count=journal.orphans)

    def wrote(self, key: GuestKey, version: str) -> bool:
        """Whether this resourceVersion of the object is the one that our own last write made."""
        return self._versions.get(key) == version

    def distrust(self) -> None:
        """The server may give resourceVersions anew (it was put back to an older state): none is known as ours."""
        self._versions.clear()

    async def start(self) -> tuple[GuestKey, ...]:
        """Reads every record of the node; the keys of the guests it remembers, sorted."""
        for name in await self._host.guests():
            try:
                record = await self._read_record(name)
            except Broken as error:
                log.warning("a record cannot be read: %s", error.message, extra={"guest": name, "reason": error.reason})
                self._unreadable.add(name)
                continue
            if record is not None:
                self._remember(GuestKey(record.namespace, record.name), record)
        return tuple(sorted(self._records))

    async def turn(self, key: GuestKey) -> float | None:
        """One turn; the seconds until the next, or ``None`` when only a wake-up is needed.

        Raises:
            GuestletError: the API server or the host could not be asked; the key rests and is tried again.
        """
        read_at = self._clock()
        wire = await self._api.read(key.namespace, key.name)
        known = self._records.get(key)
        if known is None and wire is not None:
            known = await self._taken_in(key)
        if wire is None:
            return await self._without_object(key, known)
        self._orphans.found(key)
        wire = await self._claimed(wire, known)
        if wire.status.node_name != self._node:
            if known is not None:
                await self._orphans.moved(known, wire.status.node_name)
            return None
        turn = _Turn(wire, known.uuid if known else record_key(build_guest(wire)), known, read_at=read_at)
        return await self._advance(key, turn)

    async def _taken_in(self, key: GuestKey) -> Record | None:
        """A record of this guest that somebody put there since the agent began (``guestlet adopt``)."""
        held = {each.uuid for each in self._records.values()}
        for name in await self._host.guests():
            if name in held or name in self._unreadable:
                continue
            try:
                record = await self._read_record(name)
            except Broken:
                self._unreadable.add(name)
                continue
            if record is not None and (record.namespace, record.name) == (key.namespace, key.name):
                self._remember(key, record)
                return record
        return None

    async def _without_object(self, key: GuestKey, known: Record | None) -> float | None:
        if known is None:
            self._drop(key)
            return None
        forgotten = await self._orphans.orphaned(key, known)
        if forgotten:
            self._drop(key)
            return None
        return ORPHAN_LOOK_S

    async def _claimed(self, wire: VirtualGuest, known: Record | None) -> VirtualGuest:
        """A guest of ours whose status was lost gets its node back; only the owner of the record may do that."""
        if wire.status.node_name is not None or known is None or not self._may_claim(wire, known):
            return wire
        epoch = max(known.epoch, wire.status.placement_epoch or 0) + 1
        log.info("claims a guest whose status was lost", extra={"guest": f"{known.namespace}/{known.name}"})
        return await self._api.claim(wire, node=self._node, epoch=epoch)

    def _may_claim(self, wire: VirtualGuest, known: Record) -> bool:
        if known.given_away_epoch is not None and known.given_away_epoch >= known.epoch:
            return False
        # A new object of that name goes where it asks to go; one whose status was lost comes home, wherever it began.
        return wire.metadata.uid == known.object_uid or wire.spec.node_name in (None, self._node)

    async def _advance(self, key: GuestKey, turn: _Turn) -> float | None:
        """Observe, plan, act until nothing is left to do now, then publish."""
        steps = changes = 0
        while steps < MAX_STEPS and changes < MAX_CHANGES:
            try:
                plan = await self._plan(key, turn)
                steps, changes = (steps + 1, changes) if plan.change is None else (steps, changes + 1)
                failed = not await self._act_all(key, turn, plan)
            except (Refused, Broken, Unknown) as error:
                return await self._give_up(turn, error)
            if turn.forgotten:
                self._journal.phase(str(key), None)
                return None
            if not plan.actions or (plan.wait_s is not None and not failed):
                return await self._finish(key, turn, plan)
        raise Broken("NoProgress", f"guest {key}: still not done after {steps + changes} steps; looked at again later")

    async def _act_all(self, key: GuestKey, turn: _Turn, plan: Plan) -> bool:
        """Whether all actions were done; a failure that the next look deals with is no error of the turn."""
        try:
            for action in plan.actions:
                await self._act(key, turn, action, plan.verdict)
        except GuestletError as error:
            ended = error.reason == Reason.QEMU_EXITED  # like any other end of QEMU: the next look acknowledges it
            if not ended and (plan.change is None or not self._noted(key, turn, plan.change, error)):
                raise
            return False
        return True

    def _noted(self, key: GuestKey, turn: _Turn, field: str, error: GuestletError) -> bool:
        """Notes that a change of the running machine failed, so that the others go on; one whose outcome is not known,
        or that fails while it is being undone, is a matter of the whole turn.
        """
        failures = self._failures.setdefault(key, {})
        before = failures.get(field)
        fresh = before is None or before.generation != turn.guest.generation or self._clock() - before.at >= RETRY_S
        if isinstance(error, Unknown | NotNow) or not fresh:
            return False
        failures[field] = ChangeFailure(
            field=field,
            generation=turn.guest.generation,
            at=self._clock(),
            reason=error.reason,
            message=error.message,
        )
        return True

    async def _plan(self, key: GuestKey, turn: _Turn) -> Plan:
        process = await self._host.process(turn.key)
        if turn.record is None:
            turn.record = await self._found_record(turn) or await self._recovered(turn, process)
        turn.observed = await observe_guest(
            guest=turn.guest,
            record=turn.record,
            process=process,
            host=self._host,
            failures=self._failures.get(key, {}),
        )
        return plan_guest(guest=turn.guest, observed=turn.observed, record=turn.record, now=self._clock())

    async def _recovered(self, turn: _Turn, process: ProcessFacts) -> Record:
        """A new record, one out of status, or out of what the guest's QEMU answers; doubts become an Event."""
        found = None
        if process.running is not None and must_ask(turn.guest, process):
            found = await describe_guest(turn.guest, turn.key, process.running, self._host)
        record = recovered_record(turn.guest, process, found)
        if found is not None and found.doubts:
            message = "described again from what its QEMU answers; not certain: " + "; ".join(found.doubts)
            await self._api.event(turn.wire, reason=Reason.RECORD_LOST.value, message=message[:1000], warning=True)
        return record

    async def _found_record(self, turn: _Turn) -> Record | None:
        try:
            return await self._read_record(turn.key)
        except Broken as error:
            log.warning("%s", error.message, extra={"guest": str(turn.guest.key), "reason": error.reason})
            return None

    async def _read_record(self, key: str) -> Record | None:
        data = await self._host.read_file(key, RECORD_FILE)
        return parse_record(data) if data is not None else None

    async def _act(self, key: GuestKey, turn: _Turn, action: Action, verdict: Verdict) -> None:
        began = self._clock()
        if isinstance(action, GUARDED) and not 0 <= began - turn.read_at < self._live_s:
            await self._confirm(turn)
        kind = type(action).__name__
        try:
            effect = await self._patiently(turn, action, verdict)
        except GuestletError as error:
            self._journal.action(kind, error.reason)
            log.info(
                "%s failed: %s", kind, error.message, extra={"guest": str(key), "action": kind, "reason": error.reason}
            )
            raise
        self._journal.action(kind, "Done")
        level = logging.DEBUG if isinstance(action, QUIET) else logging.INFO
        what = f"{kind}: {action.what}" if isinstance(action, Tell) else kind
        log.log(level, "%s", what, extra={"guest": str(key), "action": kind})
        if effect.record is not None:
            turn.record = effect.record
            self._remember(key, effect.record)
        if effect.wire is not None:
            self._learn(turn, effect.wire)
            turn.read_at = began
        if effect.forgotten:
            self._drop(key)
            self._host.hold(turn.key, None)
            turn.forgotten = not turn.guest.has_finalizer
        if kind == "RemoveFinalizer":
            turn.forgotten = True

    async def _patiently(self, turn: _Turn, action: Action, verdict: Verdict) -> Effect:
        """Performs the action; one that takes long lets status say so meanwhile."""
        work = perform(action, wire=turn.wire, key=turn.key, host=self._host, api=self._api)
        if not isinstance(action, Launch | CreateImage):
            return await work
        task = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=SLOW_ACTION_S)
            if not done:
                with suppress(NotNow):  # a courtesy: it must not break off what is being done
                    await self._publish(turn, verdict)
            return await task
        finally:
            task.cancel()

    async def _confirm(self, turn: _Turn) -> None:
        """The live read before what cannot be taken back (design: "Who may run the guest").

        Raises:
            NotNow: the object is not what was decided on, or the server does not answer.
        """
        guest = turn.guest
        began = self._clock()
        live = await self._api.read(guest.key.namespace, guest.key.name)
        found = build_guest(live) if live is not None else None
        if found is None or live is None:
            raise NotNow(Reason.CONFLICT, "the object is gone")
        if _claims(found) != _claims(guest):
            raise NotNow(Reason.CONFLICT, "the object changed meanwhile; decided again")
        turn.wire, turn.guest, turn.read_at = live, found, began

    async def _give_up(self, turn: _Turn, error: GuestletError) -> float:
        running = turn.observed is not None and turn.observed.process.running is not None
        await self._publish(turn, verdict_of(error, running=running))
        return retry_s(error)

    async def _finish(self, key: GuestKey, turn: _Turn, plan: Plan) -> float | None:
        await self._publish(turn, plan.verdict)
        for action in plan.housekeeping:
            await self._act(key, turn, action, plan.verdict)
        self._journal.phase(str(key), plan.verdict.phase.value)
        return plan.wait_s

    async def _publish(self, turn: _Turn, verdict: Verdict) -> None:
        outcome = Outcome(verdict=verdict, observed=turn.observed, record=turn.record)
        before = turn.guest.published
        status = build_status(guest=turn.guest, outcome=outcome, now=self._clock())
        self._learn(turn, await self._api.apply_status(turn.wire, status))
        for change in transitions(before, status):
            await self._api.event(turn.wire, reason=change.reason, message=change.message, warning=change.warning)

    def _drop(self, key: GuestKey) -> None:
        self._records.pop(key, None)
        self._versions.pop(key, None)
        self._failures.pop(key, None)

    def _learn(self, turn: _Turn, wire: VirtualGuest) -> None:
        """The object as our own write left it."""
        turn.wire, turn.guest = wire, build_guest(wire)
        self._versions[GuestKey(wire.metadata.namespace, wire.metadata.name)] = wire.metadata.resource_version

    def _remember(self, key: GuestKey, record: Record) -> None:
        """Keeps the record at hand, and tells the host what the guest holds of the node."""
        self._records[key] = record
        self._host.hold(record.uuid, holding_of(record))


def _claims(guest: Guest) -> tuple[object, ...]:
    """What must not have moved between a decision and an effect that cannot be taken back.

    Not the generation: a spec that is edited all the time would never let its guest start; what it asks of the machine
    waits for the next start, what it asks of the guest's life is compared.
    """
    spec = guest.spec
    return (guest.uid, guest.deleting, guest.node, guest.epoch, spec.run_strategy, spec.paused, spec.restart)

"""A record for a guest that has none: new, rebuilt from what status still says, or from what its QEMU answers. Pure.

Design: anything on the host may be lost with a disk and is rebuilt, or refused with a reason. Nothing here makes a
guest start twice: a status that speaks of a QEMU gives a record with a run, whose end must be seen first.
"""

from guestlet.api.guest_spec import RunStrategy
from guestlet.errors import Broken
from guestlet.guest.describe import machine_of_status
from guestlet.guest.desired import Guest, GuestKey
from guestlet.guest.manifest import source_for, spec_of
from guestlet.guest.record import NO_ALIASES, CreatedImage, Record, Run
from guestlet.guest.recovery.description import Description
from guestlet.guest.source import source_text
from guestlet.guest.times import seconds_of
from guestlet.host.facts import ProcessFacts, ProcessIdentity
from guestlet.qemu.machine import Machine
from guestlet.qemu.replies import RunState


def record_key(guest: Guest) -> str:
    """The guest's key on the host: the machine's uuid once it has one, else the object's uid."""
    return guest.published.uuid or guest.uid


def must_ask(guest: Guest, process: ProcessFacts) -> bool:
    """Whether the guest's QEMU must be asked what it is (``qemu.questions``): it runs and status does not say it."""
    return process.running is not None and _described(guest, process) is None


def recovered_record(guest: Guest, process: ProcessFacts, found: Description | None = None) -> Record:
    """The record of a guest of which the host remembers nothing; ``found``: what its QEMU answered, if it was asked.

    Raises:
        Broken: RecordLost, a QEMU of this guest runs and neither status nor its own answers say what it is.
    """
    status = guest.published
    machine = _described(guest, process) or (found.machine if found is not None else None)
    if machine is None and process.running is not None:
        raise Broken(
            "RecordLost",
            f"QEMU {process.running.pid} of this guest runs, and neither the node's record nor status says what it was "
            "given; it is left alone and none is started: stop it on the node, or restore the record",
        )
    run = _run_of(guest, process, found)
    return Record(
        uuid=record_key(guest),
        object_uid=guest.uid,
        namespace=guest.key.namespace,
        name=guest.key.name,
        epoch=guest.epoch,
        given_away_epoch=None,
        generation=-1,
        source=source_for(machine, guest.spec) if run is not None and machine is not None else "",
        machine=machine,
        run=run,
        pending=(),
        paused=guest.spec.paused and run is not None,
        stop=None,
        restart_token=status.restart_token,
        strategy=guest.spec.run_strategy.value,
        ended=False,
        restarts=status.restarts or 0,
        failures=0,
        last_exit=None,
        created_images=_created(guest),
    )


def adopted_record(description: Description, *, key: GuestKey, identity: ProcessIdentity, started_at: float) -> Record:
    """The record of a QEMU that somebody else started and that is to be this guest, whose object is still to come.

    ``started_at``: when QEMU was, seconds since the epoch. The first object of that name on this node takes it over.
    """
    machine = description.machine
    return Record(
        uuid=machine.uuid,
        object_uid="",
        namespace=key.namespace,
        name=key.name,
        epoch=0,
        given_away_epoch=None,
        generation=-1,
        source=source_text(spec_of(machine)),
        machine=machine,
        run=Run(
            identity=identity,
            started_at=started_at,
            resumed=True,
            argv=(),
            qemu_version=description.qemu_version,
            foreign=True,
            aliases=description.aliases,
        ),
        pending=(),
        paused=description.run_state is not RunState.RUNNING,
        stop=None,
        restart_token=None,
        strategy=RunStrategy.ALWAYS.value,
        ended=False,
        restarts=0,
        failures=0,
        last_exit=None,
        created_images=(),
    )


def _described(guest: Guest, process: ProcessFacts) -> Machine | None:
    """The machine of the status; one that says it only in part says nothing, if there is a QEMU to be asked.

    Raises:
        Broken: RecordLost, it says it only in part and nobody else can be asked: what the guest had would be lost.
    """
    try:
        return machine_of_status(guest.published, name=str(guest.key))
    except Broken:
        if process.running is None:
            raise
        return None


def _run_of(guest: Guest, process: ProcessFacts, found: Description | None) -> Run | None:
    qemu = guest.published.qemu
    # Start ticks 0 match no process: that life is over, and how it ended is not known.
    gone = ProcessIdentity(pid=qemu.pid, start_ticks=0) if qemu is not None and qemu.pid is not None else None
    identity = process.running or gone
    if identity is None:
        return None
    return Run(
        identity=identity,
        started_at=seconds_of(qemu.started_at) if qemu and qemu.started_at else 0.0,
        resumed=True,
        argv=(),
        qemu_version=(qemu.version if qemu else None) or (found.qemu_version if found else ""),
        foreign=found is not None and found.aliases != NO_ALIASES,
        aliases=found.aliases if found is not None else NO_ALIASES,
    )


def _created(guest: Guest) -> tuple[CreatedImage, ...]:
    return tuple(
        CreatedImage(
            disk=disk.name,
            pool=disk.source.file.pool,
            image=disk.source.file.image,
            created_at=seconds_of(disk.created_at),
            doomed=False,  # status does not say; in doubt nothing is deleted
        )
        for disk in guest.published.disks
        if disk.created_at is not None and disk.source is not None and disk.source.file is not None
    )

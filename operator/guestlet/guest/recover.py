"""A record for a guest that has none: a new one, or one rebuilt from what status still says. Pure.

Design: anything on the host may be lost with a disk and is rebuilt from status, or refused with a reason. Nothing here
makes a guest start twice: a status that speaks of a QEMU gives a record with a run, whose end must be seen first.
"""

from guestlet.api.reasons import ConditionType
from guestlet.errors import Broken
from guestlet.guest.describe import machine_of_status
from guestlet.guest.desired import Guest
from guestlet.guest.record import CreatedImage, Record, Run
from guestlet.guest.source import source_text
from guestlet.guest.times import seconds_of
from guestlet.host.facts import ProcessFacts, ProcessIdentity


def record_key(guest: Guest) -> str:
    """The guest's key on the host: the machine's uuid once it has one, else the object's uid."""
    return guest.published.uuid or guest.uid


def recovered_record(guest: Guest, process: ProcessFacts) -> Record:
    """The record of a guest of which the host remembers nothing.

    Raises:
        Broken: RecordLost, a QEMU of this guest runs and status does not say what it is.
    """
    status = guest.published
    machine = machine_of_status(status, name=str(guest.key))
    if machine is None and process.running is not None:
        raise Broken(
            "RecordLost",
            f"QEMU {process.running.pid} of this guest runs, and neither the node's record nor status says what it was "
            "given; it is left alone and none is started: stop it on the node, or restore the record",
        )
    run = _run_of(guest, process)
    return Record(
        uuid=record_key(guest),
        object_uid=guest.uid,
        namespace=guest.key.namespace,
        name=guest.key.name,
        epoch=guest.epoch,
        given_away_epoch=None,
        generation=-1,
        source=_source(guest) if run is not None else "",
        machine=machine,
        run=run,
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


def _run_of(guest: Guest, process: ProcessFacts) -> Run | None:
    qemu = guest.published.qemu
    started_at = seconds_of(qemu.started_at) if qemu and qemu.started_at else 0.0
    version = (qemu.version if qemu else None) or ""
    if process.running is not None:
        return Run(identity=process.running, started_at=started_at, resumed=True, argv=(), qemu_version=version)
    if qemu is None or qemu.pid is None:
        return None
    # Start ticks 0 match no process: this life is over, and how it ended is not known.
    gone = ProcessIdentity(pid=qemu.pid, start_ticks=0)
    return Run(identity=gone, started_at=started_at, resumed=True, argv=(), qemu_version=version)


def _source(guest: Guest) -> str:
    """What the running machine was made from: the spec, unless status says that some of it waits for a restart."""
    waits = any(
        each.type == ConditionType.RESTART_REQUIRED and each.status == "True" for each in guest.published.conditions
    )
    return "" if waits or guest.published.observed_generation != guest.generation else source_text(guest.spec)


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
        if disk.created_at is not None and disk.source.file is not None
    )

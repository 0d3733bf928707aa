"""Which images a guest names, and which of them end with it. Pure."""

from dataclasses import replace

from guestlet.api.disk_spec import OnDelete
from guestlet.guest.actions import Action, DeleteImage, KeepImage
from guestlet.guest.desired import Guest
from guestlet.guest.observed import ImageKey, ObservedGuest
from guestlet.guest.record import CreatedImage, Record
from guestlet.host.ledger import Holding
from guestlet.qemu.machine import Machine


def doomed_images(guest: Guest, record: Record) -> frozenset[ImageKey]:
    """Images to delete with the guest: made by guestlet for a disk that says ``onDelete: Delete``, or that said so when
    it was taken out of the spec.

    One that was only announced is left: whether the file of that name is ours is not known.
    """
    said = _on_delete(guest)
    return frozenset(
        (made.pool, made.image)
        for made in record.created_images
        if made.created_at > 0 and said.get((made.pool, made.image), made.doomed)
    )


def left_behind(guest: Guest, record: Record) -> frozenset[ImageKey]:
    """Doomed images of disks that are gone: neither the spec nor the machine that runs names them any more."""
    named = named_images(record.machine) if record.machine else frozenset()
    return doomed_images(guest, record) - named - _on_delete(guest).keys()


def launched_images(guest: Guest, record: Record, *, now: float) -> tuple[CreatedImage, ...]:
    """The created images as a launch finds them: finished, and with the word of the spec about their end."""
    said = _on_delete(guest)
    return tuple(
        replace(
            made,
            created_at=made.created_at if made.created_at > 0 else now,
            doomed=said.get((made.pool, made.image), made.doomed),
        )
        for made in record.created_images
    )


def without_images(record: Record, ended: frozenset[ImageKey]) -> Record:
    """The record that no longer answers for these images."""
    kept = tuple(made for made in record.created_images if (made.pool, made.image) not in ended)
    return replace(record, created_images=kept)


def _on_delete(guest: Guest) -> dict[ImageKey, bool]:
    return {
        (disk.source.file.pool, disk.source.file.image): disk.on_delete is OnDelete.DELETE
        for disk in guest.spec.disks
        if disk.source.file is not None
    }


def named_images(machine: Machine) -> frozenset[ImageKey]:
    """Images that the machine's disks read or write, backing images included."""
    own = {(each.source.pool, each.source.image) for each in machine.disks}
    backing = {(each.source.pool, each.source.backing_image) for each in machine.disks}
    return frozenset(own | {(pool, image) for pool, image in backing if image is not None})


def holding_of(record: Record) -> Holding:
    """What the guest of the record holds of its node."""
    machine = record.machine
    running = machine if record.run is not None else None
    return Holding(
        label=f"{record.namespace}/{record.name}",
        memory_bytes=running.memory_bytes if running else 0,
        writes=frozenset(
            (each.source.pool, each.source.image) for each in (running.disks if running else ()) if not each.read_only
        ),
        names=(named_images(machine) if machine else frozenset())
        | {(made.pool, made.image) for made in record.created_images},
    )


def ends_of_images(doomed: frozenset[ImageKey], observed: ObservedGuest) -> tuple[Action, ...]:
    """Doomed images are deleted, or kept with a word why: nothing is deleted that anything else on the node needs."""
    needed = observed.storage.needed if observed.storage else {}
    return tuple(
        KeepImage(pool=key[0], image=key[1], why=needed[key])
        if key in needed
        else DeleteImage(pool=key[0], image=key[1])
        for key in sorted(doomed)
    )

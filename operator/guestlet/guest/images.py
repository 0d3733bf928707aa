"""Which images a guest names, and which of them end with it. Pure."""

from dataclasses import replace

from guestlet.api.disk_spec import DiskSpec, OnDelete
from guestlet.api.quantity import parse_quantity
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.actions import Action, DeleteImage, GrowImage, KeepImage
from guestlet.guest.desired import Guest
from guestlet.guest.observed import ImageKey, ObservedGuest, StorageFacts
from guestlet.guest.record import CreatedImage, Record
from guestlet.host.facts import ImageFacts
from guestlet.host.ledger import Holding
from guestlet.qemu.machine import Disk, Machine


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


def images_had(guest: Guest, record: Record) -> frozenset[tuple[str, str, str]]:
    """Images that the guest once had (disk, pool, image), whoever made them: the record's finished ones, and those of
    its last machine as record or status remember it (both speak of a machine only once its images were there).
    """
    recorded = {(made.disk, made.pool, made.image) for made in record.created_images if made.created_at > 0}
    machine = record.machine.disks if record.machine else ()
    used = {(d.name, d.source.pool, d.source.image) for d in machine if d.source is not None}
    published = {
        (disk.name, disk.source.file.pool, disk.source.file.image)
        for disk in guest.published.disks
        if disk.source is not None and disk.source.file is not None
    }
    return frozenset(recorded | used | published)


def check_image(
    where: str, spec: DiskSpec, disk: Disk, storage: StorageFacts, *, had: frozenset[tuple[str, str, str]]
) -> None:
    """Nothing when the disk's image is there and free, or may be created.

    Raises:
        Refused: ImageInUse; ImageMissing, also when the guest ``had`` it once.
    """
    source = disk.source
    if source is None:
        return
    found = storage.images.get((source.pool, source.image))
    if isinstance(found, Refused):
        return  # resolve_machine let it pass: a raw disk in which the guest wrote another format's header
    if isinstance(found, ImageFacts):
        _refuse_used(where, disk, found, storage)
    elif (disk.name, source.pool, source.image) in had:
        raise Refused(
            Reason.IMAGE_MISSING,
            f"{where}.source.file.image: {source.image!r} was in pool {source.pool} and is gone; "
            "it is never made again blank: bring it back, or name a new image",
        )
    elif spec.size is None and source.backing_image is None:
        raise Refused(
            Reason.IMAGE_MISSING,
            f"{where}.source.file.image: pool {source.pool} has no image {source.image!r}; put it there, "
            f"or give {where}.size to have it created",
        )


def _refuse_used(where: str, disk: Disk, found: ImageFacts, storage: StorageFacts) -> None:
    user = storage.users.get((found.pool, found.image))
    if disk.read_only or (user is None and not found.locked):
        return
    raise Refused(
        Reason.IMAGE_IN_USE,
        f"{where}.source.file.image: {found.image!r} is in use by "
        f"{user or 'another process (it holds the image lock)'}; stop that, or name another image",
    )


def growth_of(spec: DiskSpec, disk: Disk, found: ImageFacts) -> tuple[GrowImage, ...]:
    """What makes an image that no QEMU has open as large as the spec asks for."""
    if spec.size is None or disk.source is None or disk.read_only:
        return ()
    wanted = parse_quantity(spec.size)
    if wanted <= found.virtual_size_bytes:
        return ()
    return (GrowImage(disk=disk.name, source=disk.source, size_bytes=wanted),)


def announced(record: Record, missing: tuple[Disk, ...]) -> Record:
    """Notes images before they are made, with time 0: made, but not yet known to be finished."""
    names = {(d.name, d.source.pool, d.source.image) for d in missing if d.source is not None}
    kept = tuple(made for made in record.created_images if (made.disk, made.pool, made.image) not in names)
    fresh = tuple(CreatedImage(disk=d, pool=p, image=i, created_at=0.0, doomed=False) for d, p, i in sorted(names))
    return replace(record, created_images=tuple(sorted((*kept, *fresh), key=lambda made: made.disk)))


def left_behind(guest: Guest, record: Record) -> frozenset[ImageKey]:
    """Doomed images of disks that are gone: neither the spec nor the machine that runs names them any more."""
    named = named_images(record.machine) if record.machine else frozenset()
    return doomed_images(guest, record) - named - _on_delete(guest).keys()


def launched_images(guest: Guest, record: Record, *, now: float) -> tuple[CreatedImage, ...]:
    """The created images as a launch, or a plug, finds them: finished, with the word of the spec about their end."""
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
        if disk.source is not None and disk.source.file is not None
    }


def named_images(machine: Machine) -> frozenset[ImageKey]:
    """Images that the machine's disks read or write, backing images included."""
    sources = tuple(each.source for each in machine.disks if each.source is not None)
    own = {(each.pool, each.image) for each in sources}
    backing = {(each.pool, each.backing_image) for each in sources}
    return frozenset(own | {(pool, image) for pool, image in backing if image is not None})


def holding_of(record: Record) -> Holding:
    """What the guest of the record holds of its node."""
    machine = record.machine
    running = machine if record.run is not None else None
    return Holding(
        label=f"{record.namespace}/{record.name}",
        memory_bytes=running.memory.asked_bytes if running else 0,
        writes=frozenset(
            (each.source.pool, each.source.image)
            for each in (running.disks if running else ())
            if each.source is not None and not each.read_only
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

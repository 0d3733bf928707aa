"""What must be on the node before a machine's QEMU starts: directories, files it may write, rights on its images.

Idempotent, and blocking: call it from a thread. It must never create an image, nor open more to QEMU than it needs.
"""

import os
from collections.abc import Iterator

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.host import access
from guestlet.host.firmware import Firmware
from guestlet.host.images import Images
from guestlet.host.places import GuestPlace, make_directory
from guestlet.qemu.machine import Disk, Machine

FIRST_TAP_FD = 32  # above what QEMU opens before it looks at its options; any number would do
_CHAIN_LIMIT = 32


def prepare(
    machine: Machine, place: GuestPlace, *, images: Images, firmware: Firmware, user: access.QemuUser | None
) -> None:
    """Makes everything of the guest's ready for QEMU.

    Raises:
        Refused: ImageMissing, ImageNameRefused, BackingImageMissing, FirmwareMissing, HostFailure.
    """
    make_directory(place.state, mode=0o711)
    make_directory(place.runtime, mode=0o700)
    if user is not None:
        os.chown(place.runtime, user.uid, user.gid)
    access.precreate(place.pidfile, user)
    if machine.serial_log:
        access.precreate(place.serial_log, user)
    if machine.firmware_image is not None:
        firmware.give_variables(machine.firmware_image, place.nvram, user=user)
    for image in kernel_images(machine):
        images.lend(*image, writable=False, user=user)
    for disk in machine.disks:
        lend_disk(disk, images=images, user=user)


def kernel_images(machine: Machine) -> Iterator[tuple[str, str]]:
    """Pool and name of what a direct boot reads."""
    kernel = machine.kernel
    if kernel is not None:
        yield kernel.pool, kernel.image
        if kernel.initrd is not None:
            yield kernel.pool, kernel.initrd


def lend_disk(disk: Disk, *, images: Images, user: access.QemuUser | None) -> None:
    """Gives QEMU its rights on a disk's image, and on all below it; a drive without a medium needs none.

    Raises:
        Refused: ImageMissing, ImageNameRefused, BackingImageMissing, ImageCorrupt, HostFailure.
    """
    if disk.source is not None:
        images.lend(disk.source.pool, disk.source.image, writable=not (disk.read_only or disk.cdrom), user=user)
        _lend_chain(disk.source.pool, disk.source.image, images=images, user=user)


def _lend_chain(pool: str, image: str, *, images: Images, user: access.QemuUser | None) -> None:
    """Every backing image below, as the files themselves name them, must lie in the same pool."""
    for _ in range(_CHAIN_LIMIT):
        facts = images.image(pool, image)
        if facts is None or facts.backing_image is None:
            return
        if images.image(pool, facts.backing_image) is None:
            raise Refused(
                Reason.BACKING_IMAGE_MISSING,
                f"pool {pool} has no image {facts.backing_image}, which {image} is based on",
            )
        image = facts.backing_image
        images.lend(pool, image, writable=False, user=user)
    raise Refused(Reason.IMAGE_CORRUPT, f"pool {pool}: more than {_CHAIN_LIMIT} backing images below one disk")


def tap_places(machine: Machine) -> dict[str, tuple[str, tuple[int, ...]]]:
    """For each network with a tap: the tap's name, and the descriptor numbers that QEMU will find its queues at."""
    places: dict[str, tuple[str, tuple[int, ...]]] = {}
    number = FIRST_TAP_FD
    for nic in machine.networks:
        if nic.tap is not None:
            places[nic.name] = (nic.tap, tuple(range(number, number + nic.queues)))
            number += nic.queues
    return places

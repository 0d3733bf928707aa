"""Pools, images and firmware of the node, and what guests hold of it: one half of ``node.NodeHost``.

It must never know of a process.
"""

import asyncio

from guestlet.host.access import QemuUser
from guestlet.host.facts import ImageFacts, PoolFacts
from guestlet.host.firmware import Firmware
from guestlet.host.images import Images, Pool
from guestlet.host.ledger import Holding, Ledger
from guestlet.qemu.machine import FileSource
from guestlet.settings import AgentSettings


class NodeStorage:
    """The part of a node that keeps guests' content."""

    def __init__(self, settings: AgentSettings, user: QemuUser | None) -> None:
        pools = tuple(Pool(name=each.name, path=each.path.absolute()) for each in settings.pools)
        self._images = Images(pools, qemu_img=settings.qemu_img, user=user)
        self._firmware = Firmware(settings.firmware_dirs)
        self._ledger = Ledger()

    def hold(self, guest: str, holding: Holding | None) -> None:
        """Tells what a guest holds of the node (from its record, at start and at each change); ``None``: nothing."""
        self._ledger.set(guest, holding)

    async def committed_memory_bytes(self, *, excluding: str) -> int:
        """Sum of guest memory over the running QEMUs of this node's other guests."""
        return self._ledger.committed_memory_bytes(excluding=excluding)

    async def pool(self, name: str) -> PoolFacts | None:
        """The pool, or ``None`` when the node has none of that name."""
        return await asyncio.to_thread(self._images.pool, name)

    async def image(self, pool: str, image: str) -> ImageFacts | None:
        """The image, or ``None``.

        Raises:
            Refused: ImageNameRefused, ImageCorrupt.
        """
        return await asyncio.to_thread(self._images.image, pool, image)

    async def create_image(self, source: FileSource, size_bytes: int | None) -> None:
        """Creates an image crash-safely, never over an existing one; ``None``: the size of the backing image.

        Raises:
            Refused: NoSpace, ImageExists, NoSuchPool, PoolNotReady, BackingImageMissing, ImageNameRefused.
        """
        await asyncio.to_thread(self._images.create, source, size_bytes)

    async def grow_image(self, source: FileSource, size_bytes: int) -> None:
        """Makes an image's virtual size at least ``size_bytes``; never smaller.

        Raises:
            Refused: ImageMissing, NoSpace. NotNow: ImageInUse.
        """
        await asyncio.to_thread(self._images.grow, source, size_bytes)

    async def delete_image(self, pool: str, image: str) -> None:
        """Deletes an image; absent is fine.

        Raises:
            Refused: ImageNameRefused. NotNow: ImageInUse, a process has it open.
        """
        await asyncio.to_thread(self._images.delete, pool, image)

    async def image_in_use_elsewhere(self, pool: str, image: str, *, guest: str) -> str | None:
        """``namespace/name`` of another guest of this node that may write the image, or ``None``."""
        return self._ledger.writer((pool, image), excluding=guest)

    async def image_needed_elsewhere(self, pool: str, image: str, *, guest: str) -> str | None:
        """Why the image must stay although ``guest`` goes, in words; ``None``: nothing on this node needs it.

        Raises:
            Refused: ImageNameRefused.
        """
        other = self._ledger.namer((pool, image), excluding=guest)
        if other is not None:
            return f"guest {other} names it"
        return await asyncio.to_thread(self._images.user_of, pool, image)

    async def firmware_code(self, image: str) -> bool:
        """Whether the named UEFI code image is in the node's firmware directories."""
        return await asyncio.to_thread(self._firmware.code, image) is not None

    async def default_firmware(self) -> str | None:
        """Name of the UEFI code image the node uses for new guests."""
        return await asyncio.to_thread(self._firmware.default)

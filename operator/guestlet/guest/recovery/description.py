"""What is known of a QEMU beside its own answers, and what is concluded of both, as values. Pure."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.guest.record import Aliases
from guestlet.qemu.machine import Machine
from guestlet.qemu.replies import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What the node knows of the process; where QEMU answers otherwise, QEMU is right.

    ``name``: namespace/name; ``uuid`` for a QEMU that was given none; ``argv`` and ``folder`` (its working directory)
    from ``/proc``; ``pools``: names of the node's pools by folder; ``taps``: names of the taps behind its descriptors;
    ``bridges``: by tap; ``cpu_aliases``: versioned CPU models; ``spec``: the user's, if there is one.
    """

    name: str
    uuid: str
    argv: tuple[str, ...]
    folder: str
    pools: Mapping[str, str]
    taps: Mapping[int, str]
    bridges: Mapping[str, str]
    cpu_aliases: Mapping[str, str]
    spec: VirtualGuestSpec | None

    def image(self, file: str) -> tuple[str, str] | None:
        """The pool that holds the file, and the file's name there; ``None``: none does."""
        folder, image = posixpath.split(posixpath.normpath(posixpath.join(self.folder, file)))
        pool = self.pools.get(folder)
        return (pool, image) if pool is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The machine that runs, what QEMU calls its parts where that is not our name, and what is not certain.

    What could not be named is in ``machine.pci.anonymous``; ``doubts`` are sentences for a person, ``outside`` the
    image files of its disks that are in no pool.
    """

    machine: Machine
    qemu_version: str
    run_state: RunState
    aliases: Aliases
    doubts: tuple[str, ...]
    outside: tuple[str, ...]

"""Names of the API for what somebody else named, or nobody: as close to the old name as the API allows. Pure."""

import hashlib
import re

_LENGTH = 32  # of a disk's and a network's name (api/text.py, DeviceName)
_SERIAL_LENGTH = 20  # of virtio-blk and ATA
_BUS = re.compile(r"[a-z][a-z0-9.-]{0,30}")  # what a PCI address of a spec can name (api/text.py, PciText)


def part_name(ours: str, *, found: str, taken: frozenset[str] | set[str], otherwise: str) -> str:
    """The name of a disk or network that QEMU knows as ``found``: without our prefix ``ours`` where it has it.

    Only what a name cannot hold is replaced; one that is taken gets a number. ``otherwise``: when nothing is left.
    """
    plain = re.sub(r"[^a-z0-9-]+", "-", found.removeprefix(ours).lower()).strip("-")[:_LENGTH].strip("-") or otherwise
    name, number = plain, 2
    while name in taken:
        name = f"{plain[: _LENGTH - 3]}-{number}"
        number += 1
    return name


def bus_name(found: str, *, kind: str, taken: frozenset[str] | set[str]) -> str:
    """The id of a controller that QEMU knows as ``found``: the same if an address can be written with it."""
    if _BUS.fullmatch(found) and found not in taken:
        return found
    number = 1
    while f"{kind}-{number}" in taken:
        number += 1
    return f"{kind}-{number}"


def default_serial(name: str) -> str:
    """The serial number of a disk that was given none: its name, as ``resolve_disks`` makes it."""
    if len(name) <= _SERIAL_LENGTH:
        return name
    return f"{name[: _SERIAL_LENGTH - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

"""Descriptions of the recorded QEMUs, as a node with one pool would make them."""

from collections.abc import Mapping
from typing import Any

from guestlet.guest.recovery.describe import describe_running
from guestlet.guest.recovery.description import Description, Hints
from guestlet.qemu.found import FoundQemu, parse_found
from unit.qemu.shapes.recorded import recorded

UUID = "f3f4f7a2-5a3c-5d0e-9d55-3d1d9f1f7c11"
PLAIN: Mapping[str, Any] = {
    "name": "lab/web",
    "uuid": UUID,
    "argv": (),
    "folder": "/",
    "pools": {"/pools/default": "default"},
    "taps": {},
    "bridges": {},
    "cpu_aliases": {"qemu64": "qemu64-v1"},
    "spec": None,
}


def found(name: str, major: str = "10", **replies: object) -> FoundQemu:
    """What a recorded QEMU answered, some of it changed."""
    return parse_found({**recorded(name, major).replies, **replies})


def described(
    name: str, major: str = "10", *, changed: Mapping[str, object] | None = None, **hints: Any
) -> Description:
    """The description of a recorded QEMU, with some of its replies or of the hints changed."""
    shape = recorded(name, major)
    plain = {**PLAIN, "argv": shape.argv, "taps": shape.taps}
    return describe_running(found(name, major, **(changed or {})), Hints(**{**plain, **hints}))

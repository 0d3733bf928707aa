"""The object itself, read from what the API server or a file holds.

Reading is all that happens here: nothing is fetched, and what was read is never changed.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pydantic import Field, ValidationError

from guestlet.api.base import ApiModel, ObjectMeta
from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.api.guest_status import VirtualGuestStatus
from guestlet.api.reasons import Reason
from guestlet.api.spec_rules import GUEST_RULES
from guestlet.errors import Refused

GROUP: Final = "guestlet.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "VirtualGuest"
PLURAL: Final = "virtualguests"
SINGULAR: Final = "virtualguest"
SHORT_NAME: Final = "vg"
CATEGORY: Final = "guestlet"

_FAULTS_SHOWN = 5


class VirtualGuest(ApiModel):
    """A virtual machine run by QEMU on one node."""

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta
    spec: VirtualGuestSpec = Field(description="What the user asks of the guest.")
    status: VirtualGuestStatus = Field(
        default=VirtualGuestStatus(), description="What is true of the guest; written by the program alone."
    )

    cel_rules: ClassVar = GUEST_RULES


def parse_guest(body: Mapping[str, Any]) -> VirtualGuest:
    """The guest that ``body`` (an object of the API, as JSON data) describes.

    Raises:
        Refused: a value is missing, of a wrong kind or out of its bounds; the message names each field.
    """
    try:
        return VirtualGuest.model_validate(body)
    except ValidationError as error:
        raise Refused(Reason.INVALID_SPEC, _faults(error)) from error


def parse_metadata(body: Mapping[str, Any]) -> ObjectMeta:
    """Only the metadata of ``body``: enough to say in status that the rest cannot be read.

    Raises:
        Refused: there is no usable metadata.
    """
    try:
        return ObjectMeta.model_validate(body.get("metadata"))
    except ValidationError as error:
        raise Refused(Reason.INVALID_SPEC, _faults(error)) from error


def _faults(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False)
    lines = [
        f"{_path(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')} (is {fault['input']!r:.80})"
        for fault in found[:_FAULTS_SHOWN]
    ]
    if len(found) > _FAULTS_SHOWN:
        lines.append(f"and {len(found) - _FAULTS_SHOWN} more")
    return "; ".join(lines)


def _path(location: tuple[int | str, ...]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return "".join(steps).removeprefix(".") or "the object"

"""PCI addresses as guestlet records them: a bus id as QEMU has it, a slot and a function. Pure values."""

import re
from dataclasses import dataclass

_TEXT = re.compile(r"(?P<bus>[A-Za-z][A-Za-z0-9._-]{0,30}):(?P<slot>[0-9a-f]{2})\.(?P<function>[0-7])")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PciAddress:
    """``bus`` is a QEMU bus id (``pcie.0``, ``port-2``, ``pci.0``); slot 0..31, function 0..7."""

    bus: str
    slot: int
    function: int

    def __str__(self) -> str:
        return f"{self.bus}:{self.slot:02x}.{self.function}"

    @property
    def on_bus(self) -> str:
        """QEMU's ``addr`` property: ``slot.function`` in hexadecimal."""
        return f"{self.slot:02x}.{self.function}"


def parse_address(text: str) -> PciAddress:
    """The address written as ``<bus id>:<slot>.<function>`` (``pcie.0:05.0``).

    Raises:
        ValueError: the text is not of that form or the slot is above 1f.
    """
    found = _TEXT.fullmatch(text)
    if found is None or int(found["slot"], 16) > 0x1F:
        raise ValueError(f"{text!r} is not a PCI address of the form <bus id>:<slot>.<function>, such as pcie.0:05.0")
    return PciAddress(bus=found["bus"], slot=int(found["slot"], 16), function=int(found["function"]))

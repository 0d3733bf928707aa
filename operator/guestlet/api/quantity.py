"""Amounts of bytes as Kubernetes writes them (``2Gi``, ``1G``, ``1.5Ti``, ``1e9``), read exactly.

It must never round: a quantity that is not a whole number of bytes is refused.
Grammar: apimachinery ``pkg/api/resource/quantity.go``, without signs, because no field here can be negative.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from guestlet.api.cel import CelRule, on_field

PATTERN = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[mkMGTPE]|[eE][+-]?[0-9]{1,2})?$"
MAX_LENGTH = 32
MAX_BYTES = 2**63 - 1

_TEXT = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<suffix>.*)")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_FACTORS: dict[str, Fraction] = (
    {suffix: Fraction(1024**power) for power, suffix in enumerate(_BINARY)}
    | {suffix: Fraction(1000**power) for power, suffix in enumerate(("", "k", "M", "G", "T", "P", "E"))}
    | {"m": Fraction(1, 1000)}
)


def parse_quantity(text: str) -> int:
    """The number of bytes that ``text`` means.

    Raises:
        ValueError: not a quantity, not a whole number of bytes, or more than 2^63-1 bytes.
    """
    found = _TEXT.fullmatch(text)
    if len(text) > MAX_LENGTH or found is None or re.search(PATTERN, text) is None or text.endswith("\n"):
        raise ValueError(f"{text[:MAX_LENGTH]!r} is not a quantity of bytes: write a number and a unit, such as 2Gi")
    value = Fraction(found["number"].rstrip(".") or "0") * _factor(found["suffix"])
    if value.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of bytes: write a number and a unit, such as 2Gi")
    if value > MAX_BYTES:
        raise ValueError(f"{text!r} is more than 2^63-1 bytes")
    return int(value)


def _factor(suffix: str) -> Fraction:
    known = _FACTORS.get(suffix)
    return known if known is not None else Fraction(10) ** int(suffix[1:])


def format_bytes(count: int) -> str:
    """The canonical quantity of ``count`` bytes, in the largest binary unit that divides it (``512Mi``)."""
    power = 0
    while count and count % 1024 == 0 and power < len(_BINARY) - 1:
        count //= 1024
        power += 1
    return f"{count}{_BINARY[power]}"


def _checked(text: str) -> str:
    parse_quantity(text)
    return text


Quantity = Annotated[str, AfterValidator(_checked), Field(max_length=MAX_LENGTH)]
"""A quantity as the user wrote it; it is never normalised (GitOps tools would see drift).

Text only, no bare numbers: the API server reckons the cost of a rule on a number-or-text field by the longest request
there can be, and refuses bounds on thirty of them (measured).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a quantity field may hold: ``low`` to ``high``, both included, in steps of ``step_bytes``."""

    what: str
    low: str
    high: str
    step_bytes: int = 1

    @property
    def schema(self) -> dict[str, Any]:
        """The bounds as a rule of the field, in the shape of pydantic's ``json_schema_extra``."""
        rule = (
            f"self.matches(r'{PATTERN}') && quantity(self).isInteger()"
            f" && quantity(self).compareTo(quantity('{self.low}')) >= 0"
            f" && quantity(self).compareTo(quantity('{self.high}')) <= 0"
        )
        step = f" && quantity(self).asInteger() % {self.step_bytes} == 0" if self.step_bytes > 1 else ""
        return on_field(CelRule(rule=rule + step, message=self._message))

    def check(self, text: str) -> str:
        """``text`` itself when it keeps the bounds.

        Raises:
            ValueError: it does not.
        """
        count = parse_quantity(text)
        if not parse_quantity(self.low) <= count <= parse_quantity(self.high) or count % self.step_bytes:
            raise ValueError(self._message)
        return text

    @property
    def _message(self) -> str:
        step = "whole number of bytes" if self.step_bytes == 1 else f"multiple of {self.step_bytes} bytes"
        return f"{self.what} must be a {step} between {self.low} and {self.high}, such as 512Mi or 2Gi"

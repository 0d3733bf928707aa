"""How one QEMU option is written so that no value can become another option: JSON, or commas doubled.

It must never know what an option means.
"""

import json
import re
from collections.abc import Mapping

from guestlet.api.reasons import Reason
from guestlet.errors import Broken

OptionValue = str | int | bool | None | Mapping[str, "OptionValue"] | tuple["OptionValue", ...]

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def json_option(option: Mapping[str, OptionValue]) -> str:
    """The value of an option that takes JSON (``-device``, ``-blockdev``, ``-netdev``, ``-object``)."""
    return json.dumps(_plain(option), separators=(",", ":"), ensure_ascii=True)


def key_values(first: str | None = None, **values: str | int | bool | None) -> str:
    """The value of an option of QEMU's older syntax, ``first,key=value``; ``None`` leaves a key out.

    Commas inside a value are doubled (QEMU manual, "Device property and option values"); ``_`` in a key is ``-``.
    """
    pairs = [f"{key.replace('_', '-')}={_text(value)}" for key, value in values.items() if value is not None]
    return ",".join(pairs if first is None else [escaped(first), *pairs])


def escaped(text: str) -> str:
    """``text`` with its commas doubled."""
    return text.replace(",", ",,")


def word(text: str) -> str:
    """``text`` itself, for the options (``-cpu``, ``-machine``) in which no escape exists.

    Raises:
        Broken: ``InvalidSpec`` when the text has other characters than a name of QEMU's has.
    """
    if _WORD.fullmatch(text) is None:
        raise Broken(Reason.INVALID_SPEC, f"{text!r} is not a name that QEMU could have given")
    return text


def _text(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return escaped(str(value))


def _plain(value: OptionValue) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value

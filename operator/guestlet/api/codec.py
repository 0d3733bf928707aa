"""Frozen dataclasses to and from JSON documents, by their annotations: the one place outside the API models that uses
pydantic, so that no other room does. Pure.
"""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

Value = TypeVar("Value")


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}  # building one takes milliseconds


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def dump_value(value: object) -> Any:
    """The value (a dataclass) as JSON-ready dictionaries, lists and scalars."""
    return _adapter(type(value)).dump_python(value, mode="json")


def load_value(kind: type[Value], document: object) -> Value:
    """The value of ``kind`` in a document made by ``dump_value``.

    Raises:
        ValueError: the document is not one of that kind; the message names each wrong place.
    """
    try:
        loaded: Value = _adapter(kind).validate_python(document)
    except ValidationError as error:
        raise ValueError(str(error)) from error
    return loaded

"""What every model of the API shares: names on the wire, immutability, metadata and conditions.

Models read leniently (an unknown field of a newer CRD is ignored, never a crash) and never change what they read.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from guestlet.api.cel import RULES_KEY, CelRule

MESSAGE_MAX = 4096
"""Most characters of a condition's message: sixteen of them leave room in a status of 128 KiB."""


def _with_rules(schema: dict[str, Any], model: type[Any]) -> None:
    if model.cel_rules:
        schema[RULES_KEY] = [rule.to_wire() for rule in model.cel_rules]


class ApiModel(BaseModel):
    """A frozen value of the API: snake_case here, camelCase on the wire."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        json_schema_extra=_with_rules,
    )

    cel_rules: ClassVar[tuple[CelRule, ...]] = ()

    def to_wire(self) -> dict[str, Any]:
        """The value as JSON data, without what is absent."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class ObjectMeta(ApiModel):
    """The part of Kubernetes' object metadata that the program acts on."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: str | None = None
    creation_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()


def _clipped(text: Any) -> Any:
    return text[: MESSAGE_MAX - 1] + "…" if isinstance(text, str) and len(text) > MESSAGE_MAX else text


class Condition(ApiModel):
    """One observation about the object, as metav1.Condition has it."""

    type: str = Field(
        description="What is observed, such as Ready.", max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9]*)$"
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is so.")
    reason: str = Field(
        description="Why, as one stable CamelCase word: the API reference lists them.",
        max_length=64,
        pattern=r"^[A-Za-z]([A-Za-z0-9]*)$",
    )
    message: Annotated[str, BeforeValidator(_clipped)] = Field(
        description="Why, for people: the field, the value and the remedy.", max_length=MESSAGE_MAX
    )
    last_transition_time: str = Field(
        description="When the status of this condition last changed (RFC 3339, UTC).",
        max_length=32,
        json_schema_extra={"format": "date-time"},
    )
    observed_generation: int | None = Field(
        default=None, description="The metadata.generation this was computed from.", ge=-1, le=2**53
    )

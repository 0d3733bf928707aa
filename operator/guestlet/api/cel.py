"""Rules of the schema in the API server's expression language (CEL), as values beside the models they check.

A rule here is only text that the CRD carries; it must never be evaluated by this program. Sources: Kubernetes,
"Validation rules" of CustomResourceDefinitions; the traps are measured (a rule on an absent optional field is skipped).
"""

from dataclasses import dataclass
from typing import Any

from pydantic import Field

RULES_KEY = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True, kw_only=True)
class CelRule:
    """One validation: ``message`` names the remedy, ``expression`` (a CEL string) says it with the value in hand.

    ``field_path`` is relative to the schema the rule stands on (``.sockets``).
    """

    rule: str
    message: str
    expression: str | None = None
    field_path: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        wire: dict[str, Any] = {"rule": self.rule, "message": self.message}
        if self.expression is not None:
            wire["messageExpression"] = self.expression
        if self.field_path is not None:
            wire["fieldPath"] = self.field_path
        return wire


def on_field(*rules: CelRule) -> dict[str, Any]:
    """Rules of one field, in the shape of pydantic's ``json_schema_extra``."""
    return {RULES_KEY: [rule.to_wire() for rule in rules]}


def matching(pattern: str, *, message: str, max_length: int, min_length: int = 1) -> Any:
    """A text field whose pattern is refused with ``message`` instead of with the pattern alone.

    The reader checks the same pattern, so a name never passes because a CRD was old.
    """
    rule = CelRule(rule=f"self.matches(r'{pattern}')", message=message)
    return Field(pattern=pattern, min_length=min_length, max_length=max_length, json_schema_extra=on_field(rule))

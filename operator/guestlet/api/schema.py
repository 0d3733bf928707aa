"""From pydantic models to the structural schemas that a CustomResourceDefinition may hold.

The models are the only source: what stands there (bounds, defaults, descriptions, rules) is carried over, what the API
server refuses is translated (references, nullable unions), and nothing is invented. Kubernetes,
"Specifying a structural schema".
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from guestlet.api.base import ApiModel
from guestlet.api.cel import RULES_KEY

Schema: TypeAlias = dict[str, Any]

_INT32_MAX = 2**31 - 1
_KEPT = frozenset(
    {
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        RULES_KEY,
    }
)


def structural_schema(model: type[ApiModel], *, with_rules: bool) -> Schema:
    """The structural schema of ``model``.

    ``with_rules`` is false for status: only the program writes it, and a rule there could only lock it out.

    Raises:
        ValueError: the model uses something that has no structural form.
    """
    document = model.model_json_schema(by_alias=True)
    return _node(document, document.get("$defs", {}), with_rules=with_rules)


def _node(node: Mapping[str, Any], definitions: Mapping[str, Any], *, with_rules: bool) -> Schema:
    flat = _inlined(node, definitions)
    unknown = {key for key in flat if key not in _KEPT} - {"title", "$defs"}
    if unknown:
        raise ValueError(f"no structural form for {sorted(unknown)} in {flat.get('title', flat)}")
    schema = {key: value for key, value in flat.items() if key in _KEPT}
    if not with_rules:
        schema.pop(RULES_KEY, None)
        schema.pop("pattern", None)
    if not schema.get("properties", True):
        del schema["properties"]  # isolated: {}
    if "properties" in schema:
        schema["properties"] = {
            name: _node(child, definitions, with_rules=with_rules) for name, child in schema["properties"].items()
        }
    if "items" in schema:
        schema["items"] = _node(schema["items"], definitions, with_rules=with_rules)
        schema.setdefault("x-kubernetes-list-type", "atomic")
    return _polished(schema)


def _inlined(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """``node`` without references and without ``null``; what stands beside a reference wins over what it names."""
    own = dict(node)
    base: Schema = {}
    if "$ref" in own:
        base = _inlined(definitions[own.pop("$ref").removeprefix("#/$defs/")], definitions)
    elif "anyOf" in own:
        kinds = [kind for kind in own.pop("anyOf") if kind != {"type": "null"}]
        if len(kinds) != 1:
            raise ValueError(f"no structural form for a union of {len(kinds)} kinds: {kinds}")
        base = _inlined(kinds[0], definitions)
    rules = [*base.get(RULES_KEY, ()), *own.get(RULES_KEY, ())]
    merged = base | own | ({RULES_KEY: rules} if rules else {})
    if "default" in merged and merged["default"] is None:
        del merged["default"]
    return merged


def _polished(schema: Schema) -> Schema:
    """Details in the API server's words."""
    if isinstance(schema.get("default"), dict):
        # whole, not {}: the API server checks rules on a default before it fills in the members' own
        schema["default"] = {name: value for name, value in schema["default"].items() if value is not None}
    if schema.get("default") == []:
        del schema["default"]
    if any(f"matches(r'{schema.get('pattern')}')" in rule["rule"] for rule in schema.get(RULES_KEY, ())):
        del schema["pattern"]  # the rule says the same, with a remedy
    if schema.get("type") == "integer":
        wide = max(abs(schema.get("minimum", 0)), abs(schema.get("maximum", 2**53))) > _INT32_MAX
        schema["format"] = "int64" if wide else "int32"
    return schema

"""The schema is one that an API server accepts and a person can read."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import Field

from guestlet.api.base import ApiModel
from guestlet.api.columns import GUEST_COLUMNS
from guestlet.api.crd import guest_crd, guest_schema
from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.api.guest_status import VirtualGuestStatus
from guestlet.api.schema import structural_schema
from guestlet.qemu.machine import AioMode, CacheMode, DiskBus, NicModel

SCHEMA = guest_schema()
SPEC = SCHEMA["properties"]["spec"]
REFUSED_BY_THE_API_SERVER = {
    "$ref", "$defs", "allOf", "anyOf", "oneOf", "not", "const", "nullable", "uniqueItems", "prefixItems", "title",
    "exclusiveMinimum", "exclusiveMaximum", "additionalProperties", "examples", "discriminator",
}  # fmt: skip
LATER = {
    "rbd", "block", "hostDevices", "vnc", "cloudInit", "guestAgent", "tpm", "numa",
    "secureBoot", "limit", "placement", "isolateEmulator", "scheduling", "hugepageSize", "operation",
}  # fmt: skip


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below, lists' items included."""
    yield path, schema
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")
    for name, child in schema.get("properties", {}).items():
        yield from fields(child, f"{path}.{name}")


FIELDS = [*fields(SPEC, "spec"), *fields(SCHEMA["properties"]["status"], "status")]


def field(path: str) -> dict[str, Any]:
    return dict(FIELDS)[path]


def test_every_field_has_a_description() -> None:
    assert [path for path, schema in FIELDS if not path.endswith("[]") and not schema.get("description")] == []


def test_descriptions_are_sentences() -> None:
    loose = [path for path, schema in FIELDS if not re.fullmatch(r"[A-Z].*\.", schema.get("description", "A."))]

    assert loose == []


def test_every_field_is_bounded() -> None:
    bounds = {"string": ("maxLength",), "integer": ("minimum", "maximum"), "array": ("maxItems",)}
    loose = [
        f"{path}: {bound}"
        for path, schema in FIELDS
        for bound in bounds.get(schema["type"], ())
        if bound not in schema and "enum" not in schema
    ]

    assert loose == []


def test_nothing_is_used_that_the_api_server_refuses_or_drops() -> None:
    assert [(path, set(schema) & REFUSED_BY_THE_API_SERVER) for path, schema in FIELDS] == [
        (path, set()) for path, _ in FIELDS
    ]


def test_every_list_says_how_it_is_merged_and_its_keys_are_there() -> None:
    lists = [(path, schema) for path, schema in FIELDS if schema["type"] == "array"]
    for path, schema in lists:
        assert schema["x-kubernetes-list-type"] in {"atomic", "map"}, path
        for key in schema.get("x-kubernetes-list-map-keys", ()):
            entry = schema["items"]
            assert key in entry["required"] or "default" in entry["properties"][key], path
    assert {path for path, schema in lists if schema["x-kubernetes-list-type"] == "map"} >= {
        "spec.disks",
        "spec.networks",
        "status.conditions",
        "status.disks",
        "status.networks",
    }


def test_optional_fields_are_absent_not_null() -> None:
    assert [path for path, schema in FIELDS if "default" in schema and schema["default"] is None] == []
    assert "nodeName" not in SPEC.get("required", ())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("spec.disks[].bus", DiskBus),
        ("spec.disks[].cache", CacheMode),
        ("spec.disks[].aio", AioMode),
        ("spec.networks[].model", NicModel),
        ("status.disks[].bus", DiskBus),
    ],
)
def test_choices_are_those_of_the_program(path: str, kind: Any) -> None:
    assert field(path)["enum"] == [member.value for member in kind]


def test_fields_of_later_issues_are_not_there_yet() -> None:
    assert [path for path, _ in FIELDS if path.rpartition(".")[2].removesuffix("[]") in LATER] == []


def test_every_rule_has_a_message_with_a_remedy() -> None:
    rules = [rule for _, schema in [("", SCHEMA), *FIELDS] for rule in schema.get("x-kubernetes-validations", ())]

    assert len(rules) > 30
    for rule in rules:
        assert 15 < len(rule["message"]) < 300
        assert re.search(r": |must be|^set ", rule["message"]), rule


def test_status_has_no_rules_that_could_lock_the_program_out() -> None:
    assert [path for path, schema in FIELDS if path.startswith("status") and "x-kubernetes-validations" in schema] == []


def test_a_new_object_gets_a_status_that_is_not_finished() -> None:
    assert SCHEMA["properties"]["status"]["default"] == {"observedGeneration": -1}


def test_defaults_of_the_schema_are_those_of_the_models() -> None:
    defaults = defaulted(SPEC, {})

    assert VirtualGuestSpec.model_validate(defaults) == VirtualGuestSpec()
    assert contains(VirtualGuestSpec().to_wire(), defaults)


def defaulted(schema: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """What the API server makes of ``value``."""
    for name, child in schema.get("properties", {}).items():
        if name not in value and "default" in child:
            value[name] = child["default"]
        if isinstance(value.get(name), dict):
            value[name] = defaulted(child, dict(value[name]))
    return value


def contains(whole: dict[str, Any], part: dict[str, Any]) -> bool:
    return all(
        contains(whole[key], value) if isinstance(value, dict) else whole[key] == value for key, value in part.items()
    )


@pytest.mark.parametrize("column", GUEST_COLUMNS, ids=lambda column: column.name)
def test_every_column_shows_a_field_that_exists(column: Any) -> None:
    path = re.sub(r"\[\?\(.*?\)\]", "[]", column.path).removeprefix(".")

    if path != "metadata.creationTimestamp":
        assert field(path)["type"] == column.type


def test_the_columns_are_those_of_the_design() -> None:
    assert [column.name for column in GUEST_COLUMNS if not column.wide] == [
        "Phase",
        "Ready",
        "Node",
        "vCPU",
        "Memory",
        "Age",
    ]
    assert [column.name for column in GUEST_COLUMNS if column.wide] == ["Reason", "Machine", "PCI free"]


def test_guests_can_be_selected_by_node() -> None:
    version = guest_crd()["spec"]["versions"][0]
    paths = [entry["jsonPath"].removeprefix(".") for entry in version["selectableFields"]]

    assert paths == ["spec.nodeName", "status.nodeName"]
    assert [field(path)["type"] for path in paths] == ["string", "string"]


def test_a_model_without_structural_form_is_a_fault_of_ours() -> None:
    class Loose(ApiModel):
        either: int | str = Field(description="Two kinds.")

    with pytest.raises(ValueError, match="union of 2 kinds"):
        structural_schema(Loose, with_rules=True)


def test_a_full_status_stays_below_its_limit() -> None:
    longest = sum(len(str(path)) + schema.get("maxLength", 16) for path, schema in FIELDS if path.startswith("status"))

    assert longest < 128 * 1024
    assert VirtualGuestStatus.model_fields["disks"].metadata

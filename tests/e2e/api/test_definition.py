"""The definition as a real API server takes it: structural, explained, with columns, defaults and selectors."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.api.published import PUBLISHED
from guestlet.api.crd import guest_crd
from guestlet.api.guest import parse_guest
from guestlet.api.guest_spec import VirtualGuestSpec
from sandbox.kubectl import Kubectl

EXAMPLES = Path(__file__).resolve().parents[3] / "manifests" / "examples"
GuestBody = Mapping[str, Any]


def guest(name: str = "demo", **spec: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "guestlet.io/v1alpha1",
            "kind": "VirtualGuest",
            "metadata": {"name": name, "namespace": "default"},
            "spec": spec,
        }
    )


def read(kubectl: Kubectl, name: str = "demo") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl("get", "vg", name, "-o", "json"))
    return found


def publish(kubectl: Kubectl, status: GuestBody, name: str = "demo") -> None:
    patch = json.dumps({"status": status})
    kubectl("patch", "vg", name, "--subresource=status", "--type=merge", "-p", patch)


def properties(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, child in schema.get("items", schema).get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from properties(child, f"{path}.{name}")


def test_the_schema_is_structural(api: Kubectl) -> None:
    definition = json.loads(api("get", "crd", "virtualguests.guestlet.io", "-o", "json"))
    conditions = {condition["type"]: condition["status"] for condition in definition["status"]["conditions"]}

    assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_nothing_of_the_definition_was_dropped(api: Kubectl) -> None:
    stored = json.loads(api("get", "crd", "virtualguests.guestlet.io", "-o", "json"))

    assert stored["spec"]["versions"] == guest_crd()["spec"]["versions"]
    assert stored["spec"]["names"] == guest_crd()["spec"]["names"]


def test_kubectl_explains_every_field(api: Kubectl) -> None:
    document = json.loads(api("get", "--raw", "/openapi/v3/apis/guestlet.io/v1alpha1"))
    schema = document["components"]["schemas"]["io.guestlet.v1alpha1.VirtualGuest"]
    ours = [
        (path, field)
        for part in ("spec", "status")
        for path, field in [(part, schema["properties"][part]), *properties(schema["properties"][part], part)]
    ]

    assert len(ours) > 150
    assert [path for path, field in ours if not field.get("description")] == []


@pytest.mark.parametrize("part", ["spec", "status"])
def test_kubectl_explain_shows_the_fields(api: Kubectl, golden: Callable[[str, str], None], part: str) -> None:
    golden(f"crds/explain-{part}.txt", api("explain", f"vg.{part}", "--recursive"))


def test_kubectl_explain_shows_what_a_field_means(api: Kubectl) -> None:
    text = " ".join(api("explain", "vg.spec.disks.pciAddress").split())

    assert "Place of the disk as <bus id>:<slot>.<function>, such as pcie.0:05.0; honoured exactly or refused." in text


def test_a_new_object_does_not_look_finished_and_has_the_defaults(empty: Kubectl) -> None:
    empty("create", "-f", "-", stdin=guest())
    found = read(empty)

    assert found["status"] == {"observedGeneration": -1}
    assert parse_guest(found).spec == VirtualGuestSpec()
    assert found["spec"] == {
        key: value for key, value in VirtualGuestSpec().to_wire().items() if key not in ("disks", "networks")
    }


def test_a_status_given_by_the_user_is_not_taken(empty: Kubectl) -> None:
    body = {**json.loads(guest()), "status": {"observedGeneration": 7, "phase": "Running"}}
    empty("create", "-f", "-", stdin=json.dumps(body))

    assert read(empty)["status"] == {"observedGeneration": -1}


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_example_is_accepted_as_it_stands(empty: Kubectl, example: Path) -> None:
    empty("apply", "--validate=strict", "-f", str(example))
    (written,) = yaml.safe_load_all(example.read_text())

    found = parse_guest(read(empty, written["metadata"]["name"]))
    assert found.spec == parse_guest(written).spec


def test_a_whole_status_is_taken_and_read_back_unchanged(empty: Kubectl) -> None:
    empty("create", "-f", "-", stdin=guest())
    publish(empty, PUBLISHED.to_wire())

    assert parse_guest(read(empty)).status == PUBLISHED


def test_the_columns_show_what_is_true(empty: Kubectl, golden: Callable[[str, str], None]) -> None:
    empty("create", "-f", "-", stdin=guest())
    empty("create", "-f", "-", stdin=guest("fresh"))
    publish(empty, PUBLISHED.to_wire())

    golden("crds/columns.txt", ageless(empty("get", "vg")))
    golden("crds/columns-wide.txt", ageless(empty("get", "vg", "-o", "wide")))


def ageless(table: str) -> str:
    """The table with a word in place of each age, at the same width, and nothing at the ends of lines."""
    same = re.sub(r"\b[0-9]+s( *)", lambda found: f"AGE{' ' * (len(found[0]) - 3)}", table)
    return re.sub(r" +$", "", same, flags=re.MULTILINE)


def test_the_category_and_the_short_name_find_guests(empty: Kubectl) -> None:
    empty("create", "-f", "-", stdin=guest())

    for kind in ("vg", "virtualguest", "virtualguests", "guestlet"):
        assert empty("get", kind, "-o", "name").split() == ["virtualguest.guestlet.io/demo"]


@pytest.mark.parametrize(("field", "found"), [("spec.nodeName", "wished"), ("status.nodeName", "placed")])
def test_guests_are_selected_by_node(empty: Kubectl, field: str, found: str) -> None:
    empty("create", "-f", "-", stdin=guest("wished", nodeName="node-a"))
    empty("create", "-f", "-", stdin=guest("placed"))
    publish(empty, {"nodeName": "node-a"}, "placed")

    names = empty("get", "vg", f"--field-selector={field}=node-a", "-o", "name").split()
    assert names == [f"virtualguest.guestlet.io/{found}"]


def test_kubectl_wait_sees_ready(empty: Kubectl) -> None:
    empty("create", "-f", "-", stdin=guest())
    publish(empty, PUBLISHED.to_wire())

    assert "condition met" in empty("wait", "--for=condition=Ready", "vg/demo", "--timeout=5s")

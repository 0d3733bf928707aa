"""What lies in ``crds/`` is what the models say, byte for byte."""

from pathlib import Path

import pytest
import yaml

from golden_files import check_golden
from guestlet.api.crd import crd_documents, crd_files, guest_crd
from guestlet.api.reasons import ConditionType, Reason

CRDS = Path(__file__).resolve().parents[3] / "crds"


@pytest.mark.parametrize("name", sorted(crd_files()))
def test_the_committed_file_is_the_generated_one(name: str, request: pytest.FixtureRequest) -> None:
    check_golden(CRDS / name, crd_files()[name], bool(request.config.getoption("--regenerate-golden")))


def test_nothing_else_lies_there() -> None:
    assert {path.name for path in CRDS.iterdir()} == set(crd_files())


def test_the_yaml_means_the_definition() -> None:
    (text,) = crd_documents().values()

    assert yaml.safe_load(text) == guest_crd()


def test_the_definition_names_the_kind_as_the_design_does() -> None:
    spec = guest_crd()["spec"]

    assert (spec["group"], spec["scope"], spec["versions"][0]["name"]) == ("guestlet.io", "Namespaced", "v1alpha1")
    assert spec["names"]["shortNames"] == ["vg"]
    assert spec["names"]["categories"] == ["guestlet"]


def test_the_reference_names_every_condition_and_reason() -> None:
    text = crd_files()["api-reference.md"]

    assert [word for word in (*ConditionType, *Reason) if f"| `{word}` | " not in text] == []


def test_the_reference_shows_type_default_and_bounds() -> None:
    lines = crd_files()["api-reference.md"].splitlines()

    (line,) = [line for line in lines if line.startswith("| `terminationGracePeriodSeconds` ")]
    assert line.startswith("| `terminationGracePeriodSeconds` | integer | `30` | 0 to 86400 | ")

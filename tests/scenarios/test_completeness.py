"""Nothing the guest's room can do or say is without a story: every action, every reason, every field of the spec."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from guestlet.api.base import ApiModel
from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.api.reasons import ConditionType, Reason
from guestlet.guest.actions import Action
from guestlet.host.facts import ScriptOutcome
from scenarios.stage import Stage, disk

ROOT = Path(__file__).resolve().parents[2]
ROOM = ROOT / "operator" / "guestlet" / "guest"
TOLD = "\n".join(
    path.read_text()
    for folder in ("scenarios", "unit/guest", "properties/guest")
    for path in sorted((ROOT / "tests" / folder).glob("*.py"))
    if path != Path(__file__)
)


async def test_every_action_is_performed_in_one_eventful_life(stage: Stage) -> None:
    outcome = ScriptOutcome(code=0, output="")
    stage.host.scripts = {"up.sh": outcome, "down.sh": outcome}
    tap = {"name": "lan", "tap": {"upScript": "up.sh", "downScript": "down.sh"}, "linkUp": False}
    both = [disk(onDelete="Delete"), disk("base", onDelete="Delete")]
    await stage.create(disks=both, networks=[tap], terminationGracePeriodSeconds=2)
    await stage.edit(paused=True)
    await stage.edit(paused=False, restart={"token": "one", "mode": "Reset"})
    bigger = [{**both[0], "size": "2Gi"}, both[1]]
    await stage.edit(disks=bigger, restart={"token": "two"})
    shaped = {"name": "wan", "bridge": {"name": "br0"}, "bandwidth": {"inbound": "1Mi"}}
    await stage.edit(networks=[tap, shaped], disks=[*bigger, disk("data", throttle={"iops": 9})])
    await stage.edit(networks=[tap, {**shaped, "bridge": {"name": "br1"}}])
    await stage.edit(networks=[tap], disks=bigger)
    await stage.passes(5)
    stage.host.images["default", "child.qcow2"] = replace(
        stage.host.images["default", "root.qcow2"], image="child.qcow2", backing_image="base.qcow2"
    )
    await stage.passes(5)
    stage.qemu().switches.obeys_power_button = False
    await stage.delete()
    await stage.passes(10)

    assert not stage.exists()
    assert stage.journal.done == {kind.__name__ for kind in get_args(Action)}


def reasons_used() -> Iterator[Reason]:
    for path in sorted(ROOM.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason":
                yield Reason[node.attr]


@pytest.mark.parametrize("reason", sorted(set(reasons_used())))
def test_every_reason_that_the_room_gives_is_told(reason: Reason) -> None:
    assert re.search(rf"\b{reason.value}\b|Reason\.{reason.name}\b", TOLD)


@pytest.mark.parametrize("kind", list(ConditionType))
def test_every_condition_is_told(kind: ConditionType) -> None:
    assert f'"{kind.value}"' in TOLD


def fields(model: type[ApiModel]) -> Iterator[str]:
    """Every field on the wire, those of nested models and of list items too."""
    for name, field in model.model_fields.items():
        yield field.alias or name
        for nested in models_in(field.annotation):
            yield from fields(nested)


def models_in(annotation: object) -> Iterator[type[ApiModel]]:
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


@pytest.mark.parametrize("field", sorted(set(fields(VirtualGuestSpec))))
def test_every_field_of_the_spec_is_told(field: str) -> None:
    assert re.search(rf'"{field}"|\b{field}=', TOLD)


def test_the_map_of_the_house_names_every_module() -> None:
    drawn = (ROOT / "operator" / "ARCHITECTURE.md").read_text()
    modules = [path for path in (ROOT / "operator" / "guestlet").rglob("*.py") if path.name != "__init__.py"]

    assert [str(path) for path in modules if f"`{path.name}`" not in drawn] == []

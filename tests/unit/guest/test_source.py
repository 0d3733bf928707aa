"""Which edits of a spec wait for the next start, by the names that the user knows."""

from typing import Any

import pytest

from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.guest.source import source_text, waiting_fields
from unit.guest.guest_samples import disk

BEFORE: dict[str, Any] = {
    "memory": {"size": "1Gi"},
    "cpu": {"count": 2},
    "disks": [disk("root", size="4Gi"), disk("data", size="1Gi")],
    "networks": [{"name": "lan", "user": {}}],
}


def spec(**changes: Any) -> VirtualGuestSpec:
    return VirtualGuestSpec.model_validate({**BEFORE, **changes})


LIVE: list[dict[str, Any]] = [
    {"runStrategy": "Once"},
    {"paused": True},
    {"restart": {"token": "1", "mode": "Reset"}},
    {"terminationGracePeriodSeconds": 5},
    {"nodeName": "node-a"},
    {"disks": [disk("root", size="4Gi", onDelete="Delete"), disk("data", size="1Gi")]},
]
WAITING: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"memory": {"size": "2Gi"}}, ("memory.size",)),
    ({"cpu": {"count": 4, "model": "max"}}, ("cpu.count", "cpu.model")),
    ({"machine": {"type": "pc"}}, ("machine.type",)),
    ({"accelerator": "TCG"}, ("accelerator",)),
    ({"firmware": {"type": "UEFI"}}, ("firmware.type",)),
    ({"boot": {"kernel": {"pool": "default", "image": "vmlinuz"}}}, ("boot",)),
    ({"console": {"serialLog": False}}, ("console.serialLog",)),
    ({"devices": {"rng": False, "watchdog": {"action": "Reset"}}}, ("devices.rng", "devices.watchdog")),
    ({"pci": {"hotplugPorts": 8}}, ("pci.hotplugPorts",)),
    ({"disks": [disk("root", size="8Gi"), disk("data", size="1Gi")]}, ("disks[root].size",)),
    ({"disks": [disk("root", size="4Gi")]}, ("disks[data]",)),
    ({"disks": [*BEFORE["disks"], disk("more")]}, ("disks[more]",)),
    (
        {"disks": [disk("root", size="4Gi", file={"image": "new.qcow2"}), disk("data", size="1Gi")]},
        ("disks[root].source.file.image",),
    ),
    (
        {"networks": [{"name": "lan", "isolated": {}, "linkUp": False}]},
        ("networks[lan].isolated", "networks[lan].linkUp", "networks[lan].user"),
    ),
]


@pytest.mark.parametrize("change", LIVE, ids=str)
def test_what_speaks_of_the_guests_life_never_waits(change: dict[str, Any]) -> None:
    assert waiting_fields(spec(**change), source_text(spec())) == ()


@pytest.mark.parametrize(("change", "fields"), WAITING, ids=str)
def test_what_speaks_of_the_machine_waits_and_is_named(change: dict[str, Any], fields: tuple[str, ...]) -> None:
    assert waiting_fields(spec(**change), source_text(spec())) == fields


def test_the_order_of_disks_alone_says_nothing() -> None:
    assert waiting_fields(spec(disks=[*reversed(BEFORE["disks"])]), source_text(spec())) == ()


def test_of_an_unknown_source_nothing_is_said() -> None:
    assert waiting_fields(spec(), "") == ()


def test_equal_specs_have_equal_sources() -> None:
    assert source_text(spec()) == source_text(VirtualGuestSpec.model_validate(spec().to_wire()))

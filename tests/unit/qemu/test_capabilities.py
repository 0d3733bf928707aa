"""What the parser reads out of the recorded answers of QEMU 7.2 and 10, and out of answers that make no sense."""

import json
from collections.abc import Mapping

import pytest

from golden_files import GOLDEN
from guestlet.errors import Broken
from guestlet.qemu.capabilities import (
    QUERIES,
    Capabilities,
    dump_capabilities,
    load_capabilities,
    parse_capabilities,
)

RECORDED = ("7.2", "10")


def recorded_replies(version: str) -> dict[str, object]:
    replies: dict[str, object] = json.loads((GOLDEN / "capabilities" / f"{version}.json").read_text())
    return replies


@pytest.fixture(params=RECORDED)
def capabilities(request: pytest.FixtureRequest) -> Capabilities:
    return parse_capabilities(recorded_replies(request.param))


@pytest.mark.parametrize(
    ("recorded", "version", "families"),
    [
        ("7.2", "7.2", {"pc": "pc-i440fx-7.2", "q35": "pc-q35-7.2"}),
        ("10", "10.", {"pc": "pc-i440fx-10.0", "q35": "pc-q35-10.0"}),
    ],
)
def test_a_family_leads_to_its_newest_versioned_machine(
    recorded: str, version: str, families: Mapping[str, str]
) -> None:
    capabilities = parse_capabilities(recorded_replies(recorded))
    assert capabilities.version.startswith(version)
    assert capabilities.machine_types == families


def test_machines_of_the_older_qemu_exist_in_the_newer_one() -> None:
    older, newer = (parse_capabilities(recorded_replies(version)) for version in RECORDED)
    assert set(older.machine_types.values()) <= set(newer.all_machine_types)


def test_every_recording_answers_every_query() -> None:
    for version in RECORDED:
        assert list(recorded_replies(version)) == [name for name, _, _ in QUERIES]


def test_both_can_plug_memory(capabilities: Capabilities) -> None:
    assert {"virtio-mem-pci", "pc-dimm"} <= capabilities.devices
    assert "memory-backend-ram" in capabilities.objects


@pytest.mark.parametrize("name", ["Nehalem", "Westmere", "qemu64"])
def test_a_model_is_resolved_to_a_version_that_means_the_same_for_ever(capabilities: Capabilities, name: str) -> None:
    assert capabilities.versioned_model(name) == f"{name}-v1"


@pytest.mark.parametrize("name", ["Nehalem-v1", "max", "host"])
def test_a_model_that_is_no_alias_stays(capabilities: Capabilities, name: str) -> None:
    assert capabilities.versioned_model(name) == name


def test_a_model_that_does_not_exist_is_not_resolved(capabilities: Capabilities) -> None:
    with pytest.raises(Broken, match=r"UnknownCpuModel.*'Nehalme'"):
        capabilities.versioned_model("Nehalme")


def test_devices_commands_and_words_are_those_that_guests_need(capabilities: Capabilities) -> None:
    assert {"virtio-blk-pci", "virtio-net-pci", "pcie-root-port", "nvme", "e1000", "i6300esb"} <= capabilities.devices
    assert {"memory-backend-ram", "iothread", "rng-random"} <= capabilities.objects
    assert {"device_add", "query-pci", "blockdev-add", "cont"} <= capabilities.commands
    assert {"user", "tap"} <= capabilities.netdevs
    assert {"file", "qcow2", "raw"} <= capabilities.block_drivers
    assert {"threads", "native", "io_uring"} == capabilities.file_aio
    assert capabilities.sandbox


def test_what_only_the_newer_one_has_is_told_by_its_commands() -> None:
    older, newer = (parse_capabilities(recorded_replies(version)) for version in RECORDED)
    assert "block-job-change" not in older.commands
    assert "block-job-change" in newer.commands


def test_a_build_without_seccomp_and_without_some_words_is_believed() -> None:
    replies = recorded_replies("7.2")
    replies["query-command-line-options"] = [{"option": "machine"}]
    replies["query-qmp-schema"] = []
    capabilities = parse_capabilities(replies)
    assert not capabilities.sandbox
    assert capabilities.netdevs == capabilities.file_aio == frozenset()


def test_what_is_kept_is_what_was_parsed(capabilities: Capabilities) -> None:
    text = dump_capabilities(capabilities)
    assert load_capabilities(text) == capabilities
    assert dump_capabilities(load_capabilities(text)) == text


@pytest.mark.parametrize("text", ["", "null", "{}", '{"form": 0}', '{"form": 1}'])
def test_a_damaged_cache_is_not_believed(text: str) -> None:
    with pytest.raises(Broken, match="kept capabilities"):
        load_capabilities(text)


@pytest.mark.parametrize("name", [name for name, _, _ in QUERIES])
@pytest.mark.parametrize("nonsense", [None, 7, "text", [7], [{}], {"unexpected": []}])
def test_an_answer_without_sense_is_a_defect_of_the_host(name: str, nonsense: object) -> None:
    with pytest.raises(Broken, match="describes itself"):
        parse_capabilities(recorded_replies("10") | {name: nonsense})


@pytest.mark.parametrize("name", [name for name, _, _ in QUERIES])
def test_a_missing_answer_is_a_defect_of_the_host(name: str) -> None:
    replies = recorded_replies("10")
    del replies[name]
    with pytest.raises(Broken, match=name):
        parse_capabilities(replies)

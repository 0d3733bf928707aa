"""QMP replies become values; what cannot be read is said to be broken."""

import pytest

from guestlet.errors import Broken
from guestlet.qemu.replies import (
    BlockDevice,
    RunState,
    Status,
    VirtualCpu,
    parse_address,
    parse_block,
    parse_cpus,
    parse_name,
    parse_parent_bus,
    parse_pci,
    parse_properties,
    parse_status,
    parse_uuid,
    parse_version,
)


def test_the_run_state() -> None:
    reply = {"status": "prelaunch", "singlestep": False, "running": False}

    assert parse_status(reply) == Status(run_state=RunState.PRELAUNCH, running=False)


def test_the_version() -> None:
    version = parse_version({"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian"})

    assert str(version) == "7.2.22"


def test_name_and_uuid() -> None:
    assert parse_name({"name": "default/demo"}) == "default/demo"
    assert parse_name({}) == ""
    assert parse_uuid({"UUID": "6f1e1b52-7a4d-4a34-9b6e-3a5c1f0d2e11"}) == "6f1e1b52-7a4d-4a34-9b6e-3a5c1f0d2e11"


def test_virtual_cpus_by_index() -> None:
    reply = [
        {"cpu-index": 1, "thread-id": 12, "qom-path": "/machine/unattached/device[1]", "target": "x86_64"},
        {"cpu-index": 0, "thread-id": 11, "qom-path": "/machine/unattached/device[0]", "target": "x86_64"},
    ]

    assert parse_cpus(reply) == (
        VirtualCpu(index=0, thread_id=11, qom_path="/machine/unattached/device[0]"),
        VirtualCpu(index=1, thread_id=12, qom_path="/machine/unattached/device[1]"),
    )


def test_block_devices_with_and_without_a_medium() -> None:
    reply = [
        {
            "device": "",
            "qdev": "disk-root",
            "io-status": "nospace",
            "inserted": {"node-name": "disk-root", "ro": False},
        },
        {"device": "", "qdev": "disk-cd", "locked": False},
    ]

    assert parse_block(reply) == (
        BlockDevice(qdev="disk-root", node="disk-root", read_only=False, io_status="nospace"),
        BlockDevice(qdev="disk-cd", node="", read_only=False, io_status="ok"),
    )


def test_pci_functions_with_those_behind_bridges() -> None:
    ids = {"id": {"vendor": 0x1AF4, "device": 0x1042}, "class_info": {"class": 0x0100}}
    disk = {"bus": 1, "slot": 0, "function": 0, "qdev_id": "disk-root", **ids}
    bridge = {"bus": {"number": 0, "secondary": 1, "subordinate": 1}, "devices": [disk]}
    port = {"bus": 0, "slot": 2, "function": 0, "qdev_id": "port-0", **ids, "pci_bridge": bridge}

    (found,) = parse_pci([{"bus": 0, "devices": [port]}])

    assert (found.qdev_id, found.secondary_bus, found.subordinate_bus) == ("port-0", 1, 1)
    assert [each.qdev_id for each in found.behind] == ["disk-root"]
    assert found.behind[0].secondary_bus is None


def test_a_place_in_qom() -> None:
    assert parse_address("1f.0") == "1f.0"
    assert parse_address("5.0") == "05.0"
    assert parse_parent_bus("/machine/peripheral/port-0/port-0") == "port-0"
    assert parse_parent_bus("/machine/i440fx/pci.0") == "pci.0"


def test_what_cannot_be_read_is_broken_and_names_the_command() -> None:
    with pytest.raises(Broken, match="QEMU's reply to query-status cannot be read"):
        parse_status({"status": "levitating", "running": True})
    with pytest.raises(Broken, match="query-version"):
        parse_version({"qemu": {}})
    with pytest.raises(Broken, match="query-pci"):
        parse_pci([{"bus": 0}])
    with pytest.raises(Broken, match="query-cpus-fast"):
        parse_cpus([{}])
    with pytest.raises(Broken, match="query-block"):
        parse_block([{"inserted": None}])
    with pytest.raises(Broken, match="query-uuid"):
        parse_uuid({})
    with pytest.raises(Broken, match="qom-list"):
        parse_properties([{"name": "addr"}])
    with pytest.raises(Broken, match="legacy-addr"):
        parse_address(248)
    with pytest.raises(Broken, match="parent_bus"):
        parse_parent_bus(None)

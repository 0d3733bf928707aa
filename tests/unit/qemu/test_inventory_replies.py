"""An inventory out of what real QEMUs answered (``replies/README.md`` says of which machine)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from guestlet.errors import Broken
from guestlet.qemu.inventory import BlockNode, CpuSlot, Drive, Inventory, MemoryDevice
from guestlet.qemu.inventory_replies import (
    INVENTORY_QUERIES,
    parse_busy_nodes,
    parse_cpu_slots,
    parse_drives,
    parse_inventory,
    parse_memory_devices,
    parse_migrating,
    parse_network,
    parse_nodes,
    parse_translation_cache,
)
from guestlet.qemu.machine import Throttle

REPLIES = Path(__file__).parent / "replies"
RECORDED = sorted(path.stem for path in REPLIES.glob("*.json"))
MIB = 1024 * 1024


def replies(recorded: str) -> Mapping[str, object]:
    found: dict[str, object] = json.loads((REPLIES / f"{recorded}.json").read_text())
    return found


@pytest.fixture(params=RECORDED)
def inventory(request: pytest.FixtureRequest) -> Inventory:
    return parse_inventory(replies(request.param))


def test_both_versions_and_both_chipsets_are_recorded() -> None:
    assert RECORDED == ["10.0-pc", "10.0-q35", "7.2-pc", "7.2-q35"]
    for each in RECORDED:
        assert replies(each).keys() == INVENTORY_QUERIES.keys()


def test_disks_by_device_and_node(inventory: Inventory) -> None:
    root = inventory.nodes["disk-root"]
    assert root == BlockNode(
        name="disk-root",
        driver="qcow2",
        file="/pool/root.qcow2",
        size_bytes=16 * MIB,
        read_only=False,
        backing_file="/pool/base.raw",
    )
    assert inventory.nodes["back-root-file"].read_only
    assert inventory.nodes["disk-cd"].size_bytes == MIB
    assert inventory.drive_of("disk-root") == Drive(
        qdev="/machine/peripheral/disk-root/virtio-backend",
        node="disk-root",
        tray_open=False,
        removable=False,
        throttle=Throttle(iops=None, iops_burst=None, bandwidth_bytes=MIB, bandwidth_burst_bytes=None),
        io_status="ok",
    )
    data = inventory.drive_of("disk-data")
    assert data is not None
    assert data.throttle == Throttle(iops=100, iops_burst=200, bandwidth_bytes=None, bandwidth_burst_bytes=None)
    empty = inventory.drive_of("disk-empty")
    assert empty is not None
    assert (empty.node, empty.removable, empty.throttle) == ("", True, None)
    assert inventory.drive_of("disk-none") is None


def test_devices_and_objects(inventory: Inventory) -> None:
    ours = {"disk-root", "disk-data", "disk-cd", "disk-empty", "disk-fast", "scsi", "dimm-0", "memory", "cpu-3"}
    assert ours <= inventory.devices
    assert inventory.objects == {"ram", "iothread-root", "mem-0", "mem-virtio"}


def test_network_backends_with_and_without_an_interface(inventory: Inventory) -> None:
    assert inventory.netdevs == {"net-lan", "net-one", "net-alone", "net-user", "net-spare", "net-left"}
    assert inventory.interfaces == {"nic-lan", "nic-one", "nic-alone", "nic-user"}
    assert inventory.interfaces <= inventory.devices


def test_processors_in_the_order_in_which_they_are_plugged(inventory: Inventory) -> None:
    assert [each.path is not None for each in inventory.cpus] == [True] * 4 + [False] * 4
    assert inventory.cpus[3] == CpuSlot(
        driver="qemu64-v1-x86_64-cpu",
        properties={"socket-id": 0, "core-id": 1, "thread-id": 1, "node-id": 0},
        path="/machine/peripheral/cpu-3",
    )


def test_memory(inventory: Inventory) -> None:
    assert inventory.memory_devices == (
        MemoryDevice(
            id="dimm-0",
            kind="dimm",
            memdev="mem-0",
            size_bytes=128 * MIB,
            requested_bytes=128 * MIB,
            max_bytes=128 * MIB,
            block_bytes=0,
            hotplugged=True,
        ),
        MemoryDevice(
            id="memory",
            kind="virtio-mem",
            memdev="mem-virtio",
            size_bytes=0,
            requested_bytes=64 * MIB,
            max_bytes=512 * MIB,
            block_bytes=2 * MIB,
            hotplugged=False,
        ),
    )
    assert (inventory.base_memory_bytes, inventory.plugged_memory_bytes) == (128 * MIB, 128 * MIB)


def test_what_a_job_uses_is_busy(inventory: Inventory) -> None:
    assert inventory.busy_nodes == {"disk-data", "disk-copy", "mirror-filter"}
    assert not inventory.migrating
    assert inventory.translation_cache_used == 0


@pytest.mark.parametrize(
    ("status", "migrating"),
    [
        ("setup", True),
        ("active", True),
        ("pre-switchover", True),
        ("device", True),
        ("postcopy-paused", True),
        ("cancelling", True),
        ("wait-unplug", True),
        ("none", False),
        ("completed", False),
        ("failed", False),
        ("cancelled", False),
    ],
)
def test_a_migration_is_under_way_until_its_end_is_known(status: str, migrating: bool) -> None:
    assert parse_migrating({"status": status}) is migrating
    assert not parse_migrating({})


def test_other_networks_and_filters_are_told_apart() -> None:
    text = (
        "hub 0\r\n \\ hub0port1: #net012: index=0,type=user,net=10.0.2.0,restrict=off\r\n"
        " \\ hub0port0: e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\r\n"
        "virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:57\r\n"
        "wan: index=0,type=socket,fd=5 stream-connect\r\n"
        "filters:\r\n  - dump: type=filter-dump,file=/x\r\n"
    )
    netdevs, interfaces = parse_network(text)

    assert netdevs == {"hub0port1", "hub0port0", "#net012", "wan"}
    assert interfaces == {"e1000.0", "virtio-net-pci.0"}


def test_limits_of_one_direction_are_limits_without_a_number() -> None:
    inserted = {"node-name": "n", "iops": 0, "bps": 0, "bps_rd": 5}
    (drive,) = parse_drives([{"qdev": "d", "removable": False, "inserted": inserted}, {"device": "ide0", "qdev": ""}])

    assert drive.throttle == Throttle(iops=None, iops_burst=None, bandwidth_bytes=None, bandwidth_burst_bytes=None)


def test_memory_devices_without_an_id_or_of_other_kinds() -> None:
    (found,) = parse_memory_devices(
        [{"type": "virtio-pmem", "data": {"size": 5, "memaddr": 1, "memdev": "/objects/m"}}]
    )

    assert (found.id, found.kind, found.memdev, found.size_bytes) == ("", "virtio-pmem", "m", 5)


def test_under_kvm_there_is_no_translation_cache() -> None:
    assert parse_translation_cache("JIT information is only available with accel=tcg\r\n") is None
    assert parse_translation_cache("gen code size       33725283/134053888\r\n") == pytest.approx(0.2516, abs=1e-4)


@pytest.mark.parametrize(
    ("parse", "reply"),
    [
        (parse_nodes, [{}]),
        (parse_drives, [{"qdev": "d"}]),
        (parse_network, None),
        (parse_network, {"x": 1}),
        (parse_cpu_slots, [{"type": "x"}]),
        (parse_memory_devices, [{"type": "dimm"}]),
        (parse_busy_nodes, {}),
        (parse_migrating, []),
    ],
)
def test_a_reply_that_cannot_be_read_is_broken(parse: Any, reply: object) -> None:
    with pytest.raises(Broken, match="cannot be read"):
        parse(reply)


@pytest.mark.parametrize("missing", sorted(INVENTORY_QUERIES))
def test_an_inventory_is_whole_or_broken(missing: str) -> None:
    known = {name: reply for name, reply in replies("7.2-q35").items() if name != missing}

    with pytest.raises(Broken, match=missing):
        parse_inventory(known)

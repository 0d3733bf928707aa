"""QMP commands as values."""

import pytest

from guestlet.qemu import commands
from guestlet.qemu.commands import Command
from guestlet.qemu.inventory_replies import INVENTORY_QUERIES
from guestlet.qemu.machine import DiskBus, Throttle

UNLIMITED = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)


def test_commands_have_qemus_names_and_arguments() -> None:
    assert commands.cont().name == "cont"
    assert commands.quit_qemu().name == "quit"
    link = commands.set_link("nic-lan", up=False)
    assert (link.name, dict(link.arguments)) == ("set_link", {"name": "nic-lan", "up": False})
    address = commands.device_address("disk-root")
    assert (address.name, dict(address.arguments)) == (
        "qom-get",
        {"path": "/machine/peripheral/disk-root", "property": "legacy-addr"},
    )


def test_every_command_has_a_deadline() -> None:
    assert commands.query_status().deadline_s < commands.system_powerdown().deadline_s < 60


@pytest.mark.parametrize(
    ("command", "name", "arguments"),
    [
        (
            commands.blockdev_add({"driver": "raw", "node-name": "n"}),
            "blockdev-add",
            {"driver": "raw", "node-name": "n"},
        ),
        (commands.blockdev_del("disk-a"), "blockdev-del", {"node-name": "disk-a"}),
        (commands.device_add({"driver": "nvme", "id": "x"}), "device_add", {"driver": "nvme", "id": "x"}),
        (commands.device_del("disk-a"), "device_del", {"id": "disk-a"}),
        (commands.netdev_add({"type": "user", "id": "net-a"}), "netdev_add", {"type": "user", "id": "net-a"}),
        (commands.netdev_del("net-a"), "netdev_del", {"id": "net-a"}),
        (commands.object_add({"qom-type": "iothread", "id": "t"}), "object-add", {"qom-type": "iothread", "id": "t"}),
        (commands.object_del("iothread-a"), "object-del", {"id": "iothread-a"}),
        (commands.block_resize("disk-a", 512), "block_resize", {"node-name": "disk-a", "size": 512}),
        (
            commands.qom_set("/p", "requested-size", 5),
            "qom-set",
            {"path": "/p", "property": "requested-size", "value": 5},
        ),
        (commands.blockdev_open_tray("cd", force=True), "blockdev-open-tray", {"id": "cd", "force": True}),
        (commands.blockdev_close_tray("cd"), "blockdev-close-tray", {"id": "cd"}),
        (commands.blockdev_remove_medium("cd"), "blockdev-remove-medium", {"id": "cd"}),
        (commands.blockdev_insert_medium("cd", "n"), "blockdev-insert-medium", {"id": "cd", "node-name": "n"}),
        (commands.getfd("tap-0"), "getfd", {"fdname": "tap-0"}),
        (commands.closefd("tap-0"), "closefd", {"fdname": "tap-0"}),
        (commands.info_network(), "human-monitor-command", {"command-line": "info network"}),
    ],
)
def test_changes_of_a_running_machine(command: Command, name: str, arguments: dict[str, object]) -> None:
    assert (command.name, dict(command.arguments)) == (name, arguments)


def test_limits_of_both_kinds_with_their_bursts() -> None:
    limits = Throttle(iops=100, iops_burst=200, bandwidth_bytes=1000, bandwidth_burst_bytes=None)
    command = commands.block_set_io_throttle("disk-a", limits, "disk-a")

    assert command.name == "block_set_io_throttle"
    assert command.arguments == {
        "id": "disk-a",
        **UNLIMITED,
        "iops": 100,
        "iops_max": 200,
        "bps": 1000,
        "group": "disk-a",
    }


def test_a_burst_without_its_limit_is_none_and_one_below_it_is_the_limit() -> None:
    """QEMU refuses both."""
    limits = Throttle(iops=None, iops_burst=200, bandwidth_bytes=1000, bandwidth_burst_bytes=10)
    command = commands.block_set_io_throttle("disk-a", limits, "disk-a")

    assert command.arguments == {"id": "disk-a", **UNLIMITED, "bps": 1000, "bps_max": 1000, "group": "disk-a"}


def test_limits_are_removed_by_zeros_and_the_group_with_them() -> None:
    assert commands.block_set_io_throttle("disk-a", None, "disk-a").arguments == {"id": "disk-a", **UNLIMITED}


def test_a_virtio_disk_is_limited_by_the_path_of_its_back_end() -> None:
    path = "/machine/peripheral/disk-a/virtio-backend"
    assert commands.throttled_device("disk-a", DiskBus.VIRTIO) == path
    assert {commands.throttled_device("disk-a", bus) for bus in DiskBus} == {path, "disk-a"}


def test_an_inventory_changes_nothing() -> None:
    reading = ("query-", "qom-list", "x-debug-query-", "human-monitor-command")
    assert all(each.name.startswith(reading) for each in INVENTORY_QUERIES.values())
    shown = [each.arguments["command-line"] for each in INVENTORY_QUERIES.values() if "command-line" in each.arguments]
    assert all(str(each).startswith("info ") for each in shown)

"""Ids and node names."""

from guestlet.qemu.names import backing_node, disk_node, protocol_node, sata_controller


def test_node_names_tell_the_disk() -> None:
    assert disk_node("root") == "disk-root"
    assert protocol_node(backing_node("root")) == "back-root-file"


def test_node_names_of_the_longest_disk_names_fit_into_qemus_limit_and_differ() -> None:
    long = ["a" * 31 + last for last in "xyz"]
    nodes = {protocol_node(disk_node(name)) for name in long} | {protocol_node(backing_node(name)) for name in long}

    assert len(nodes) == 6
    assert all(len(node) <= 31 for node in nodes)


def test_each_ahci_controller_has_six_ports() -> None:
    assert [sata_controller(unit) for unit in (0, 5, 6, 12)] == ["sata", "sata", "sata-1", "sata-2"]

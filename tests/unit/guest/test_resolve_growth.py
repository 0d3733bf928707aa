"""From spec to a machine that may change while it runs: room to grow, limits, empty drives, one device at a time."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from guestlet.api.disk_spec import DiskSpec
from guestlet.api.network_spec import NetworkSpec
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.resolve import resolve_machine
from guestlet.guest.resolve_disks import resolve_disk
from guestlet.guest.resolve_memory import MODULE_BYTES, refuse_beyond_node, refuse_unaligned
from guestlet.guest.resolve_networks import generated_mac, refuse_unserved, resolve_network
from guestlet.pci.address import parse_address
from guestlet.pci.layout import DeviceKind
from guestlet.qemu.machine import Bandwidth, Dimm, Disk, DiskBus, Machine, Memory, Nic, Throttle, VirtioMem
from unit.guest.guest_samples import (
    CAPABILITIES,
    GIB,
    MIB,
    NODE,
    QEMU,
    UUID,
    disk,
    guest,
    image,
    machine,
    network,
    observed,
    storage,
)

NO_VIRTIO_MEM = replace(CAPABILITIES, devices=frozenset({"pc-dimm"}))


def resolved(spec: Mapping[str, Any], previous: Machine | None = None, **facts: Any) -> Machine:
    return resolve_machine(guest=guest(spec), observed=observed(**facts), previous=previous, uuid=UUID)


REFUSALS: Mapping[str, tuple[Mapping[str, Any], Reason, tuple[str, ...]]] = {
    "fewer CPUs at most than at start": (
        {"cpu": {"count": 4, "maxCount": 2}},
        Reason.INVALID_SPEC,
        ("spec.cpu.maxCount", "2", "count 4", "raise it, or remove it"),
    ),
    "most CPUs that cannot be arranged": (
        {"cpu": {"count": 2, "maxCount": 8, "cores": 3}},
        Reason.INVALID_SPEC,
        ("spec.cpu", "maxCount 8", "correct one of them"),
    ),
    "more CPUs than the node, whatever may come": (
        {"cpu": {"count": 5, "maxCount": 16}},
        Reason.INSUFFICIENT_CPUS,
        ("spec.cpu.count", "5 virtual CPUs", "node-a with 4 CPUs"),
    ),
    "less memory at most than at start": (
        {"memory": {"size": "2Gi", "maxSize": "1Gi"}},
        Reason.INVALID_SPEC,
        ("spec.memory.maxSize", "1Gi", "2Gi", "raise it, or remove it"),
    ),
    "memory at start that is no whole number of blocks": (
        {"memory": {"size": "513Mi", "maxSize": "1Gi"}},
        Reason.MEMORY_NOT_ALIGNED,
        ("spec.memory.size", "513Mi", "blocks of 2Mi", "use 514Mi"),
    ),
    "most memory that is no whole number of blocks": (
        {"memory": {"size": "512Mi", "maxSize": "1048577Ki"}},
        Reason.MEMORY_NOT_ALIGNED,
        ("spec.memory.maxSize", "1048577Ki", "blocks of 2Mi", "use 1026Mi"),
    ),
    "more memory at most than there are addresses": (
        {"memory": {"size": "1Gi", "maxSize": "2Ti"}},
        Reason.INSUFFICIENT_MEMORY,
        ("spec.memory.maxSize", "2Ti", "size 1Gi", "use at most 480Gi", "a larger size"),
    ),
    "a disk that has no source and is no cdrom": (
        {"disks": [{"name": "root"}]},
        Reason.INVALID_SPEC,
        ("spec.disks[root].source", "name exactly one source"),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_growth_that_cannot_be_had_is_refused_by_field_value_and_remedy(case: str) -> None:
    spec, reason, says = REFUSALS[case]

    with pytest.raises(Refused) as refusal:
        resolved(spec)

    assert refusal.value.reason == reason
    for words in says:
        assert words in refusal.value.message


def test_the_most_that_is_named_is_taken() -> None:
    assert resolved({"memory": {"size": "1Gi", "maxSize": "480Gi"}}).memory.max_bytes == 480 * GIB


@pytest.mark.parametrize(
    ("cpu", "found"),
    [
        ({"count": 2}, (2, 2, (2, 1, 1))),
        ({"count": 2, "maxCount": 8}, (2, 8, (8, 1, 1))),
        ({"count": 1, "maxCount": 6, "cores": 3}, (1, 6, (2, 3, 1))),
        ({"count": 3, "maxCount": 8, "sockets": 2, "cores": 2, "threads": 2}, (3, 8, (2, 2, 2))),
        ({"count": 4, "maxCount": 64, "sockets": 1}, (4, 64, (1, 64, 1))),
    ],
)
def test_the_topology_is_that_of_the_most_cpus(cpu: dict[str, int], found: tuple[int, int, tuple[int, ...]]) -> None:
    made = resolved({"cpu": cpu}).cpu

    assert (made.count, made.max_count, (made.sockets, made.cores, made.threads)) == found


def test_memory_grows_by_virtio_mem_which_has_a_place_of_its_own() -> None:
    made = resolved({"memory": {"size": "1Gi", "maxSize": "4Gi"}})

    assert made.memory == Memory(
        boot_bytes=GIB,
        max_bytes=4 * GIB,
        virtio_mem=VirtioMem(max_bytes=3 * GIB, block_bytes=2 * MIB, requested_bytes=0),
        dimms=(),
    )
    assert [each.id for each in made.pci.devices if each.kind is DeviceKind.MEMORY] == ["memory"]


def test_a_qemu_without_virtio_mem_has_room_for_modules_only() -> None:
    made = resolved({"memory": {"size": "1Gi", "maxSize": "4Gi"}}, capabilities=NO_VIRTIO_MEM)

    assert made.memory == Memory(boot_bytes=GIB, max_bytes=4 * GIB, virtio_mem=None, dimms=())
    assert [each for each in made.pci.devices if each.kind is DeviceKind.MEMORY] == []


@pytest.mark.parametrize(
    "memory", [{"size": "1Gi"}, {"size": "1Gi", "maxSize": "1Gi"}, {"size": "1Gi", "maxSize": "1024Mi"}]
)
def test_memory_without_room_cannot_grow(memory: dict[str, str]) -> None:
    assert resolved({"memory": memory}).memory == Memory(boot_bytes=GIB, max_bytes=GIB, virtio_mem=None, dimms=())


def test_a_size_that_cannot_grow_need_not_be_whole_blocks() -> None:
    assert resolved({"memory": {"size": "513Mi"}}).memory.boot_bytes == 513 * MIB


def test_a_restart_starts_with_all_the_memory_and_cpus_that_were_plugged() -> None:
    spec = {"memory": {"size": "1Gi", "maxSize": "4Gi"}, "cpu": {"count": 1, "maxCount": 4}}
    first = resolved(spec)
    grown = replace(
        first,
        cpu=replace(first.cpu, count=3),
        memory=replace(first.memory, dimms=(Dimm(slot=0, size_bytes=GIB),)),
    )

    second = resolved({"memory": {"size": "2Gi", "maxSize": "4Gi"}, "cpu": {"count": 3, "maxCount": 4}}, grown)

    assert second.memory == Memory(
        boot_bytes=2 * GIB,
        max_bytes=4 * GIB,
        virtio_mem=VirtioMem(max_bytes=2 * GIB, block_bytes=2 * MIB, requested_bytes=0),
        dimms=(),
    )
    assert second.cpu == grown.cpu
    assert second.pci == first.pci


def test_a_module_that_is_not_whole_memory_blocks_is_refused_with_the_next_size() -> None:
    refuse_unaligned("spec.memory.size", 3 * MODULE_BYTES, MODULE_BYTES)

    with pytest.raises(
        Refused, match=r"spec.memory.size: 300Mi is not a whole .* blocks of 128Mi, .* use 384Mi"
    ) as refusal:
        refuse_unaligned("spec.memory.size", 300 * MIB, MODULE_BYTES)

    assert refusal.value.reason == Reason.MEMORY_NOT_ALIGNED


def test_what_a_running_guest_wants_more_is_weighed_against_what_the_others_leave() -> None:
    look = observed(running=QEMU, committed_memory_bytes=4 * GIB)
    refuse_beyond_node("spec.memory.size", 3 * GIB, look)

    with pytest.raises(Refused, match=r"spec.memory.size: 3073Mi on node node-a, which has 3Gi free") as refusal:
        refuse_beyond_node("spec.memory.size", 3 * GIB + MIB, look)

    assert refusal.value.reason == Reason.INSUFFICIENT_MEMORY


def test_limits_reach_the_machine_in_bytes() -> None:
    limits = {"iops": 100, "iopsBurst": 200, "bandwidth": "1Mi", "bandwidthBurst": "2M"}
    lan = {"name": "lan", "bridge": {"name": "br0"}, "bandwidth": {"inbound": "10M", "outbound": "1Mi"}}

    made = resolved({"disks": [disk(size="1Gi", throttle=limits)], "networks": [lan]})

    assert made.disks[0].throttle == Throttle(
        iops=100, iops_burst=200, bandwidth_bytes=MIB, bandwidth_burst_bytes=2_000_000
    )
    assert made.networks[0].bandwidth == Bandwidth(inbound_bytes=10_000_000, outbound_bytes=MIB)


def test_an_empty_cdrom_drive_has_no_image_and_no_size() -> None:
    drive = {"name": "cd", "bus": "SCSI", "cdrom": True, "readOnly": True}

    (made,) = resolved({"disks": [drive]}).disks

    assert (made.source, made.size_bytes, made.cdrom, made.unit) == (None, 0, True, 0)


def live(*disks: Mapping[str, Any]) -> tuple[Disk, ...]:
    return machine({"disks": disks}).disks


def one_disk(spec: Mapping[str, Any], *earlier: Mapping[str, Any], has: tuple[Disk, ...] = ()) -> Disk:
    wanted = tuple(DiskSpec.model_validate(each) for each in earlier)
    return resolve_disk(DiskSpec.model_validate(spec), earlier=wanted, storage=storage(image()), live=has)


def test_a_disk_is_resolved_alone_whatever_is_wrong_with_the_others() -> None:
    bad = disk("bad", file={"pool": "nowhere"})

    assert one_disk(disk(size="2Gi"), bad).size_bytes == 2 * GIB


def test_a_disk_that_comes_takes_no_unit_of_one_that_is_still_there() -> None:
    scsi = [disk(name, bus="SCSI", size="1Gi") for name in ("a", "b", "c")]
    has = live(*scsi)

    leaving = one_disk(disk("new", bus="SCSI", size="1Gi"), scsi[0], scsi[2], has=has)
    gone = one_disk(disk("new", bus="SCSI", size="1Gi"), scsi[0], scsi[2], has=(has[0], has[2]))

    assert (leaving.unit, gone.unit) == (3, 1)


def test_a_disk_that_stays_keeps_its_unit_and_one_on_another_bus_does_not() -> None:
    has = live(disk("a", bus="SCSI", size="1Gi"), disk("b", bus="SCSI", size="1Gi"))

    assert one_disk(disk("b", bus="SCSI", size="1Gi"), has=has).unit == 1
    assert one_disk(disk("b", bus="SATA", size="1Gi"), has=has).unit == 0
    assert one_disk(disk("b", size="1Gi"), has=has).unit is None


def test_a_serial_of_a_disk_before_it_is_refused() -> None:
    with pytest.raises(Refused, match=r"spec.disks\[b\].serial: 'SN-1' is also that of disk a") as refusal:
        one_disk(disk("b", size="1Gi", serial="SN-1"), disk("a", serial="SN-1"))

    assert refusal.value.reason == Reason.INVALID_SPEC


def one_network(spec: Mapping[str, Any], *earlier: Mapping[str, Any], has: tuple[Nic, ...] = ()) -> Nic:
    wanted = tuple(NetworkSpec.model_validate(each) for each in earlier)
    return resolve_network(NetworkSpec.model_validate(spec), earlier=wanted, uuid=UUID, live=has)


def test_a_network_is_resolved_alone_and_keeps_the_mac_it_has() -> None:
    has = (replace(one_network({"name": "lan", "user": {}}), mac="52:54:00:00:00:09"),)

    assert one_network({"name": "lan", "bridge": {"name": "br0"}}, {"name": "wan"}, has=has).mac == "52:54:00:00:00:09"


def test_a_mac_of_a_network_before_it_is_refused() -> None:
    mac = generated_mac(UUID, "lan")

    with pytest.raises(Refused, match=rf"spec.networks\[wan\].macAddress: {mac} is also that of lan"):
        one_network({"name": "wan", "user": {}, "macAddress": mac.upper()}, {"name": "lan", "user": {}})


def test_what_a_network_needs_of_the_node_is_asked_for_it_alone() -> None:
    spec = NetworkSpec.model_validate({"name": "lan", "bridge": {"name": "br0"}})
    refuse_unserved(spec, NODE, network())

    with pytest.raises(Refused, match=r"spec.networks\[lan\].bridge.name: node node-a has no bridge 'br0'"):
        refuse_unserved(spec, NODE, network(bridges=()))


def test_an_explicit_address_is_still_honoured_beside_virtio_mem() -> None:
    spec = {"memory": {"size": "1Gi", "maxSize": "2Gi"}, "disks": [disk(size="1Gi", pciAddress="pcie.0:05.0")]}

    places = {each.id: each.address for each in resolved(spec).pci.devices}

    assert places["disk-root"] == parse_address("pcie.0:05.0")
    assert "memory" in places


def test_buses_with_units_are_those_with_drives() -> None:
    assert {bus for bus in DiskBus if one_disk(disk(bus=bus.value, size="1Gi")).unit == 0} == {
        DiskBus.SCSI,
        DiskBus.SATA,
    }

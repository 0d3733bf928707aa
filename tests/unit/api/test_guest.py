"""Reading and writing VirtualGuests."""

from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from guestlet.api.base import MESSAGE_MAX, Condition
from guestlet.api.disk_spec import ThrottleSpec
from guestlet.api.guest import VirtualGuest, parse_guest, parse_metadata
from guestlet.api.guest_spec import RunStrategy, VirtualGuestSpec
from guestlet.api.guest_status import LOG_TAIL_MAX, LastExit, VirtualGuestStatus
from guestlet.api.network_spec import BandwidthSpec
from guestlet.api.reasons import ConditionType, Reason
from guestlet.errors import Refused
from guestlet.qemu.machine import DiskBus, MachineType
from unit.api.guest_specs import specs


def body(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "demo", "namespace": "default"}, "spec": spec}


@given(specs)
def test_what_was_read_and_written_reads_the_same(spec: dict[str, Any]) -> None:
    guest = parse_guest({"metadata": {"name": "demo"}, "spec": spec})

    assert parse_guest(guest.to_wire()) == guest


@given(specs)
def test_what_the_user_wrote_is_never_rewritten(spec: dict[str, Any]) -> None:
    written = parse_guest({"metadata": {"name": "demo"}, "spec": spec}).spec.to_wire()

    assert contains(written, spec)


def contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)


def test_an_empty_spec_means_the_defaults() -> None:
    spec = parse_guest(body()).spec

    assert spec == VirtualGuestSpec()
    assert (spec.run_strategy, spec.machine.type, spec.memory.size) == (RunStrategy.ALWAYS, MachineType.Q35, "512Mi")
    assert (spec.termination_grace_period_seconds, spec.pci.hotplug_ports, spec.cpu.count) == (30, 4, 1)


def test_a_new_object_does_not_look_finished() -> None:
    assert parse_guest(body()).status.observed_generation == -1


def test_fields_of_a_newer_version_are_ignored() -> None:
    guest = parse_guest({**body(cpu={"count": 2, "hologram": True}, newer={"a": 1}), "status": {"alsoNewer": []}})

    assert guest.spec.cpu.count == 2


def test_python_names_and_wire_names_are_one_to_one() -> None:
    disk = {"name": "root", "bus": "NVMe", "source": {"file": {"pool": "p", "image": "i", "backingImage": "b"}}}
    found = parse_guest(body(disks=[disk], nodeName="node-a")).spec

    assert found.node_name == "node-a"
    assert found.disks[0].bus is DiskBus.NVME
    assert found.disks[0].source is not None
    assert found.disks[0].source.file is not None
    assert found.disks[0].source.file.backing_image == "b"


def test_what_may_change_while_the_guest_runs_has_its_names_too() -> None:
    throttle = {"iops": 1, "iopsBurst": 2, "bandwidth": "1Mi", "bandwidthBurst": "2Mi"}
    drive = {"name": "cd", "bus": "SATA", "cdrom": True, "readOnly": True, "throttle": throttle}
    lan = {"name": "lan", "bridge": {"name": "br0"}, "bandwidth": {"inbound": "1M", "outbound": "2M"}}
    found = parse_guest(
        body(disks=[drive], networks=[lan], cpu={"count": 1, "maxCount": 4}, memory={"size": "1Gi", "maxSize": "2Gi"})
    ).spec

    assert found.disks[0].source is None
    assert found.disks[0].throttle == ThrottleSpec(iops=1, iops_burst=2, bandwidth="1Mi", bandwidth_burst="2Mi")
    assert found.networks[0].bandwidth == BandwidthSpec(inbound="1M", outbound="2M")
    assert (found.cpu.max_count, found.memory.max_size) == (4, "2Gi")


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"cpu": {"maxCount": 256}}, "spec.cpu.maxCount"),
        ({"memory": {"maxSize": "1Mi"}}, "spec.memory.maxSize"),
        ({"disks": [{"name": "a", "throttle": {"iops": 0}}]}, "spec.disks[0].throttle.iops"),
        ({"disks": [{"name": "a", "throttle": {"bandwidth": "1"}}]}, "spec.disks[0].throttle.bandwidth"),
        ({"networks": [{"name": "a", "bandwidth": {"inbound": "2Ti"}}]}, "spec.networks[0].bandwidth.inbound"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_limits_out_of_bounds_are_refused_by_their_names(part: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_guest(body(**part))

    assert refusal.value.reason is Reason.INVALID_SPEC
    assert field in refusal.value.message


def test_a_guest_cannot_be_changed() -> None:
    guest = parse_guest(body())

    with pytest.raises(ValidationError, match="frozen"):
        guest.spec.paused = True  # type: ignore[misc]  # the point of the test


def test_what_cannot_be_read_is_refused_with_each_field_and_value() -> None:
    disk = {"name": "root", "source": {"file": {"pool": "default", "image": "../x"}}, "size": "lots"}

    with pytest.raises(Refused) as refusal:
        parse_guest(body(disks=[disk], memory={"size": "1Ki"}, cpu={"count": 0}))

    assert refusal.value.reason is Reason.INVALID_SPEC
    for fragment in (
        "spec.disks[0].source.file.image",
        "'../x'",
        "spec.disks[0].size",
        "spec.memory.size: the guest's memory must be a whole number of bytes between 16Mi and 16Ti",
        "spec.cpu.count",
    ):
        assert fragment in refusal.value.message


def test_a_flood_of_faults_is_told_briefly() -> None:
    networks = [{"name": f"n{number}", "queues": 99} for number in range(8)]

    with pytest.raises(Refused, match="and 3 more"):
        parse_guest(body(networks=networks))


@pytest.mark.parametrize(
    "image",
    [
        "../x",
        "..",
        ".",
        "/etc/passwd",
        "a/b",
        "a,b=c",
        'json:{"driver":"file"}',
        "nbd:x",
        "-x",
        ".x",
        "a\0b",
        "a\n",
        "",
        "x" * 129,
    ],
)
def test_an_image_name_cannot_leave_its_pool_or_become_an_option(image: str) -> None:
    with pytest.raises(Refused, match=r"spec\.disks\[0\]\.source\.file\.image"):
        parse_guest(body(disks=[{"name": "root", "source": {"file": {"pool": "default", "image": image}}}]))


def test_metadata_can_be_read_when_the_spec_cannot() -> None:
    broken = {"metadata": {"name": "demo", "uid": "u", "generation": 3, "finalizers": ["a"]}, "spec": "nonsense"}

    found = parse_metadata(broken)

    assert (found.name, found.uid, found.generation, found.finalizers) == ("demo", "u", 3, ("a",))


def test_an_object_without_metadata_is_refused() -> None:
    with pytest.raises(Refused, match="the object"):
        parse_metadata({"spec": {}})


def test_what_is_absent_is_not_written() -> None:
    assert VirtualGuestStatus().to_wire() == {"observedGeneration": -1, "conditions": [], "disks": [], "networks": []}
    assert "nodeName" not in VirtualGuestSpec().to_wire()


def test_a_message_without_end_is_cut_at_its_end_and_a_log_at_its_start() -> None:
    condition = Condition(
        type=ConditionType.READY,
        status="False",
        reason=Reason.QEMU_EXITED,
        message="begin" + "x" * 10_000,
        last_transition_time="2026-01-01T00:00:00Z",
    )
    last = LastExit(reason="Crashed", at="2026-01-01T00:00:00Z", log_tail="x" * 10_000 + "end")

    assert (len(condition.message), condition.message[:5]) == (MESSAGE_MAX, "begin")
    assert (len(last.log_tail), last.log_tail[-3:]) == (LOG_TAIL_MAX, "end")


def test_a_condition_reads_as_metav1_has_it() -> None:
    wire = Condition(
        type=ConditionType.READY,
        status="True",
        reason=Reason.RUNNING,
        message="the guest runs",
        last_transition_time="2026-01-01T00:00:00Z",
        observed_generation=2,
    ).to_wire()

    assert wire == {
        "type": "Ready",
        "status": "True",
        "reason": "Running",
        "message": "the guest runs",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 2,
    }


def test_the_kind_is_written() -> None:
    wire = parse_guest(body()).to_wire()

    assert (wire["apiVersion"], wire["kind"]) == ("guestlet.io/v1alpha1", "VirtualGuest")
    assert VirtualGuest.model_validate(wire).metadata.namespace == "default"

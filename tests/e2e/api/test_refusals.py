"""What the API server refuses, with the message a person needs; and what may not change once it is set."""

import json
from typing import Any

import pytest

from e2e.api.bad_manifests import BadManifest, bad_manifests
from sandbox.kubectl import Kubectl, Outcome

REFUSED = [manifest for manifest in bad_manifests() if manifest.refused]
STALLED = [manifest for manifest in bad_manifests() if not manifest.refused]


def create(kubectl: Kubectl, **spec: Any) -> None:
    body = {
        "apiVersion": "guestlet.io/v1alpha1",
        "kind": "VirtualGuest",
        "metadata": {"name": "demo", "namespace": "default"},
        "spec": spec,
    }
    kubectl("create", "-f", "-", stdin=json.dumps(body))


def edit(kubectl: Kubectl, *options: str, **part: Any) -> Outcome:
    return kubectl.attempt("patch", "vg", "demo", "--type=merge", *options, "-p", json.dumps(part))


def publish(kubectl: Kubectl, **status: Any) -> None:
    assert edit(kubectl, "--subresource=status", status=status).code == 0


@pytest.mark.parametrize("manifest", REFUSED, ids=lambda manifest: manifest.name)
def test_a_bad_manifest_is_refused_with_its_message(empty: Kubectl, manifest: BadManifest) -> None:
    *before, bad = manifest.documents
    for document in before:
        empty("apply", "-f", "-", stdin=document)

    outcome = empty.attempt("apply", "-f", "-", stdin=bad)

    assert outcome.code != 0
    assert manifest.fragment in outcome.errors
    assert "error evaluating" not in outcome.errors


@pytest.mark.parametrize("manifest", STALLED, ids=lambda manifest: manifest.name)
def test_what_only_the_node_can_know_is_accepted(empty: Kubectl, manifest: BadManifest) -> None:
    for document in manifest.documents:
        empty("apply", "--dry-run=server", "-f", "-", stdin=document)


def test_machine_and_device_bus_may_change_until_the_first_start(empty: Kubectl) -> None:
    create(empty, machine={"type": "q35"}, pci={"deviceBus": "PCIBridge"})

    assert edit(empty, spec={"machine": {"type": "pc"}, "pci": {"deviceBus": "RootPort"}}).code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machine": {"type": "pc"}}, "spec.machine.type: Invalid value: machine.type is q35 and immutable after"),
        ({"machine": None, "pci": {"deviceBus": "PCIBridge"}}, "pci.deviceBus is RootPort and immutable after"),
    ],
)
def test_they_may_not_change_afterwards(empty: Kubectl, change: dict[str, Any], message: str) -> None:
    create(empty)
    publish(empty, machineType="pc-q35-7.2")

    outcome = edit(empty, spec=change)

    assert outcome.code != 0
    assert message in outcome.errors


def test_other_fields_may_change_after_the_first_start(empty: Kubectl) -> None:
    create(empty, nodeName="node-a")
    publish(empty, machineType="pc-q35-7.2", nodeName="node-a")

    assert edit(empty, spec={"memory": {"size": "1Gi"}, "paused": True, "pci": {"hotplugPorts": 8}}).code == 0


def test_what_is_changed_while_a_guest_runs_may_change_after_the_first_start(empty: Kubectl) -> None:
    drive = {"name": "cd", "bus": "SATA", "cdrom": True, "readOnly": True}
    lan = {"name": "lan", "bridge": {"name": "br0"}}
    create(empty, cpu={"maxCount": 4}, memory={"maxSize": "2Gi"}, disks=[drive], networks=[lan])
    publish(empty, machineType="pc-q35-7.2")

    loaded = {**drive, "source": {"file": {"pool": "default", "image": "a.iso", "format": "Raw"}}}
    throttle = {"iops": 100, "iopsBurst": 100, "bandwidth": "1M", "bandwidthBurst": "1000k"}
    change = {
        "cpu": {"count": 4},
        "memory": {"size": "2Gi"},
        "disks": [{**loaded, "throttle": throttle}],
        "networks": [{**lan, "linkUp": False, "bandwidth": {"outbound": "10M"}}],
    }
    assert edit(empty, spec=change).code == 0
    assert edit(empty, spec={"disks": [drive], "networks": []}).code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cpu": {"count": 5}}, "spec.cpu.maxCount: Invalid value: maxCount must be at least count"),
        ({"cpu": {"maxCount": 1}}, "spec.cpu.maxCount: Invalid value: maxCount must be at least count"),
        ({"memory": {"size": "2049Mi"}}, "maxSize 2Gi is less than size 2049Mi: raise it, or remove it"),
    ],
)
def test_nothing_grows_beyond_the_most_that_was_named(empty: Kubectl, change: dict[str, Any], message: str) -> None:
    create(empty, cpu={"count": 2, "maxCount": 4}, memory={"size": "1Gi", "maxSize": "2Gi"})

    outcome = edit(empty, spec=change)

    assert outcome.code != 0
    assert message in outcome.errors


def test_a_placed_guest_takes_only_the_name_of_its_node(empty: Kubectl) -> None:
    create(empty)
    publish(empty, nodeName="node-a")

    outcome = edit(empty, spec={"nodeName": "node-b"})
    assert outcome.code != 0
    assert "the guest is on node-a already: remove nodeName, or set it to that" in outcome.errors
    assert edit(empty, spec={"nodeName": "node-a"}).code == 0


def test_a_guest_without_a_node_takes_any(empty: Kubectl) -> None:
    create(empty)

    assert edit(empty, spec={"nodeName": "node-b"}).code == 0


def test_the_program_may_move_a_guest_that_names_its_first_node(empty: Kubectl) -> None:
    create(empty, nodeName="node-a")
    publish(empty, nodeName="node-a", machineType="pc-q35-7.2")
    publish(empty, nodeName="node-b")

    assert edit(empty, spec={"paused": True}).code == 0


def test_status_writes_are_bounded(empty: Kubectl) -> None:
    create(empty)

    outcome = edit(empty, "--subresource=status", status={"machineType": "x" * 1000})
    assert "status.machineType: Too long" in outcome.errors


def test_thirty_disks_and_eight_networks_are_taken_and_no_more(empty: Kubectl) -> None:
    disks = [
        {"name": f"d{n}", "source": {"file": {"pool": "default", "image": f"d{n}"}}, "size": "1Mi"} for n in range(31)
    ]
    networks = [{"name": f"n{n}", "isolated": {}} for n in range(9)]
    create(empty, disks=disks[:30], networks=networks[:8])

    assert "spec.disks: Too many: 31: must have at most 30 items" in edit(empty, spec={"disks": disks}).errors
    assert "spec.networks: Too many: 9: must have at most 8 items" in edit(empty, spec={"networks": networks}).errors

"""Every manifest of tests/e2e/bad is refused or stalls as its first line says; nothing of it runs or is created."""

import json
from collections.abc import Mapping
from typing import cast

import pytest
import yaml

from e2e.api.bad_manifests import BadManifest, bad_manifests
from e2e.life.witness import qemus_of
from e2e.refusals.conftest import POOR_NODE
from e2e.stage import Guest, Stage
from sandbox.cluster import Sandbox
from sandbox.kubectl import Object
from sandbox.nodes import Node

REFUSED = [manifest for manifest in bad_manifests() if manifest.refused]
STALLED = [manifest for manifest in bad_manifests() if not manifest.refused]
# The controller finds out before there is a node.
PLACED_NOWHERE = ("NoSuchNode", "InsufficientMemory")
# Three starts in a row with the pauses between them.
LONGEST_S = 60


def named(document: str) -> str:
    return str(yaml.safe_load(document)["metadata"]["name"])


def placed(document: str, node: str) -> str:
    """The document with a node of the test's choice, as the setup it asks for is one node's."""
    body = yaml.safe_load(document)
    body["spec"].setdefault("nodeName", node)
    return json.dumps(body)


def images(cluster: Sandbox) -> Mapping[str, frozenset[str]]:
    """The files in each pool of each node."""
    pools = [pool for node in cluster.nodes() for pool in (node.folder / "pools").iterdir()]
    return {str(pool): frozenset(file.name for file in pool.iterdir()) for pool in pools}


@pytest.mark.parametrize("manifest", REFUSED, ids=lambda manifest: manifest.name)
def test_the_api_server_refuses_it_with_its_message(yard: Stage, manifest: BadManifest) -> None:
    *before, bad = manifest.in_namespace(yard.namespace)
    for document in before:
        assert yard.apply(document).code == 0

    outcome = yard.apply(bad)

    assert outcome.code != 0
    assert manifest.fragment in outcome.errors
    if not before:
        assert (
            yard.sandbox.kubectl.list("vg", "-n", yard.namespace, f"--field-selector=metadata.name={named(bad)}") == ()
        )


@pytest.fixture(scope="module")
def images_before(cluster: Sandbox, poor_node: Node) -> Mapping[str, frozenset[str]]:
    """What was in the pools before the first bad manifest came."""
    outside = poor_node.folder / "outside.img"
    outside.write_bytes(bytes(1024 * 1024))
    (poor_node.pool() / "link-out.img").symlink_to(outside)
    return images(cluster)


@pytest.fixture(scope="module")
def stalled(yard: Stage, images_before: Mapping[str, frozenset[str]]) -> Mapping[str, Guest]:
    """The guests of all manifests that stall, by the manifest's name; all were applied at once."""
    guests = {}
    for manifest in STALLED:
        *before, bad = manifest.in_namespace(yard.namespace)
        node = POOR_NODE if manifest.setup else "node-a"
        for document in before:
            assert yard.apply(placed(document, node)).code == 0
            yard.named(named(document)).wait()
        outcome = yard.apply(bad if manifest.reason in PLACED_NOWHERE else placed(bad, node))
        assert outcome.code == 0, outcome.errors
        guests[manifest.name] = yard.named(named(bad))
    return guests


@pytest.mark.parametrize("manifest", STALLED, ids=lambda manifest: manifest.name)
def test_it_stalls_with_its_reason(stalled: Mapping[str, Guest], manifest: BadManifest) -> None:
    guest = stalled[manifest.name]

    guest.wait_for_reason("Stalled", str(manifest.reason), timeout_s=LONGEST_S)
    guest.wait("Stalled", timeout_s=LONGEST_S)

    told = guest.condition("Stalled")
    assert told["reason"] == manifest.reason
    assert manifest.fragment in told["message"]
    assert guest.condition("Ready")["status"] == "False"
    assert guest.condition("Ready")["message"] == told["message"]
    uuid = guest.field(".status.uuid")
    assert uuid == "" or qemus_of(uuid) == ()


def test_nothing_was_created_for_them(
    stalled: Mapping[str, Guest], cluster: Sandbox, images_before: Mapping[str, frozenset[str]]
) -> None:
    for guest in stalled.values():
        guest.wait("Stalled", timeout_s=LONGEST_S)

    made = {(pool, name) for pool, files in images(cluster).items() for name in files - images_before.get(pool, files)}

    # The one image of the guest that another one wanted to have, too.
    assert {name for _, name in made} <= {"bad-shared.qcow2"}
    running = [line for guest in stalled.values() for line in qemus_of(guest.field(".status.uuid") or "none")]
    assert running == []
    assert {cast(Object, each["metadata"])["name"] for each in cluster.kubectl.list("vg", "-n", guest.namespace)} >= {
        guest.name for guest in stalled.values()
    }

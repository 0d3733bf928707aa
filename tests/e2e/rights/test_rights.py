"""Controller and agents have exactly the rights that they use: seen in the API server's log of the whole session.

A story that uses every right is told first, on a node of its own, so that these tests also stand alone.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.life.witness import TINY
from e2e.rights.roles import Right, read_manifests, rights_of
from e2e.stage import Stage, eventually
from sandbox.audit import Request, read_audit_log, service_account_user
from sandbox.cluster import AGENT_ACCOUNT, CONTROLLER_ACCOUNT, REPOSITORY, SYSTEM_NAMESPACE
from sandbox.qemu import QemuBuild

NODE = "node-rights"
GHOST = "node-ghost"
STALE_S = 15
BASE = REPOSITORY / "manifests" / "base"
KUBELETLESS = REPOSITORY / "manifests" / "kubeletless"
# Every user may ask who he is; the sandbox asks it as the agent, to see whether a token still works.
EVERYBODY = "authentication.k8s.io"


@pytest.fixture
def hasty_controller(stage: Stage) -> Iterator[None]:
    """A controller that misses an agent sooner; afterwards as before."""
    stage.sandbox.start_controller(settings={"leaseStaleSeconds": STALE_S})
    yield
    stage.sandbox.start_controller()


@pytest.fixture
def own_node(stage: Stage, qemu: QemuBuild) -> Iterator[str]:
    """A third node, which the story may lose."""
    sandbox = stage.sandbox
    sandbox.register(NODE)
    sandbox.prepare_node(NODE, qemu).agent.start()
    sandbox.wait_for_nodes(NODE)
    yield NODE
    sandbox.node(NODE).agent.stop()
    sandbox.kubectl("delete", "node", NODE, GHOST, "--ignore-not-found")


def granted(account: str) -> frozenset[Right]:
    files = sorted([*BASE.glob("*rbac.yaml"), *KUBELETLESS.glob("*rbac.yaml")])
    return rights_of(account, read_manifests(*files))


def requests_of(log: Path, account: str) -> tuple[Request, ...]:
    """What the program asked for with this account; not what the sandbox asked with it."""
    user = service_account_user(SYSTEM_NAMESPACE, account)
    return tuple(each for each in read_audit_log(log, user=user) if each.group != EVERYBODY)


@pytest.mark.usefixtures("hasty_controller")
def test_every_right_is_used_and_nothing_else_was_asked_for(stage: Stage, own_node: str, audit_log: Path) -> None:
    tell_a_story_that_uses_every_right(stage, own_node)

    for account in (CONTROLLER_ACCOUNT, AGENT_ACCOUNT):
        rights = granted(account)
        assert rights, f"{account} has no rights"

        def unused(rights: frozenset[Right] = rights, account: str = account) -> set[str]:
            done = [each for each in requests_of(audit_log, account) if each.code < 300]
            return {str(right) for right in rights if not any(right.covers(each) for each in done)}

        eventually(lambda: not unused(), timeout_s=5, what=f"a use of what {account} may: {sorted(unused())}")
        requests = requests_of(audit_log, account)
        # A server that has just started refuses for a moment what its roles allow: that is not asking for too much.
        refused = {
            each.right
            for each in requests
            if (not each.allowed or each.code == 403) and not any(right.covers(each) for right in rights)
        }
        assert refused == set(), f"{account} was refused what it asked for"
        beyond = {each.right for each in requests if not any(right.covers(each) for right in rights)}
        assert beyond == set(), f"{account} uses rights that another role gives it"


def tell_a_story_that_uses_every_right(stage: Stage, node: str) -> None:
    """Placing, running, repeating, losing: what the two programs have rights for."""
    homeless = stage.guest("homeless", {**TINY, "nodeName": GHOST}, boot=False)
    guest = stage.guest("guest", {**TINY, "nodeName": node}, boot=False)
    # A label that somebody took off is the agent's to put back.
    stage.sandbox.kubectl("label", "node", node, "kubernetes.io/os-")
    homeless.wait_for_reason("Stalled", "NoSuchNode")

    # The same Node there and away again: the same Event once more, for the controller.
    found = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": GHOST}}
    stage.sandbox.kubectl("create", "-f", "-", stdin=json.dumps(found))
    guest.wait()
    # Leases that are there already are read first.
    stage.stop_agent(node)
    stage.start_agent(node)
    for _ in range(2):  # and the same Event once more for the agent
        guest.edit({"paused": True})
        guest.wait("Paused")
        guest.edit({"paused": False})
        guest.wait()
    eventually(lambda: homeless.condition("Ready").get("reason") != "NoSuchNode", timeout_s=60, what="news of the Node")
    stage.sandbox.kubectl("delete", "node", GHOST)
    homeless.wait_for_reason("Ready", "NoSuchNode")
    eventually(lambda: "linux" in os_label(stage, node), timeout_s=30, what="the label that the agent puts back")

    # Lost for good: once the Node is said to be out of service, the controller takes the finalizer off.
    stage.kill_agent(node)
    guest.wait_for(".status.phase", "Unknown", timeout_s=120)
    guest.delete(wait=False)
    stage.sandbox.kubectl("taint", "node", node, "node.kubernetes.io/out-of-service=yes:NoExecute")
    guest.wait_until_gone(timeout_s=120)


def os_label(stage: Stage, node: str) -> str:
    return stage.sandbox.kubectl("get", "node", node, "-o", "jsonpath={.metadata.labels.kubernetes\\.io/os}")

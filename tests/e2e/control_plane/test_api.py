"""The control plane does what the operator and its users need of a cluster, though it has no kubelet."""

import contextlib
import http.client
import json
import ssl
from pathlib import Path

import pytest

from e2e.control_plane.cluster import Cluster, eventually
from sandbox.audit import read_audit_log, service_account_user
from sandbox.errors import SandboxError
from sandbox.kubeconfigs import service_account_kubeconfig
from sandbox.ports import remembered_ports

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def node(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def make_ready(cluster: Cluster, name: str) -> None:
    resources = {"cpu": "4", "memory": "8Gi", "pods": "10"}
    status = {
        "capacity": resources,
        "allocatable": resources,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "by hand"}],
    }
    patch = json.dumps({"status": status})
    cluster.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)


def test_client_and_server_say_the_version_they_were_built_from(cluster: Cluster) -> None:
    versions = json.loads(cluster.kubectl("version", "-o", "json"))
    assert versions["clientVersion"]["gitVersion"] == versions["serverVersion"]["gitVersion"] == "v1.36.3"
    assert (versions["serverVersion"]["major"], versions["serverVersion"]["minor"]) == ("1", "36")


def test_a_namespace_gets_its_service_account_and_can_be_deleted(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", "short-lived")
    eventually(lambda: cluster.exists("serviceaccount", "default", "-n", "short-lived"))
    eventually(lambda: cluster.exists("configmap", "kube-root-ca.crt", "-n", "short-lived"))
    cluster.kubectl("delete", "namespace", "short-lived", "--timeout=30s")
    assert not cluster.exists("namespace", "short-lived")


def test_a_pod_is_bound_to_a_node_that_was_registered_by_hand(cluster: Cluster) -> None:
    cluster.apply(node("with-room"))
    make_ready(cluster, "with-room")
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "bound", "namespace": "default"},
            "spec": {"containers": [container], "tolerations": [{"operator": "Exists"}]},
        }
    )
    eventually(lambda: cluster.kubectl("get", "pod", "bound", "-o", "jsonpath={.spec.nodeName}") == "with-room")
    cluster.kubectl("delete", "pod", "bound", "--force", "--grace-period=0")
    cluster.kubectl("delete", "node", "with-room")


def test_what_is_owned_goes_with_its_owner(cluster: Cluster) -> None:
    cluster.kubectl("create", "configmap", "owner")
    uid = cluster.kubectl("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    metadata = {"name": "owned", "namespace": "default", "ownerReferences": [owner]}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    cluster.kubectl("delete", "configmap", "owner")
    eventually(lambda: not cluster.exists("configmap", "owned"))


def test_a_role_labelled_for_it_is_added_to_the_viewers_role(cluster: Cluster) -> None:
    label = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    cluster.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "view-guests", "labels": label},
            "rules": [{"apiGroups": ["guests.example"], "resources": ["guests"], "verbs": ["get"]}],
        }
    )
    eventually(lambda: "guests.example" in cluster.kubectl("get", "clusterrole", "view", "-o", "yaml"))


def test_a_service_account_has_its_rights_and_no_others(cluster: Cluster, tmp_path: Path) -> None:
    cluster.kubectl("create", "namespace", "rights")
    cluster.kubectl("create", "serviceaccount", "agent", "-n", "rights")
    cluster.kubectl("create", "clusterrole", "reads-nodes", "--verb=list", "--resource=nodes")
    cluster.kubectl("create", "clusterrolebinding", "x", "--clusterrole=reads-nodes", "--serviceaccount=rights:agent")
    kubeconfig = tmp_path / "agent.kubeconfig"
    service_account_kubeconfig(cluster.control_plane.kubeconfig, "rights", "agent", out=kubeconfig)

    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    cluster.kubectl("get", "nodes", kubeconfig=kubeconfig)
    refused = cluster.run_kubectl("get", "secrets", kubeconfig=kubeconfig)
    assert "Forbidden" in refused.stderr

    requests = read_audit_log(cluster.audit_log, user=service_account_user("rights", "agent"))
    assert {(request.right, request.allowed) for request in requests} == {
        (("", "nodes", "list"), True),
        (("", "secrets", "list"), False),
    }


def test_a_token_can_be_bound_to_a_node(cluster: Cluster, tmp_path: Path) -> None:
    cluster.apply(node("bound-to"))
    kubeconfig = tmp_path / "agent.kubeconfig"
    admin = cluster.control_plane.kubeconfig
    eventually(lambda: cluster.exists("serviceaccount", "default"))
    service_account_kubeconfig(admin, "default", "default", out=kubeconfig, node="bound-to")
    review = json.loads(cluster.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig))
    assert review["status"]["userInfo"]["extra"]["authentication.kubernetes.io/node-name"] == ["bound-to"]
    cluster.kubectl("delete", "node", "bound-to")


@pytest.mark.parametrize(("account", "bound_to", "message"), [("nobody", None, "nobody"), ("default", "gone", "gone")])
def test_no_token_is_made_for_what_does_not_exist(
    cluster: Cluster, tmp_path: Path, account: str, bound_to: str | None, message: str
) -> None:
    eventually(lambda: cluster.exists("serviceaccount", "default"))
    admin, out = cluster.control_plane.kubeconfig, tmp_path / "kubeconfig"
    with pytest.raises(SandboxError, match=message):
        service_account_kubeconfig(admin, "default", account, out=out, node=bound_to)
    assert not out.exists()


def health_of_etcd(root: Path) -> int:
    port = remembered_ports(root / "control-plane" / "ports.json")["etcd"]
    context = ssl.create_default_context(cafile=str(root / "control-plane" / "pki" / "ca.crt"))
    stranger = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    with contextlib.closing(stranger):
        stranger.request("GET", "/health")
        return stranger.getresponse().status


def test_etcd_speaks_to_nobody_without_a_certificate(cluster: Cluster) -> None:
    with pytest.raises(ssl.SSLError, match="certificate required"):
        health_of_etcd(cluster.control_plane.root)


def test_the_administrators_key_is_only_the_owners(cluster: Cluster) -> None:
    assert cluster.control_plane.kubeconfig.stat().st_mode & 0o777 == 0o600

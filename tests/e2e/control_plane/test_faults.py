"""Real clients of the real API server, through the fault proxy."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.control_plane.cluster import Cluster, eventually
from sandbox.components import pki_directory
from sandbox.fault_proxy import FaultProxy, Respond, Rule
from sandbox.kubeconfigs import service_account_kubeconfig

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[FaultProxy]:
    with FaultProxy(cluster.control_plane.server, pki_directory(cluster.control_plane.root)) as value:
        yield value


@pytest.fixture
def kubeconfig(cluster: Cluster, proxy: FaultProxy, tmp_path: Path) -> Path:
    eventually(lambda: cluster.exists("serviceaccount", "default"))
    cluster.run_kubectl(
        "create", "clusterrolebinding", "views", "--clusterrole=view", "--serviceaccount=default:default"
    )
    out = tmp_path / "kubeconfig"
    admin = cluster.control_plane.kubeconfig
    service_account_kubeconfig(admin, "default", "default", out=out, server=proxy.url)
    return out


def test_a_service_account_is_known_through_the_proxy(cluster: Cluster, proxy: FaultProxy, kubeconfig: Path) -> None:
    assert "system:serviceaccount:default:default" in cluster.kubectl("auth", "whoami", kubeconfig=kubeconfig)
    assert proxy.seen[-1].method == "POST"
    assert proxy.seen[-1].user_agent.startswith("kubectl/v1.36")


def test_a_client_of_kubernetes_waits_as_a_429_tells_it(cluster: Cluster, proxy: FaultProxy, kubeconfig: Path) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    proxy.add(Rule(fault=Respond(status=429, retry_after_s=1), path=path, times=2))
    cluster.kubectl("get", "configmaps", kubeconfig=kubeconfig)
    times = [seen.at_s for seen in proxy.seen if path in seen.path]
    assert len(times) == 3
    assert times[2] - times[0] >= 2


def test_a_client_of_kubernetes_is_told_of_an_error_as_the_api_server_would(
    cluster: Cluster, proxy: FaultProxy, kubeconfig: Path
) -> None:
    proxy.add(Rule(fault=Respond(status=409), methods=("GET",), path="configmaps"))
    assert (
        "(Conflict): a fault made by the test" in cluster.run_kubectl("get", "configmaps", kubeconfig=kubeconfig).stderr
    )


def test_what_happens_while_a_watch_is_held_is_heard_later(
    cluster: Cluster, proxy: FaultProxy, kubeconfig: Path
) -> None:
    command = [
        str(cluster.control_plane.kubectl),
        f"--kubeconfig={kubeconfig}",
        "get",
        "configmaps",
        "--watch-only",
        "-oname",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as watcher:
        assert watcher.stdout is not None
        eventually(lambda: any(seen.is_watch for seen in proxy.seen))
        proxy.hold_watches()
        cluster.kubectl("create", "configmap", "unheard")
        proxy.release_watches()
        assert watcher.stdout.readline() == "configmap/unheard\n"
        proxy.cut_watches()
        assert watcher.wait(10) is not None

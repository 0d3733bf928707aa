"""Starting, repairing, restoring and stopping a control plane, from any process, beside another one."""

import multiprocessing
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.control_plane.cluster import Cluster, eventually
from sandbox.assets import Assets
from sandbox.components import COMPONENTS
from sandbox.control_plane import ControlPlane
from sandbox.errors import SandboxError
from sandbox.kubeconfigs import server_of, service_account_kubeconfig
from sandbox.ports import is_free
from sandbox.snapshot import back_up, restore

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

NewCluster = Callable[[str], Cluster]


def test_a_second_start_changes_nothing(cluster: Cluster) -> None:
    before = cluster.pids
    cluster.control_plane.start()
    assert cluster.pids == before
    assert None not in before.values()


@pytest.mark.parametrize("name", [name for name, _ in COMPONENTS])
def test_a_start_repairs_what_died_and_nothing_else(cluster: Cluster, name: str) -> None:
    # A controller manager that is still starting ends when it loses the API server: wait until it works.
    eventually(lambda: cluster.exists("serviceaccount", "default") and cluster.exists("configmap", "kube-root-ca.crt"))
    cluster.kubectl("create", "configmap", f"kept-{name}")
    before = cluster.pids
    cluster.control_plane.kill(name)
    survivors = cluster.pids
    assert survivors == {**before, name: None}
    cluster.control_plane.start()
    after = cluster.pids
    assert {**after, name: None} == survivors
    assert after[name] not in (None, before[name])
    assert cluster.exists("configmap", f"kept-{name}")


def test_two_starts_at_once_start_each_program_once(new_cluster: NewCluster) -> None:
    cluster = new_cluster("twice")
    cluster.control_plane.stop()
    starters = [multiprocessing.get_context("fork").Process(target=cluster.control_plane.start) for _ in range(2)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(60)
    assert [starter.exitcode for starter in starters] == [0, 0]
    assert len(cluster.processes_left()) == len(COMPONENTS)


def test_two_roots_live_side_by_side_and_stopping_one_leaves_the_other(new_cluster: NewCluster) -> None:
    one, other = new_cluster("one"), new_cluster("other")
    one.kubectl("create", "configmap", "mine")
    assert not other.exists("configmap", "mine")
    one.control_plane.stop()
    assert one.processes_left() == []
    assert other.control_plane.status().ready


def test_after_a_stop_nothing_runs_and_the_data_is_kept(new_cluster: NewCluster) -> None:
    cluster = new_cluster("stopped")
    cluster.kubectl("create", "configmap", "kept")
    server = cluster.control_plane.server
    cluster.control_plane.stop()
    assert cluster.processes_left() == []
    assert is_free(int(server.rpartition(":")[2]))
    assert not cluster.control_plane.status().ready
    assert list((cluster.control_plane.root / "run").glob("*.pid")) == []

    cluster.control_plane.start()
    assert cluster.control_plane.server == server
    assert cluster.exists("configmap", "kept")


def test_a_stop_does_not_wait_for_open_watches(new_cluster: NewCluster) -> None:
    cluster = new_cluster("watched")
    cluster.kubectl("create", "configmap", "seen")
    command = [str(cluster.control_plane.kubectl), f"--kubeconfig={cluster.control_plane.kubeconfig}"]
    with subprocess.Popen(
        [*command, "get", "configmaps", "seen", "--watch"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()
        started = time.monotonic()
        cluster.control_plane.stop()
        assert time.monotonic() - started < 10
        watcher.terminate()


def test_a_taken_port_is_replaced_and_tokens_stay_valid(new_cluster: NewCluster, tmp_path: Path) -> None:
    cluster = new_cluster("moved")
    kubeconfig = tmp_path / "token.kubeconfig"
    eventually(lambda: cluster.exists("serviceaccount", "default"))
    service_account_kubeconfig(cluster.control_plane.kubeconfig, "default", "default", out=kubeconfig)
    old = cluster.control_plane.server
    cluster.control_plane.stop()
    with socket.create_server(("127.0.0.1", int(old.rpartition(":")[2]))):
        cluster.control_plane.start()
    new = cluster.control_plane.server
    assert new != old
    assert cluster.said == [
        f"port {old.rpartition(':')[2]} of kube-apiserver is taken by another program: "
        f"{new.rpartition(':')[2]} from now on"
    ]
    assert server_of(cluster.control_plane.kubeconfig) == new
    cluster.kubectl("auth", "whoami", f"--server={new}", kubeconfig=kubeconfig)


def test_a_restored_snapshot_knows_nothing_of_what_came_later(new_cluster: NewCluster, tmp_path: Path) -> None:
    cluster = new_cluster("restored")
    server = cluster.control_plane.server
    cluster.kubectl("create", "configmap", "before")
    back_up(cluster.control_plane, tmp_path / "snapshot")
    cluster.kubectl("create", "configmap", "after")
    restore(cluster.control_plane, tmp_path / "snapshot")
    assert cluster.exists("configmap", "before")
    assert not cluster.exists("configmap", "after")
    assert cluster.control_plane.server == server


def test_a_program_that_ends_at_once_is_reported_with_its_log(assets: Assets, tmp_path: Path) -> None:
    control_plane = ControlPlane(tmp_path, assets)
    etcd_data = tmp_path / "control-plane" / "etcd"
    etcd_data.mkdir(parents=True)
    (etcd_data / "member").write_text("no folder")
    try:
        with pytest.raises(SandboxError, match=r"etcd ended at once:[^\0]*cannot access member directory"):
            control_plane.start()
    finally:
        control_plane.stop()


def test_a_restore_from_nothing_is_refused_while_all_runs_on(cluster: Cluster, tmp_path: Path) -> None:
    before = cluster.pids
    with pytest.raises(SandboxError, match="holds no data of etcd"):
        restore(cluster.control_plane, tmp_path / "absent")
    assert cluster.pids == before

"""hack/up and hack/down as a newcomer runs them: two commands, what they show, what they repair, what they leave."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cluster import REPOSITORY, Sandbox
from sandbox.leftovers import running_guests, taps_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

WARM_S = 20


def hack(command: str, *arguments: str) -> str:
    run = subprocess.run(
        [REPOSITORY / "hack" / command, *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def up(short_folder: Path) -> Iterator[tuple[Sandbox, str]]:
    """A root of its own, brought up, and what hack/up printed."""
    root = short_folder / "up"
    try:
        yield Sandbox(root), hack("up", "--root", str(root))
    finally:
        hack("down", "--root", str(root), "--purge")


def is_alive(pid: int) -> bool:
    """Whether the process lives; one that only waits for init to take notice of its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids(sandbox: Sandbox) -> dict[str, int | None]:
    components = {component.name: component.pid for component in sandbox.control_plane.status().components}
    agents = {node.name: node.agent.pid for node in sandbox.nodes()}
    guests = {file.parent.name: pid for file, pid in running_guests(sandbox.root.nodes).items()}
    return {**components, **agents, "controller": sandbox.controller.pid, **guests}


def test_one_command_shows_a_guest_that_is_ready_with_its_pci_addresses(up: tuple[Sandbox, str]) -> None:
    sandbox, shown = up
    demo = sandbox.kubectl.get("virtualguest", "demo", namespace="default")

    assert demo is not None
    devices = json.loads(json.dumps(demo))["status"]["pci"]["devices"]
    assert devices
    for device in devices:
        line = next(line for line in shown.splitlines() if line.strip().startswith(f"{device['name']} "))
        assert device["guestAddress"] in line
    assert re.search(r"demo\s+Running\s+True", shown), shown
    assert f"KUBECONFIG={sandbox.root.kubeconfig}" in shown


def test_everything_lies_under_the_root(up: tuple[Sandbox, str]) -> None:
    sandbox, _ = up
    root = sandbox.root

    assert root.kubeconfig.stat().st_mode & 0o077 == 0
    assert os.access(root.kubectl, os.X_OK)
    assert root.node_names() == ("node-a", "node-b")
    for node in sandbox.nodes():
        assert {"state", "run", "pools", "node.yaml"} <= {path.name for path in node.folder.iterdir()}
        assert (node.pool() / ".guestlet-pool").is_file()
        assert node.kubeconfig.stat().st_mode & 0o077 == 0
        assert node.agent.log_file.is_file()


def test_nodes_look_as_a_kubelet_would_register_them(up: tuple[Sandbox, str]) -> None:
    nodes = up[0].kubectl.list("nodes", "--selector=kubernetes.io/os=linux")
    described = json.loads(json.dumps({"items": nodes}))["items"]

    assert [node["metadata"]["labels"]["kubernetes.io/hostname"] for node in described] == ["node-a", "node-b"]
    for node in described:
        assert int(node["status"]["allocatable"]["cpu"]) == len(os.sched_getaffinity(0))
        assert {address["type"] for address in node["status"]["addresses"]} == {"InternalIP", "Hostname"}
        assert {"type": "Ready", "status": "True"}.items() <= next(
            condition for condition in node["status"]["conditions"] if condition["type"] == "Ready"
        ).items()


def test_a_second_call_is_quick_and_changes_nothing(up: tuple[Sandbox, str]) -> None:
    sandbox, _ = up
    before = pids(sandbox)
    begin = time.monotonic()
    hack("up", "--root", str(sandbox.root.path))

    assert time.monotonic() - begin < WARM_S
    assert pids(sandbox) == before
    assert None not in before.values()


def test_a_second_call_repairs_what_died_and_no_guest_notices(up: tuple[Sandbox, str]) -> None:
    sandbox, _ = up
    before = pids(sandbox)
    dead = ["node-a", "controller", "kube-apiserver", "kube-controller-manager"]
    for name in dead:
        os.kill(before[name] or 0, signal.SIGKILL)
    hack("up", "--root", str(sandbox.root.path))
    after = pids(sandbox)

    assert {name for name in after if after[name] != before[name]} == set(dead)
    assert None not in after.values()


def test_a_root_beside_it_is_no_trouble_and_down_leaves_nothing(up: tuple[Sandbox, str], short_folder: Path) -> None:
    first, _ = up
    before = pids(first)
    other = Sandbox(short_folder / "other")
    hack("up", "--root", str(other.root.path), "--nodes", "1")
    started = [pid for pid in pids(other).values() if pid is not None]
    elsewhere = other.root.runtime("node-a")
    hack("down", "--root", str(other.root.path))

    assert [pid for pid in started if is_alive(pid)] == []
    assert other.leftovers() == {}
    assert taps_of(other.root.nodes) == ()
    assert str(other.root.path) not in Path("/proc/self/mounts").read_text()
    assert [entry for entry in elsewhere.rglob("*") if entry.is_socket() and entry.name != "launcher.sock"] == []
    assert (other.root.path / "nodes").exists(), "without --purge what was kept stays"

    hack("down", "--root", str(other.root.path), "--purge")
    assert not other.root.path.exists()
    assert not elsewhere.exists()
    assert pids(first) == before


def test_down_where_nothing_is_up_is_no_error(short_folder: Path) -> None:
    assert "nothing there" in hack("down", "--root", str(short_folder / "never"))


def test_an_existing_cluster_gets_controller_and_agents_and_keeps_everything_else(short_folder: Path) -> None:
    theirs = Sandbox(short_folder / "theirs")
    root = short_folder / "guest"
    try:
        theirs.start_cluster()
        before = theirs.control_plane.status()
        shown = hack("up", "--root", str(root), "--kubeconfig", str(theirs.root.kubeconfig), "--nodes", "1")
        assert re.search(r"demo\s+Running\s+True", shown), shown
        assert not (root / "run" / "etcd.pid").exists()

        hack("down", "--root", str(root), "--purge")
        assert theirs.control_plane.status() == before
        assert theirs.kubectl.list("nodes") == ()
        assert theirs.kubectl.get("virtualguest", "demo", namespace="default") is not None
    finally:
        hack("down", "--root", str(root), "--purge")
        hack("down", "--root", str(theirs.root.path), "--purge")

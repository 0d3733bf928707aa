"""QEMUs that were started by hand become guests of a node, each of the shapes, and none of them notices."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from guestlet.api.guest import parse_guest
from guestlet.cli.adopt import adopt
from guestlet.guest.manifest import spec_of
from guestlet.guest.record import RECORD_FILE, Record, parse_record
from guestlet.guest.source import waiting_fields
from guestlet.host.images import init_pool
from sandbox.qemu import QemuBuild, ensure_qemu, ensure_system_qemu, link_build
from unit.qemu.shapes.by_hand import by_hand
from unit.qemu.shapes.command_lines import FUNCTIONS_Q35, PLAIN_PC, PROXMOX, SHAPES, Shape

pytestmark = [pytest.mark.qemu, pytest.mark.slow]
DEADLINE_S = 30
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes taps and reads other users' processes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of this machine, its settings file, and where QEMUs started by hand have their files."""

    build: QemuBuild
    settings: Path
    state: Path
    folder: Path

    def adopt(self, pid: int, *options: str, name: str = "lab/web") -> Result:
        return CliRunner().invoke(
            adopt, ["--pid", str(pid), "--name", name, "--config", str(self.settings), *options], prog_name="adopt"
        )

    def records(self) -> tuple[Record, ...]:
        paths = sorted((self.state / "guests").glob(f"*/{RECORD_FILE}"))
        return tuple(parse_record(each.read_bytes()) for each in paths)


@pytest.fixture(scope="module", params=["system", "10"])
def build(request: pytest.FixtureRequest) -> Iterator[QemuBuild]:
    if request.param == "system":
        yield ensure_system_qemu()
        return
    folder = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
    folder.chmod(0o755)
    yield link_build(ensure_qemu(10), folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def learned(build: QemuBuild) -> Iterator[Path]:
    """What a node learns of its QEMU once: kept, so that each test does not learn it again."""
    folder = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def node(build: QemuBuild, learned: Path) -> Iterator[Node]:
    folder = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
    for each in ("pool", "run"):
        (folder / each).mkdir()
    init_pool(folder / "pool")
    shutil.copytree(learned, folder / "state")
    settings = {
        "nodeName": "node-a",
        "stateDir": str(folder / "state"),
        "runtimeDir": str(folder / "r"),
        "pools": [{"name": "default", "path": str(folder / "pool")}],
        "qemuBinary": str(build.binary),
        "qemuDataDirs": [str(each) for each in build.data_dirs],
        **({"qemuModuleDir": str(build.module_dir)} if build.module_dir else {}),
    }
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))
    yield Node(build=build, settings=folder / "node.yaml", state=folder / "state", folder=folder)
    for fact in (folder / "state").glob("*.json"):
        shutil.copy(fact, learned)
    shutil.rmtree(folder)


def monitored(node: Node, shape: Shape) -> Path:
    """The shape's QMP socket, once it greets."""
    names = {"monitor.sock", "101.qmp", "qmp.sock", "qmp"}
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for path in sorted(node.folder.glob("run/*")):
            if path.name in names and greets(path):
                return path
        time.sleep(0.02)
    raise AssertionError(f"{shape.name} did not open its monitor")


def greets(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        try:
            client.connect(str(path))
        except OSError:
            return False
        return b"QMP" in client.recv(4096)


def manifest(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found = yaml.safe_load(result.stdout)
    assert isinstance(found, dict)
    return found


@as_root
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_qemu_of_each_shape_becomes_a_guest_and_runs_on(node: Node, shape: Shape) -> None:
    with by_hand(shape, node.build, folder=node.folder) as qemu:
        monitored(node, shape)

        told = manifest(node.adopt(qemu.pid, "--dry-run"))
        assert node.records() == ()
        done = manifest(node.adopt(qemu.pid))

        assert qemu.poll() is None
    (record,) = node.records()
    wire = parse_guest({**done, "metadata": {**done["metadata"], "uid": "u"}})
    assert told == done
    assert record.machine is not None
    assert record.run is not None
    assert record.run.identity is not None
    assert (record.run.identity.pid, record.run.foreign) == (qemu.pid, True)
    assert (record.namespace, record.name, record.object_uid) == ("lab", "web", "")
    assert waiting_fields(wire.spec, record.source) == ()
    assert spec_of(record.machine).disks == wire.spec.disks
    assert (node.folder / "r" / record.uuid / "qmp").is_symlink()


@as_root
def test_what_is_not_certain_stands_in_comments(node: Node) -> None:
    with by_hand(PLAIN_PC, node.build, folder=node.folder) as qemu:
        monitored(node, PLAIN_PC)

        told = node.adopt(qemu.pid, "--dry-run")

    comments = [line for line in told.stdout.splitlines() if line.startswith("# ")]
    assert any("IDE controller" in line for line in comments)
    assert any("was given no UUID" in line for line in comments)
    assert "nothing was changed" in told.stderr


@as_root
def test_a_disk_outside_every_pool_is_refused_unless_it_is_left_alone(node: Node) -> None:
    node.settings.write_text(node.settings.read_text().replace(str(node.folder / "pool"), str(node.folder / "run")))
    with by_hand(FUNCTIONS_Q35, node.build, folder=node.folder) as qemu:
        monitored(node, FUNCTIONS_Q35)

        refused = node.adopt(qemu.pid)
        partial = manifest(node.adopt(qemu.pid, "--partial"))

    assert "first.qcow2: in no pool of this node" in refused.output
    assert "disks" not in partial["spec"]
    (record,) = node.records()
    assert record.machine is not None
    assert [str(each.address) for each in record.machine.pci.anonymous] == ["pcie.0:04.0"]


@as_root
def test_one_that_is_a_guest_already_and_a_name_that_is_taken_are_refused(node: Node) -> None:
    with by_hand(FUNCTIONS_Q35, node.build, folder=node.folder) as qemu:
        monitored(node, FUNCTIONS_Q35)
        manifest(node.adopt(qemu.pid))

        again = node.adopt(qemu.pid, name="lab/other")

    assert "is lab/web already: nothing to adopt" in again.output
    (node.folder / "pool" / "first.qcow2").unlink()
    (node.folder / "run" / "qmp.sock").unlink()
    with by_hand(FUNCTIONS_Q35, node.build, folder=node.folder) as second:
        monitored(node, FUNCTIONS_Q35)

        taken = node.adopt(second.pid)

    assert "this node has a guest lab/web already" in taken.output
    assert "guestlet forget" in taken.output


@as_root
def test_a_monitor_that_somebody_holds_is_refused_with_the_remedy(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("guestlet.cli.adopt"), "_GREETING_S", 0.2)
    with by_hand(PROXMOX, node.build, folder=node.folder) as qemu:
        path = monitored(node, PROXMOX)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert b"QMP" in client.recv(4096)

            refused = node.adopt(qemu.pid)

    assert "another client has it" in refused.output
    assert "give another with --qmp" in refused.output


@as_root
def test_a_monitor_that_the_command_line_does_not_name_is_found_by_its_socket(node: Node) -> None:
    config = node.folder / "monitor.cfg"
    socket_path = node.folder / "run" / "qmp.sock"
    config.write_text(
        f'[chardev "m"]\nbackend = "socket"\npath = "{socket_path}"\nserver = "on"\nwait = "off"\n'
        '[mon "x"]\nmode = "control"\nchardev = "m"\n'
    )
    shape = Shape(
        name="configured",
        arguments=(
            *("-accel", "tcg", "-m", "32", "-nodefaults", "-display", "none", "-readconfig", str(config)),
            *("-serial", "unix:{run}/serial.sock,server=on,wait=off"),
        ),
    )
    with by_hand(shape, node.build, folder=node.folder) as qemu:
        monitored(node, shape)

        told = manifest(node.adopt(qemu.pid, "--dry-run"))

    assert told["spec"]["machine"] == {"type": "pc"}


@as_root
def test_a_qemu_without_a_monitor_is_refused_with_the_remedy(node: Node) -> None:
    shape = Shape(
        name="silent",
        arguments=(
            *("-accel", "tcg", "-m", "32", "-nodefaults", "-display", "none"),
            *("-serial", "unix:{run}/serial.sock,server=on,wait=off"),
        ),
    )
    with by_hand(shape, node.build, folder=node.folder) as qemu:
        refused = node.adopt(qemu.pid)

    assert "has no QMP socket that can be found: give it with --qmp" in refused.output


@pytest.mark.parametrize("name", ["lab/Web", "lab/", "a/b/c", "-x"])
def test_a_name_that_no_object_can_have_is_refused(node: Node, name: str) -> None:
    assert "must be lower-case letters" in node.adopt(1, name=name).output


def test_a_process_that_is_no_qemu_is_refused(node: Node) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        refused = node.adopt(process.pid)
    finally:
        process.communicate(b"\n", timeout=DEADLINE_S)

    assert "which is no QEMU" in refused.output
    assert "there is no process" in node.adopt(process.pid).output

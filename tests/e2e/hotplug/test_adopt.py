"""QEMUs that people and other programs started, taken over while they run: then changed, then started cold.

The command lines are those whose replies the unit tests have on record; here they are the real thing.
"""

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
import yaml

from e2e.hotplug.changes import addressed, change, settle
from e2e.hotplug.monitor import ask_for_list
from e2e.machine.published import functions, objects
from e2e.stage import Guest, Stage
from sandbox.cluster import Sandbox
from sandbox.errors import SandboxError
from sandbox.kubectl import Object
from sandbox.nodes import Node, run_guestlet
from sandbox.qemu import QemuBuild
from unit.qemu.shapes.by_hand import by_hand
from unit.qemu.shapes.command_lines import FUNCTIONS_PC, IOMMU, LIBVIRT, NESTED_PC, PLAIN_PC, PROXMOX, Shape

NODE = "node-adopt"
SHAPES = (LIBVIRT, PROXMOX, PLAIN_PC, NESTED_PC, FUNCTIONS_PC, IOMMU)
# Both of its root ports are taken, and nothing can be plugged into pcie.0.
FULL = (IOMMU,)
MONITORS = ("monitor.sock", "101.qmp", "qmp.sock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A QEMU that somebody started: its process, and what its firmware has numbered."""

    pid: int
    seen: Mapping[str, tuple[str, str]]


@pytest.fixture(scope="module")
def node(cluster: Sandbox, qemu: QemuBuild, short_folder: Path) -> Iterator[Node]:
    """A node with a pool for the images of each shape."""
    cluster.register(NODE)
    pools = [{"name": shape.name, "path": str(folder_of(short_folder, shape) / "pool")} for shape in SHAPES]
    for pool in pools:
        Path(pool["path"]).mkdir(parents=True)
        # QEMU's uid passes through to what it is given.
        Path(pool["path"]).parent.chmod(0o711)
        run_guestlet("pool", "init", pool["path"])
    (short_folder / "hand").chmod(0o711)
    made = cluster.prepare_node(NODE, qemu, settings={"pools": pools})
    made.agent.start()
    cluster.wait_for_nodes(NODE)
    yield made
    made.agent.stop()
    cluster.kubectl("delete", "node", NODE)


def folder_of(short_folder: Path, shape: Shape) -> Path:
    return short_folder / "hand" / shape.name


@contextmanager
def started(shape: Shape, qemu: QemuBuild, folder: Path) -> Iterator[Started]:
    """Starts it, lets it run, and waits until its firmware has numbered the buses; ended with the test."""
    # A second monitor, so that the test can ask too.
    second = ("-qmp", "unix:{run}/second.sock,server=on,wait=off")
    with by_hand(replace(shape, arguments=(*shape.arguments, *second)), qemu, folder=folder) as process:
        first = next(folder / "run" / name for name in MONITORS if name in " ".join(shape.arguments))
        ask_socket(first, "cont")
        deadline = time.monotonic() + 30
        while True:
            buses = cast("list[Object]", ask_socket(first, "query-pci"))
            seen, numbered = all_functions(buses)
            if numbered:
                break
            assert time.monotonic() < deadline, "the firmware has not numbered the buses"
        yield Started(pid=process.pid, seen=seen)


def ask_socket(path: Path, command: str) -> object:
    """One command on a QMP socket that may not be there yet."""
    deadline = time.monotonic() + 30
    while True:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(30)
            try:
                line.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < deadline, f"{path} does not appear"
                continue
            with line.makefile("rw") as monitor:
                monitor.readline()
                for name in ("qmp_capabilities", command):
                    monitor.write(json.dumps({"execute": name}) + "\n")
                    monitor.flush()
                    answer = json.loads(monitor.readline())
                    while "event" in answer:
                        answer = json.loads(monitor.readline())
            return answer["return"]


def all_functions(buses: list[Object]) -> tuple[dict[str, tuple[str, str]], bool]:
    """``query-pci``: address → (vendor, device) of everything, and whether every bridge has a number."""
    found: dict[str, tuple[str, str]] = {}
    numbered = True
    waiting = [objects(root, "devices") for root in buses]
    while waiting:
        for device in waiting.pop():
            ids = cast("Mapping[str, int]", device["id"])
            address = f"0000:{device['bus']:02x}:{device['slot']:02x}.{device['function']:x}"
            found[address] = (f"{ids['vendor']:04x}", f"{ids['device']:04x}")
            if "pci_bridge" in device:
                bridge = cast(Object, device["pci_bridge"])
                bus = cast("Mapping[str, int]", bridge["bus"])
                number = bus["secondary"]
                # The firmware writes the last number behind the bridge after the first.
                numbered = numbered and 0 < number <= bus["subordinate"] < 255
                waiting.append(objects(bridge, "devices"))
    return found, numbered


def adopt(stage: Stage, node: Node, pid: int, *options: str) -> str:
    name = f"{stage.namespace}/web"
    return run_guestlet("adopt", "--pid", str(pid), "--name", name, "--config", str(node.config), *options)


def taken_over(stage: Stage, manifest: str) -> Guest:
    outcome = stage.apply(manifest)
    assert outcome.code == 0, f"{outcome.errors}\n{manifest}"
    guest = stage.named("web")
    settle(guest)
    addressed(guest)
    return guest


def table_of(guest: Guest) -> dict[str, tuple[str, str]]:
    """Device by the user's name → its recorded place, and where the guest sees it; controllers by their ids.

    A device that somebody else started keeps its id in QEMU until the next start; its place is for ever.
    """
    status = guest.status()
    controllers = {
        str(each["id"]): (f"{each['bus']}:{each['address']}", "") for each in objects(status, "pci", "controllers")
    }
    devices = {
        f"{each['kind']} {each['name']}".lower(): (f"{each['bus']}:{each['address']}", str(each["guestAddress"]))
        for each in objects(status, "pci", "devices")
    }
    return controllers | devices


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_qemu_that_was_started_by_hand_is_taken_over(
    stage: Stage, node: Node, qemu: QemuBuild, short_folder: Path, shape: Shape
) -> None:
    with started(shape, qemu, folder_of(short_folder, shape)) as hand:
        manifest = adopt(stage, node, hand.pid)
        guest = taken_over(stage, manifest)
        status = guest.status()
        assert cast(Object, status["qemu"])["pid"] == hand.pid
        # What is published is what the firmware saw, at the very addresses.
        published = functions(status)
        assert {address: hand.seen.get(address) for address in published} == published
        first = table_of(guest)

        plug_into(guest, shape, stage)
        table = table_of(guest)
        assert first.items() <= table.items(), "what was there moved"
        assert guest.field(".status.qemu.pid") == str(hand.pid)

        guest.edit({"restart": {"token": "cold"}, "terminationGracePeriodSeconds": 0})
        guest.wait_for(".status.restartToken", "cold")
        settle(guest)
        assert guest.field(".status.qemu.pid") != str(hand.pid)
        addressed(guest)
        # A cold start may add places for more, never move one.
        assert table.items() <= table_of(guest).items()
        anew, _ = all_functions(ask_for_list(guest, "query-pci"))
        assert {address: anew.get(address) for address in published} == published
        guest.delete()


def plug_into(guest: Guest, shape: Shape, stage: Stage) -> None:
    """A disk and an interface more, or the refusal where there is no place for them."""
    spec = cast(Object, guest.read()["spec"])
    source = {"file": {"pool": shape.name, "image": f"{stage.namespace}-more.qcow2"}}
    disks = [*objects(spec, "disks"), {"name": "more", "size": "5Mi", "source": source}]
    networks = [*objects(spec, "networks"), {"name": "more", "isolated": {}}]
    if shape in FULL:
        guest.edit({"disks": disks})
        assert "disks[more]" in guest.wait_for_reason("Stalled", "PciExhausted")["message"]
        change(guest, {"disks": disks[:-1]})
        return
    change(guest, {"disks": disks, "networks": networks})
    addressed(guest)
    there, _ = all_functions(ask_for_list(guest, "query-pci"))
    published = functions(guest.status())
    assert {address: there.get(address) for address in published} == published
    assert {"disk more", "nic more"} <= table_of(guest).keys()


def test_a_look_changes_nothing(stage: Stage, node: Node, qemu: QemuBuild, short_folder: Path) -> None:
    before = sorted(node.state.rglob("record.json"))
    with started(NESTED_PC, qemu, folder_of(short_folder, NESTED_PC)) as hand:
        manifest = yaml.safe_load(adopt(stage, node, hand.pid, "--dry-run"))
        assert (manifest["kind"], manifest["metadata"]["name"]) == ("VirtualGuest", "web")
        assert [each["name"] for each in manifest["spec"]["disks"]]
    assert sorted(node.state.rglob("record.json")) == before


def test_nobody_is_taken_over_twice(stage: Stage, node: Node, qemu: QemuBuild, short_folder: Path) -> None:
    with started(NESTED_PC, qemu, folder_of(short_folder, NESTED_PC)) as hand:
        guest = taken_over(stage, adopt(stage, node, hand.pid))
        with pytest.raises(SandboxError, match=f"{stage.namespace}/web already"):
            adopt(stage, node, hand.pid)
        change(guest, {"terminationGracePeriodSeconds": 0})
        guest.delete()

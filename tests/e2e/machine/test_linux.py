"""A Linux in the guest sees exactly the machine that status publishes, device by device."""

import subprocess
from collections.abc import Mapping
from typing import cast

import pytest

from e2e.machine.linux import Report, ask, first_report, report
from e2e.machine.published import BOARD, ROOT_BUSES, functions, objects
from e2e.machine.samples import BASE_BYTES, CDROM_BYTES, LOCKED_BYTES, fill, mixed_spec, put_images
from e2e.stage import NODES, Guest, Stage
from guestlet.api.quantity import parse_quantity
from sandbox.kubectl import Object

DRIVERS = {"Virtio": "virtio_net", "E1000": "e1000"}
MACHINES: Mapping[str, Mapping[str, object]] = {
    "q35, root ports": {"machine": "q35", "cpu": {"count": 2, "cores": 2}},
    "q35, bridge": {"machine": "q35", "pci": {"deviceBus": "PCIBridge"}, "cpu": {"count": 2, "threads": 2}},
    "pc": {"machine": "pc", "cpu": {"count": 2}},
}


@pytest.mark.parametrize("machine", MACHINES)
def test_linux_sees_the_machine_that_status_publishes(stage: Stage, machine: str) -> None:
    fill_images(stage)
    spec = dict(MACHINES[machine])
    guest = stage.guest(spec=mixed_spec(stage.namespace, str(spec.pop("machine")), **spec))
    seen = first_report(guest)
    guest.wait_for_addresses()

    status = guest.status()
    assert report(guest) == seen
    assert_same_functions(seen, status)
    assert_same_disks(seen, status)
    assert_same_networks(seen, status)
    assert_same_processors(seen, guest, cast(Mapping[str, int], status["cpu"]))
    memory = cast(Mapping[str, str], status["memory"])
    # The firmware keeps a little for itself.
    assert 0 <= parse_quantity(memory["atBoot"]) // 1024 - seen.memory_kib < 4096
    assert_contents(seen, guest)
    assert_links(seen, guest, down={mac_of(status, "unplugged")})


def fill_images(stage: Stage) -> None:
    """Images that exist before the guest, each with something to read in it."""
    put_images(stage)
    pool = stage.sandbox.node(NODES[0]).pool()
    fill(pool / f"{stage.namespace}-locked.img", "LOCKED")
    fill(pool / f"{stage.namespace}-cd.iso", "COMPACT")
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 0x42 0 64k", str(pool / f"{stage.namespace}-base.qcow2")]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL, timeout=30)


def assert_same_functions(seen: Report, status: Object) -> None:
    """Every published device is where status says and what status says, and the guest sees nothing else."""
    published = functions(status)
    assert {address: seen.pci.get(address) for address in published} == published

    controllers = objects(status, "pci", "controllers")
    on_root = {f"0000:00:{each['address']}" for each in controllers if each["bus"] in ROOT_BUSES}
    assert on_root <= seen.bridges
    assert len(seen.bridges) == len(controllers)
    family = "q35" if "q35" in str(status["machineType"]) else "pc"
    assert seen.pci.keys() - published.keys() - seen.bridges == BOARD[family] - published.keys()
    assert not objects(status, "pci", "anonymous")


def assert_same_disks(seen: Report, status: Object) -> None:
    """Sizes, serials and who may write; a cdrom drive has no serial to show."""
    published = objects(status, "disks")
    assert len(published) == len(seen.disks) == 12
    (drive,) = (each for each in seen.disks if each.name.startswith("sr"))
    for disk in published:
        found = drive if disk["cdrom"] else seen.disk(str(disk["serial"]))
        assert found.size_bytes == parse_quantity(str(disk["size"]))
        assert found.read_only == disk["readOnly"]
    assert drive.size_bytes == CDROM_BYTES
    assert seen.disk("overlay").size_bytes == BASE_BYTES
    assert seen.disk("locked").size_bytes == LOCKED_BYTES


def assert_same_networks(seen: Report, status: Object) -> None:
    published = {str(each["macAddress"]): DRIVERS[str(each["model"])] for each in objects(status, "networks")}
    assert seen.nics == published
    assert len(published) == 5
    assert mac_of(status, "lan") == "52:54:00:0a:0b:0c"


def assert_same_processors(seen: Report, guest: Guest, cpu: Mapping[str, int]) -> None:
    """Count, and how sockets, cores and threads hang together as the guest's kernel has it."""
    assert seen.cpus == cpu["count"]
    topology = "/sys/devices/system/cpu/cpu0/topology"
    threads, package = ask(guest, f"cat {topology}/thread_siblings_list {topology}/package_cpus_list").split()
    assert (count(threads), count(package)) == (cpu["threads"], cpu["threads"] * cpu["cores"])


def assert_contents(seen: Report, guest: Guest) -> None:
    """Each name leads to the right bytes: a backing image shines through its overlay."""
    drive = next(each.name for each in seen.disks if each.name.startswith("sr"))
    for name, text in (
        (seen.disk("overlay").name, "BBBB"),
        (seen.disk("locked").name, "LOCKED"),
        (drive, "COMPACT"),
    ):
        assert ask(guest, f"head -c {len(text)} /dev/{name}") == text


def assert_links(seen: Report, guest: Guest, *, down: set[str]) -> None:
    """Cables are plugged in but where the user said that they are not."""
    command = "for i in /sys/class/net/eth*; do echo $(cat $i/address $i/carrier); done"
    carriers = dict(line.split() for line in ask(guest, command).splitlines())
    assert carriers == {mac: "0" if mac in down else "1" for mac in seen.nics}


def mac_of(status: Object, name: str) -> str:
    return next(str(each["macAddress"]) for each in objects(status, "networks") if each["name"] == name)


def count(processors: str) -> int:
    """How many a list such as ``0-1,3`` names."""
    ranges = [part.split("-") for part in processors.split(",")]
    return sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges)

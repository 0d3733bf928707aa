"""What of a device may change while the guest uses it: size, limits, link, medium. The device stays the same.

One guest for the whole file: each story begins with what the one before left.
"""

import subprocess
from collections.abc import Iterator, Mapping

import pytest

from e2e.hotplug.changes import GROWING, MIB, change, disk, mac_of, serials, settle, wait_for_report
from e2e.hotplug.monitor import drive
from e2e.life.witness import life_of
from e2e.machine.linux import ask, first_report
from e2e.machine.published import objects
from e2e.machine.samples import fill
from e2e.stage import Guest, Stage, eventually
from sandbox.kubectl import Object
from sandbox.nodes import POOL

NETWORK: Object = {"name": "lan", "isolated": {}}
BUSES = {"root": "Virtio", "data": "SCSI", "fast": "NVMe"}


def disks(scene: Stage, **changed: Mapping[str, object]) -> list[Object]:
    """The guest's disks, some with other fields; the last one is a drive without a medium."""
    plain = [{**disk(scene, name, bus=bus), **changed.get(name, {})} for name, bus in BUSES.items()]
    return [*plain, {"name": "cd", "bus": "SATA", "cdrom": True, "readOnly": True, **changed.get("cd", {})}]


def medium(scene: Stage, name: str) -> Mapping[str, object]:
    return {"source": {"file": {"pool": POOL, "image": f"{scene.namespace}-{name}.iso", "format": "Raw"}}}


def wait_for_answer(guest: Guest, command: str, answer: str) -> None:
    eventually(lambda: ask(guest, command) == answer, timeout_s=20, what=f"{answer!r} from {command!r}")


@pytest.fixture(scope="module")
def guest(scene: Stage) -> Iterator[Guest]:
    for name in ("one", "two"):
        scene.image(f"{scene.namespace}-{name}.iso", "3M", form="raw")
        fill(scene.sandbox.node("node-a").pool() / f"{scene.namespace}-{name}.iso", name.upper())
    made = scene.guest(spec={**GROWING, "disks": disks(scene), "networks": [NETWORK]})
    first_report(made)
    settle(made)
    life = life_of(made)
    yield made
    assert life_of(made) == life, "one of the stories restarted the guest"


def test_a_disk_grows_under_the_guest_and_never_shrinks(scene: Stage, guest: Guest) -> None:
    grown = {"root": {"size": "16Mi"}, "data": {"size": "17Mi"}}
    change(guest, {"disks": disks(scene, **grown)})
    wait_for_report(
        guest,
        lambda seen: (serials(seen)["ROOT"], serials(seen)["DATA"]) == (16 * MIB, 17 * MIB),
        "the new sizes",
    )
    assert "hotplug: resized disk" in guest.console()
    sizes = {str(each["name"]): each["size"] for each in objects(guest.status(), "disks")}
    assert (sizes["root"], sizes["data"]) == ("16Mi", "17Mi")

    guest.edit({"disks": disks(scene, root={"size": "12Mi"}, data={"size": "17Mi"})})
    told = guest.wait_for_reason("Stalled", "ImageSizeMismatch")
    assert "disks[root].size" in told["message"]
    assert guest.condition("Ready")["status"] == "True"
    change(guest, {"disks": disks(scene, **grown)})
    assert serials(wait_for_report(guest, lambda _: True, "a report"))["ROOT"] == 16 * MIB


def test_a_disk_that_qemu_cannot_resize_waits_for_the_next_start(scene: Stage, guest: Guest) -> None:
    grown = {"root": {"size": "16Mi"}, "data": {"size": "17Mi"}}
    guest.edit({"disks": disks(scene, **grown, fast={"size": "18Mi"})})
    told = guest.wait_for_reason("RestartRequired", "FieldsWaiting")
    assert "disks[fast].size" in told["message"]
    change(guest, {"disks": disks(scene, **grown)})
    assert guest.condition("RestartRequired")["status"] == "False"


@pytest.mark.parametrize("name", ["root", "data"])
def test_limits_are_set_changed_and_really_removed(scene: Stage, guest: Guest, name: str) -> None:
    def limits() -> tuple[object, ...]:
        found = drive(guest, f"disk-{name}")
        return tuple(found.get(each, 0) for each in ("iops", "iops_max", "bps", "bps_max"))

    def with_throttle(throttle: object) -> list[Object]:
        sizes = {"root": {"size": "16Mi"}, "data": {"size": "17Mi"}}
        changed: dict[str, Object] = {**sizes, name: {**sizes[name], **({"throttle": throttle} if throttle else {})}}
        return disks(scene, **changed)

    assert limits() == (0, 0, 0, 0)
    change(guest, {"disks": with_throttle({"iops": 500, "iopsBurst": 900, "bandwidth": "2Mi"})})
    assert limits() == (500, 900, 2 * MIB, 0)
    change(guest, {"disks": with_throttle({"bandwidth": "4Mi", "bandwidthBurst": "8Mi"})})
    assert limits() == (0, 0, 4 * MIB, 8 * MIB)
    change(guest, {"disks": with_throttle(None)})
    assert limits() == (0, 0, 0, 0)


def test_the_cable_is_unplugged_and_plugged_in_again(guest: Guest) -> None:
    mac = mac_of(guest, "lan")

    def carrier() -> str:
        find = f"for i in /sys/class/net/eth*; do grep -q {mac} $i/address && cat $i/carrier; done"
        return ask(guest, find).strip()

    assert carrier() == "1"
    change(guest, {"networks": [{**NETWORK, "linkUp": False}]})
    eventually(lambda: carrier() == "0", timeout_s=20, what="a guest that has seen the cable go")
    change(guest, {"networks": [NETWORK]})
    eventually(lambda: carrier() == "1", timeout_s=20, what="a guest that has seen the cable come")
    assert mac_of(guest, "lan") == mac


def test_a_medium_is_put_in_exchanged_and_taken_out(scene: Stage, guest: Guest) -> None:
    sizes = {"root": {"size": "16Mi"}, "data": {"size": "17Mi"}}
    read = "dd if=/dev/sr0 bs=3 count=1 2>&1 | head -c 3"
    for name in ("one", "two"):
        change(guest, {"disks": disks(scene, **sizes, cd=medium(scene, name))})
        wait_for_answer(guest, read, name.upper())
    change(guest, {"disks": disks(scene, **sizes)})
    eventually(lambda: ask(guest, read) not in ("ONE", "TWO"), timeout_s=20, what="an empty drive")
    assert drive(guest, "disk-cd") == {}
    # QEMU has let go of the image: its lock is free for somebody who writes.
    image = scene.sandbox.node("node-a").pool() / f"{scene.namespace}-two.iso"
    write = ["qemu-io", "-f", "raw", "-c", "write 1M 512", str(image)]
    subprocess.run(write, check=True, timeout=20, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_a_guest_that_locks_the_tray_loses_the_medium_all_the_same(scene: Stage, guest: Guest) -> None:
    sizes = {"root": {"size": "16Mi"}, "data": {"size": "17Mi"}}
    change(guest, {"disks": disks(scene, **sizes, cd=medium(scene, "one"))})
    wait_for_answer(guest, "head -c 3 /dev/sr0", "ONE")
    # Linux locks the tray for as long as somebody has the drive open.
    ask(guest, "(exec 9</dev/sr0; touch /tmp/held; while [ -e /tmp/held ]; do sleep 0.1; done) & true")
    ask(guest, "until [ -e /tmp/held ]; do sleep 0.1; done")
    change(guest, {"disks": disks(scene, **sizes, cd=medium(scene, "two"))})
    assert f"{scene.namespace}-two.iso" in str(drive(guest, "disk-cd")["file"])
    ask(guest, "rm -f /tmp/held")
    wait_for_answer(guest, "head -c 3 /dev/sr0", "TWO")

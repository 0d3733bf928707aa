"""What is added to a running guest's spec, its Linux sees within seconds; what is removed, it and QEMU lose.

One guest for the whole file: each story begins with what the one before left.
"""

from collections.abc import Iterator

import pytest

from e2e.hotplug.changes import (
    GROWING,
    MIB,
    addressed,
    boots,
    change,
    disk,
    free_ports,
    mac_of,
    serials,
    settle,
    wait_for_belongings,
    wait_for_boot,
    wait_for_report,
)
from e2e.hotplug.monitor import belongings, descriptors
from e2e.life.witness import layout_of, life_of
from e2e.machine.linux import first_report
from e2e.machine.published import functions, guest_addresses, objects, places
from e2e.stage import Guest, Stage
from guestlet.api.quantity import parse_quantity
from sandbox.kubectl import Object

CYCLES = 50
LAN: Object = {"name": "lan", "user": {}}
MORE_NETWORKS: tuple[Object, ...] = (
    LAN,
    {"name": "extra", "isolated": {}},
    {"name": "old", "model": "E1000", "isolated": {}, "linkUp": False},
)
# QEMU's own name of the driver, and what Linux takes it for.
NEW_DISKS = {"more": ("Virtio", "vd"), "wide": ("SCSI", "sd"), "fast": ("NVMe", "nvme")}


@pytest.fixture(scope="module")
def guest(scene: Stage) -> Iterator[Guest]:
    made = scene.guest(spec={**GROWING, "disks": first_disks(scene), "networks": [LAN]})
    first_report(made)
    addressed(made)
    yield made
    assert made.console().count("GUEST-REPORT-BEGIN") > 0


def first_disks(scene: Stage) -> list[Object]:
    return [disk(scene, "root"), disk(scene, "data", bus="SCSI")]


def more_disks(scene: Stage) -> list[Object]:
    sizes = {"more": "5Mi", "wide": "6Mi", "fast": "7Mi"}
    added = [disk(scene, name, size=sizes[name], bus=bus) for name, (bus, _) in NEW_DISKS.items()]
    return [*first_disks(scene), *added, disk(scene, "thread", size="9Mi", ioThread=True)]


def test_devices_come_and_go_while_the_guest_runs(scene: Stage, guest: Guest) -> None:
    life, ports, before, table = life_of(guest), free_ports(guest), belongings(guest), places(guest.status())

    change(guest, {"disks": more_disks(scene), "networks": list(MORE_NETWORKS)})
    seen = wait_for_report(guest, lambda seen: len(seen.nics) == 3 and len(seen.disks) == 6, "the added devices")
    sizes = {"MORE": 5 * MIB, "WIDE": 6 * MIB, "FAST": 7 * MIB, "THREAD": 9 * MIB}
    assert {serial: size for serial, size in serials(seen).items() if serial in sizes} == sizes
    assert all(seen.disk(name.upper()).name.startswith(kind) for name, (_, kind) in NEW_DISKS.items())
    assert seen.nics[mac_of(guest, "extra")] == "virtio_net"
    assert seen.nics[mac_of(guest, "old")] == "e1000"
    published = functions(addressed(guest))
    assert {address: seen.pci.get(address) for address in published} == published
    assert table.items() <= places(guest.status()).items(), "what was there moved"
    # Three disks and a virtio interface; a SCSI disk is on its controller, an E1000 on the conventional bridge.
    assert free_ports(guest) == ports - 4
    assert belongings(guest).objects - before.objects == {"iothread-thread"}

    change(guest, {"disks": first_disks(scene), "networks": [LAN]})
    wait_for_report(guest, lambda seen: set(serials(seen)) == {"ROOT", "DATA"} and len(seen.nics) == 1, "their end")
    assert belongings(guest) == before
    assert free_ports(guest) == ports
    assert places(guest.status()) == table
    assert life_of(guest) == life
    assert guest.condition("RestartRequired").get("status") != "True"


def test_processors_and_memory_come_while_the_guest_runs(guest: Guest) -> None:
    life = life_of(guest)
    change(guest, {"cpu": {"count": 2}, "memory": {"size": "672Mi"}})
    seen = wait_for_report(guest, lambda seen: seen.cpus == 2 and seen.memory_kib > 600 * 1024, "CPU and memory")
    # The firmware keeps a little for itself.
    assert 0 <= 672 * 1024 - seen.memory_kib < 4096
    assert guest.field(".status.cpu.count") == "2"
    memory = {name: parse_quantity(guest.field(f".status.memory.{name}")) for name in ("atBoot", "current", "max")}
    assert memory == {"atBoot": 160 * MIB, "current": 672 * MIB, "max": 1184 * MIB}
    assert life_of(guest) == life
    console = guest.console()
    assert "hotplug: added cpu1, 2 online" in console
    assert "hotplug: added memory" in console

    # Not all machines can give a processor back: what cannot be is left to the next start, and said.
    guest.edit({"cpu": {"count": 1}})
    told = guest.wait_for_reason("RestartRequired", "FieldsWaiting")
    assert "cpu.count" in told["message"]
    guest.edit({"memory": {"size": "160Mi"}})
    guest.wait_until_observed()
    assert "memory.size" in guest.wait_for_reason("RestartRequired", "FieldsWaiting")["message"]
    change(guest, {"cpu": {"count": 2}, "memory": {"size": "672Mi"}})
    assert guest.condition("RestartRequired")["status"] == "False"
    assert life_of(guest) == life


def test_what_was_plugged_is_where_it_was_after_a_restart(scene: Stage, guest: Guest) -> None:
    change(guest, {"disks": more_disks(scene), "networks": list(MORE_NETWORKS)})
    status = addressed(guest)
    macs, seen, life = layout_of(guest).macs, guest_addresses(guest), life_of(guest)
    earlier = boots(guest)
    devices, table = objects(status, "pci", "devices"), places(status)

    guest.edit({"restart": {"token": "cold"}})
    guest.wait_for(".status.restartToken", "cold")
    settle(guest)
    wait_for_boot(guest, earlier + 1)
    assert life_of(guest) != life
    # The spares that were used are made anew; nothing that was there has moved.
    after = addressed(guest)
    assert objects(after, "pci", "devices") == devices
    assert table.items() <= places(after).items()
    assert guest_addresses(guest) == seen
    assert layout_of(guest).macs == macs
    assert free_ports(guest) == 6
    seen_anew = wait_for_report(guest, lambda seen: 0 <= 672 * 1024 - seen.memory_kib < 4096, "the memory")
    assert set(serials(seen_anew)) == {"ROOT", "DATA", "MORE", "WIDE", "FAST", "THREAD"}
    assert seen_anew.cpus == 2


def test_a_lost_record_is_written_again_as_it_was(scene: Stage, guest: Guest) -> None:
    before, had, life = addressed(guest), belongings(guest), life_of(guest)
    scene.kill_agent("node-a")
    (guest.state / "record.json").unlink()
    scene.start_agent("node-a")
    settle(guest)
    after = addressed(guest)
    kinds = ("uuid", "machineType", "cpu", "memory", "pci", "disks", "networks")
    assert {kind: after.get(kind) for kind in kinds} == {kind: before.get(kind) for kind in kinds}
    assert (guest.state / "record.json").exists()
    assert (belongings(guest), life_of(guest)) == (had, life)

    # And it is a machine that can be changed.
    change(guest, {"disks": first_disks(scene), "networks": [LAN]})
    wait_for_report(guest, lambda seen: set(serials(seen)) == {"ROOT", "DATA"} and len(seen.nics) == 1, "their end")
    assert life_of(guest) == life


@pytest.mark.timeout(240)
def test_fifty_plugs_and_unplugs_leave_nothing_behind(scene: Stage, guest: Guest) -> None:
    pid = guest.pid()
    assert pid is not None
    change(guest, {"disks": first_disks(scene), "networks": [LAN]})
    before, table, ports = belongings(guest), places(guest.status()), free_ports(guest)
    bigger = [*first_disks(scene), disk(scene, "more", size="5Mi"), disk(scene, "wide", size="6Mi", bus="SCSI")]
    plugged = {"disk-more", "disk-wide", "nic-extra"}
    files = []
    for _ in range(CYCLES):
        guest.edit({"disks": bigger, "networks": [LAN, {"name": "extra", "user": {}}]})
        wait_for_belongings(guest, lambda found: plugged <= found.devices, "the plugged devices")
        guest.edit({"disks": first_disks(scene), "networks": [LAN]})
        wait_for_belongings(guest, lambda found: found == before, "nothing but what was there before")
        files.append(descriptors(pid))
    settle(guest)
    # The first rounds may start threads that stay; after that nothing grows.
    assert max(files[CYCLES // 2 :]) <= max(files[: CYCLES // 2])
    assert (places(guest.status()), free_ports(guest)) == (table, ports)
    assert not objects(guest.status(), "pci", "anonymous")
    seen = wait_for_report(guest, lambda seen: len(seen.disks) == 2 and len(seen.nics) == 1, "the guest's view")
    assert set(serials(seen)) == {"ROOT", "DATA"}
    assert guest.pid() == pid

"""A place once given is kept: over restarts, edits, other agents; and one that the user asked for is that very one."""

from collections.abc import Mapping
from typing import cast

import pytest

from e2e.life.witness import TINY, life_of
from e2e.machine.published import devices_by_id, guest_addresses, objects, places
from e2e.machine.samples import disk
from e2e.stage import Guest, Stage, eventually
from sandbox.kubectl import Object


def spec_of(prefix: str, machine: str) -> dict[str, object]:
    """Eight disks and three interfaces in a guest that boots nothing."""
    buses = ("Virtio", "SCSI", "SATA", "NVMe")
    disks = [disk(f"d{each}", f"{prefix}-{each}.qcow2", size="1Mi", bus=buses[each % 4]) for each in range(8)]
    networks: list[Object] = [
        {"name": "one", "user": {}},
        {"name": "two", "model": "E1000", "isolated": {}},
        {"name": "three", "isolated": {}},
    ]
    return {**TINY, "machine": {"type": machine}, "disks": disks, "networks": networks}


def restart(guest: Guest, token: str) -> None:
    """A new QEMU, and what its firmware says of the buses."""
    guest.edit({"restart": {"token": token}})
    guest.wait_for(".status.restartToken", token)
    guest.wait()
    guest.wait_for_addresses()


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_places_are_kept_over_restarts_and_edits(stage: Stage, machine: str) -> None:
    spec = spec_of(stage.namespace, machine)
    guest = stage.guest(spec=spec, boot=False)
    guest.wait()
    guest.wait_for_addresses()
    first, first_seen, life = places(guest.status()), guest_addresses(guest), life_of(guest)
    assert "" not in first_seen.values()

    restart(guest, "again")
    assert life_of(guest) != life
    assert (places(guest.status()), guest_addresses(guest)) == (first, first_seen)

    disks, networks = cast("list[Object]", spec["disks"]), cast("list[Object]", spec["networks"])
    added = disk("added", f"{stage.namespace}-added.qcow2", size="1Mi")
    more = {"name": "four", "isolated": {}}
    guest.edit({"disks": [added, *disks[:4], *disks[5:]], "networks": [more, *networks[1:]]})
    # What comes is plugged at once; what goes must be let go of by a system, and none runs in this guest.
    eventually(lambda: {"disk-added", "nic-four"} <= places(guest.status()).keys(), what="the new devices")
    assert first.items() <= places(guest.status()).items()
    plugged = places(guest.status())

    restart(guest, "edited")
    second = places(guest.status())
    gone = {"disk-d4", "nic-one"}
    kept = {name: place for name, place in first.items() if name not in gone}
    assert {name: second.get(name) for name in kept} == kept
    assert second.keys().isdisjoint(gone)
    assert {name: second[name] for name in ("disk-added", "nic-four")} == {
        name: plugged[name] for name in ("disk-added", "nic-four")
    }
    # Nobody gets a place that another had, while there are others.
    assert {second["disk-added"], second["nic-four"]}.isdisjoint(first.values())
    status = guest.status()
    freed = cast("list[str]", cast(Object, status["pci"])["freed"])
    assert sorted(freed) == sorted(first[name] for name in gone)

    guest.edit({"disks": disks, "networks": networks})
    restart(guest, "as-at-first")
    third = places(guest.status())
    assert {name: third[name] for name in kept} == kept


def test_the_next_agent_publishes_the_same_places_without_a_word(stage: Stage) -> None:
    guest = stage.guest(spec=spec_of(stage.namespace, "q35"), boot=False)
    guest.wait()
    guest.wait_for_addresses()
    before = guest.read()

    stage.stop_agent("node-a")
    stage.start_agent("node-a")
    # Something that the new agent does for certain, and after it has looked at the guest.
    guest.edit({"terminationGracePeriodSeconds": 1})
    guest.wait_until_observed()

    assert guest.status()["pci"] == cast(Object, before["status"])["pci"]
    assert guest.status()["qemu"] == cast(Object, before["status"])["qemu"]


EXPLICIT: Mapping[str, Mapping[str, str]] = {
    "q35": {"d0": "pcie.0:05.0", "d3": "port-2:00.0", "one": "pcie.0:1b.0", "two": "bridge-0:07.0"},
    "pc": {"d0": "pci.0:0a.0", "d3": "pci.0:03.0", "one": "pci.0:1b.0", "two": "pci.0:04.0"},
}


@pytest.mark.parametrize("machine", EXPLICIT)
def test_an_address_that_was_asked_for_is_that_very_address(stage: Stage, machine: str) -> None:
    spec = spec_of(stage.namespace, machine)
    wanted = EXPLICIT[machine]
    for each in (*cast("list[dict[str, object]]", spec["disks"]), *cast("list[dict[str, object]]", spec["networks"])):
        if str(each["name"]) in wanted:
            each["pciAddress"] = wanted[str(each["name"])]
    guest = stage.guest(spec=spec, boot=False)
    guest.wait()
    guest.wait_for_addresses()

    status = guest.status()
    found = {str(each["name"]): f"{each['bus']}:{each['address']}" for each in objects(status, "pci", "devices")}
    assert {name: found[name] for name in wanted} == wanted
    # On the root bus the guest's address is known beforehand.
    seen = {str(each["name"]): str(each["guestAddress"]) for each in devices_by_id(status).values()}
    direct = {name: place for name, place in wanted.items() if place.startswith(("pcie.0:", "pci.0:"))}
    assert {name: seen[name] for name in direct} == {name: f"0000:00:{place[-4:]}" for name, place in direct.items()}

"""The words of the API for a machine that is there: they give the same machine again, and keep the user's own."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from guestlet.api.guest import parse_guest
from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.guest.change.difference import ChangeKind, live_changes
from guestlet.guest.desired import GuestKey
from guestlet.guest.manifest import manifest_of, source_for, spec_of
from guestlet.guest.resolve import resolve_machine
from guestlet.guest.source import waiting_fields
from guestlet.host.accelerator import AcceleratorProbe
from guestlet.qemu.machine import Dimm, Machine, Throttle
from unit.guest.guest_samples import (
    CAPABILITIES,
    KVM,
    MIB,
    TCG,
    UUID,
    disk,
    guest,
    image,
    machine,
    network,
    observed,
    storage,
)

KEY = GuestKey(namespace="lab", name="web")
IMAGES = tuple(image(f"d{number}.qcow2") for number in range(6))
GROWING = replace(CAPABILITIES, devices=frozenset({"virtio-mem-pci"}))


def resolved(spec: Mapping[str, Any], probe: AcceleratorProbe = TCG, *, previous: Machine | None = None) -> Machine:
    return resolve_machine(
        guest=guest(spec),
        observed=observed(
            storage=storage(*IMAGES),
            network=network(bridges=("br0", "br1"), scripts=("up.sh",)),
            accelerator=probe,
            capabilities=GROWING,
        ),
        previous=previous,
        uuid=UUID,
    )


def fields(**some: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Each field there or left out."""
    return st.fixed_dictionaries({}, optional=some)


@st.composite
def disks(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(0, 5))):
        bus = draw(st.sampled_from(["Virtio", "SCSI", "SATA", "NVMe"]))
        said = draw(
            fields(
                serial=st.just(f"S-{number}"),
                cache=st.sampled_from(["None", "Writeback", "Unsafe"]),
                discard=st.sampled_from(["Unmap", "Ignore"]),
                ioThread=st.just(bus in ("Virtio", "SCSI")),
                bootOrder=st.just(number + 1),
                throttle=st.just({"iops": 100, "bandwidth": "1Mi", "bandwidthBurst": "3Mi"}),
                size=st.just("1Gi"),
            )
        )
        found.append(disk(f"d{number}", bus=bus, **said))
    return found


@st.composite
def networks(draw: st.DrawFn) -> list[dict[str, Any]]:
    backends: list[dict[str, Any]] = [
        {"isolated": {}},
        {"bridge": {"name": "br1"}, "bandwidth": {"inbound": "1Mi"}},
        {"tap": {"upScript": "up.sh"}},
        {"user": {"hostForwards": [{"hostPort": 8080, "guestPort": 80}]}},
    ]
    return [
        {
            "name": f"n{number}",
            "model": draw(st.sampled_from(["Virtio", "E1000"])),
            **draw(st.sampled_from(backends)),
            **draw(fields(macAddress=st.just(f"52:54:00:AA:00:0{number}"), linkUp=st.booleans())),
        }
        for number in range(draw(st.integers(0, 4)))
    ]


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from(["q35", "q35", "pc"]))
    bus = draw(st.sampled_from(["RootPort", "PCIBridge"])) if family == "q35" else "RootPort"
    cpu = draw(st.sampled_from([{}, {"count": 2}, {"count": 1, "maxCount": 4, "cores": 2}, {"count": 2, "threads": 2}]))
    memory = draw(st.sampled_from([{}, {"size": "1Gi"}, {"size": "512Mi", "maxSize": "2Gi"}]))
    return {
        "machine": {"type": family},
        "firmware": {"type": draw(st.sampled_from(["BIOS", "UEFI"]))},
        "cpu": {**cpu, **draw(fields(model=st.sampled_from(["Max", "qemu64"])))},
        "memory": memory,
        "disks": draw(disks()),
        "networks": draw(networks()),
        "devices": draw(fields(rng=st.booleans(), balloon=st.booleans(), watchdog=st.just({"action": "Pause"}))),
        "console": draw(fields(serialLog=st.booleans())),
        "pci": {"hotplugPorts": draw(st.integers(0, 8)), "deviceBus": bus},
    }


@settings(deadline=None, max_examples=150)
@given(specs(), st.sampled_from([TCG, KVM]))
def test_the_words_for_a_machine_give_the_same_machine_again(spec: dict[str, Any], probe: AcceleratorProbe) -> None:
    first = resolved(spec, probe)
    words = spec_of(first).to_wire()

    assert resolved(words, KVM, previous=first) == first
    assert resolved(without_addresses(words), KVM) == first


def without_addresses(words: dict[str, Any]) -> dict[str, Any]:
    """Without a machine before, only ports that something asks for are made, and an address asks for none."""
    return {
        **words,
        **{
            group: [{name: value for name, value in each.items() if name != "pciAddress"} for each in words[group]]
            for group in ("disks", "networks")
        },
    }


@settings(deadline=None, max_examples=150)
@given(specs())
def test_a_machine_just_made_was_made_from_the_users_own_words(spec: dict[str, Any]) -> None:
    wanted = VirtualGuestSpec.model_validate(spec)
    source = source_for(resolved(spec), wanted)

    assert waiting_fields(wanted, source) == ()
    assert live_changes(wanted, source) == ()


def test_what_differs_from_the_spec_is_named_and_what_can_be_done_live_is_done() -> None:
    before = {"disks": [disk("d0"), disk("d1")], "cpu": {"count": 1, "maxCount": 2}}
    after = {
        "disks": [disk("d0", cache="None", size="2Gi"), disk("d2")],
        "cpu": {"count": 2, "maxCount": 2},
        "firmware": {"type": "UEFI"},
    }
    wanted = VirtualGuestSpec.model_validate(after)

    source = source_for(resolved(before), wanted)

    assert [(each.kind, each.name) for each in live_changes(wanted, source)] == [
        (ChangeKind.REMOVE_DISK, "d1"),
        (ChangeKind.GROW_DISK, "d0"),
        (ChangeKind.SET_CPUS, ""),
        (ChangeKind.ADD_DISK, "d2"),
    ]
    assert {"disks[d0].cache", "firmware.type"} <= set(waiting_fields(wanted, source))


def test_what_speaks_of_the_guests_life_is_the_users_alone() -> None:
    said = {"runStrategy": "Once", "paused": True, "disks": [disk("d0", size="1Gi", onDelete="Delete")]}
    source = json.loads(source_for(resolved({"disks": [disk("d0")]}), VirtualGuestSpec.model_validate(said)))

    assert (source["runStrategy"], source["paused"], source["disks"][0]["onDelete"]) == ("Once", True, "Delete")


def test_plugged_memory_and_cpus_are_in_the_words() -> None:
    made = resolved({"memory": {"size": "512Mi", "maxSize": "2Gi"}, "cpu": {"count": 1, "maxCount": 4}})
    grown = replace(
        made,
        memory=replace(made.memory, virtio_mem=None, dimms=(Dimm(slot=0, size_bytes=512 * MIB),)),
        cpu=replace(made.cpu, count=3),
    )

    spec = spec_of(grown)

    assert (spec.memory.size, spec.memory.max_size, spec.cpu.count, spec.cpu.max_count) == ("1Gi", "2Gi", 3, 4)


def test_a_manifest_is_one_that_the_api_reads() -> None:
    first = resolved({"disks": [disk("d0", throttle={"iops": 5})], "networks": [{"name": "n0", "isolated": {}}]})

    manifest = manifest_of(first, key=KEY, node="node-a", paused=False)

    read = parse_guest(manifest)
    assert (read.metadata.namespace, read.metadata.name, read.spec.node_name) == ("lab", "web", "node-a")
    assert read.spec.model_copy(update={"node_name": None}) == spec_of(first)
    assert first.disks[0].throttle == Throttle(
        iops=5, iops_burst=None, bandwidth_bytes=None, bandwidth_burst_bytes=None
    )


def test_a_manifest_says_every_address_and_no_size() -> None:
    manifest = manifest_of(machine({"disks": [disk(size="1Gi")]}), key=KEY, node="node-a", paused=False)
    spec = manifest["spec"]

    assert isinstance(spec, dict)
    assert spec["disks"][0]["pciAddress"] == "port-0:00.0"
    assert "size" not in spec["disks"][0]

"""Running QEMUs of other people, described from their own answers: six shapes and more, under two versions."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from guestlet.errors import Refused
from guestlet.guest.desired import GuestKey
from guestlet.guest.manifest import manifest_of, spec_of
from guestlet.guest.record import NO_ALIASES
from guestlet.pci.controllers import ControllerKind, Family
from guestlet.pci.facts import DeviceBus
from guestlet.pci.venues import occupied
from guestlet.qemu.machine import (
    Accelerator,
    AioMode,
    BridgeNet,
    CacheMode,
    Dimm,
    DiscardMode,
    DiskBus,
    IsolatedNet,
    Machine,
    NicModel,
    TapNet,
    Throttle,
    UserNet,
    VirtioMem,
    WatchdogAction,
)
from unit.guest.recovery.descriptions import UUID, described
from unit.qemu.shapes.recorded import MAJORS, NAMES, recorded

MIB = 1024 * 1024
EVERY = [(name, major) for name in NAMES for major in MAJORS]
CHIPSET = {("pcie.0", 0x00), ("pcie.0", 0x1F), ("pci.0", 0x00), ("pci.0", 0x01)}


def listed(functions: Any) -> Iterator[Mapping[str, Any]]:
    for each in functions:
        yield each
        yield from listed(each.get("pci_bridge", {}).get("devices", ()))


def test_the_recorded_shapes_are_those_that_are_told_of() -> None:
    assert {"libvirt-q35", "proxmox-pc", "plain-pc", "nested-pc", "multifunction-q35", "viommu-q35", "ours-q35"} <= {
        *NAMES
    }


@pytest.mark.parametrize(("name", "major"), EVERY)
def test_every_function_of_the_guest_is_at_one_place_of_the_layout_and_no_two_are_at_one(name: str, major: str) -> None:
    layout = described(name, major).machine.pci
    places = occupied(layout)
    replies: Any = recorded(name, major).replies
    functions = [each for bus in replies["pci"] for each in listed(bus["devices"])]
    chipset = [each for each in functions if each["bus"] == 0 and not each["qdev_id"]]
    unplaced = [
        each for each in chipset if (("pcie.0" if layout.family is Family.Q35 else "pci.0"), each["slot"]) in CHIPSET
    ]
    sata = sum(str(each) == "pcie.0:1f.2" for each in places)

    assert len(set(places)) == len(places)
    assert len(places) == len(functions) - len(unplaced) + sata


@pytest.mark.parametrize(("name", "major"), EVERY)
def test_a_blind_query_pci_changes_no_place(name: str, major: str) -> None:
    replies: Any = recorded(name, major).replies
    blind = [{**bus, "devices": [unnumbered(each) for each in bus["devices"]]} for bus in replies["pci"]]
    seeing = described(name, major).machine.pci

    layout = described(name, major, changed={"pci": blind}).machine.pci

    assert (layout.controllers, layout.devices) == (seeing.controllers, seeing.devices)
    assert [each.address for each in layout.anonymous] == [each.address for each in seeing.anonymous]


def unnumbered(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A function as it is before the firmware has run."""
    if "pci_bridge" not in entry:
        return dict(entry)
    bus = {**entry["pci_bridge"]["bus"], "secondary": 0, "subordinate": 0}
    return {**entry, "pci_bridge": {"bus": bus}}


@pytest.mark.parametrize(("name", "major"), EVERY)
def test_what_was_described_can_be_said_in_the_words_of_the_api(name: str, major: str) -> None:
    machine = described(name, major).machine
    key = GuestKey(namespace="lab", name="web")

    assert len(spec_of(machine).disks) == len(machine.disks)
    assert manifest_of(machine, key=key, node="node-a", paused=False)["metadata"] == {"name": "web", "namespace": "lab"}


@pytest.mark.parametrize("name", NAMES)
def test_two_versions_of_qemu_are_described_alike(name: str) -> None:
    old, new = (neutral(described(name, major).machine) for major in MAJORS)

    assert old == new


def neutral(machine: Machine) -> Machine:
    """Without what a version of QEMU chooses: its newest machine type, and the free ports of forwards."""
    networks = tuple(
        replace(each, backend=UserNet(host_forwards=())) if isinstance(each.backend, UserNet) else each
        for each in machine.networks
    )
    return replace(machine, machine_type="", networks=networks)


@pytest.mark.parametrize("major", MAJORS)
def test_a_qemu_of_ours_needs_no_aliases_and_leaves_nothing_open(major: str) -> None:
    description = described("ours-q35", major)
    machine = description.machine
    root, data, seed = machine.disks

    assert (description.aliases, machine.pci.anonymous) == (NO_ALIASES, ())
    assert (machine.uuid, machine.machine_type) == ("6f1e1b52-7a4d-4a34-9b6e-3a5c1f0d2e11", "pc-q35-7.2")
    assert (machine.accelerator, machine.tb_size_mib, machine.sandbox) == (Accelerator.TCG, 128, True)
    assert (machine.rng, machine.balloon, machine.pvpanic, machine.serial_log) == (True, True, True, True)
    assert machine.watchdog is WatchdogAction.POWEROFF
    assert (root.name, root.bus, root.io_thread, root.boot_order) == ("root", DiskBus.VIRTIO, True, 1)
    assert root.source is not None
    assert (root.source.image, root.source.backing_image) == ("root.qcow2", "base.qcow2")
    assert (data.name, data.cache, data.discard) == ("data", CacheMode.WRITETHROUGH, DiscardMode.IGNORE)
    assert (seed.name, seed.bus, seed.cdrom, seed.unit) == ("seed", DiskBus.SATA, True, 0)
    assert [str(each.address) for each in machine.pci.devices if each.id == "disk-root"] == ["port-0:00.0"]
    assert [each.id for each in machine.pci.controllers][:3] == ["pcie-bridge", "bridge-0", "port-0"]
    assert description.doubts == ("whether cables are plugged cannot be asked: they are taken to be",)


@pytest.mark.parametrize("major", MAJORS)
def test_forwards_of_a_user_network_are_known(major: str) -> None:
    lan = next(each for each in described("ours-q35", major).machine.networks if each.name == "lan")

    assert isinstance(lan.backend, UserNet)
    assert [(each.host_address, each.guest_port) for each in lan.backend.host_forwards] == [("127.0.0.1", 22)]
    assert lan.mac == "52:54:00:12:34:01"


@pytest.mark.parametrize("major", MAJORS)
def test_libvirt_keeps_its_fourteen_ports_and_its_names(major: str) -> None:
    description = described("libvirt-q35", major, bridges={"vnet7": "br0"})
    machine = description.machine

    assert [(each.id, each.kind) for each in machine.pci.controllers] == [
        (f"pci.{number}", ControllerKind.ROOT_PORT) for number in range(1, 15)
    ]
    assert [str(each.address) for each in machine.pci.controllers][8] == "pcie.0:03.0"
    assert {each.id: str(each.address) for each in machine.pci.devices} == {
        "disk-virtio-disk0": "pci.5:00.0",
        "nic-net0": "pci.1:00.0",
        "scsi": "pci.3:00.0",
        "sata": "pcie.0:1f.2",
        "rng": "pci.7:00.0",
        "balloon": "pci.6:00.0",
    }
    assert [(each.id, str(each.address), each.device_class) for each in machine.pci.anonymous] == [
        ("usb", "pci.2:00.0", "0c03"),
        ("virtio-serial0", "pci.4:00.0", "0780"),
        ("video0", "pcie.0:01.0", "0300"),
    ]
    assert description.aliases.devices["disk-virtio-disk0"] == "virtio-disk0"
    assert description.aliases.nodes["disk-virtio-disk0"] == "libvirt-3-format"
    assert description.aliases.netdevs == {"net-net0": "hostnet0"}
    assert (machine.networks[0].backend, machine.networks[0].tap) == (BridgeNet(bridge="br0"), "vnet7")
    assert (machine.cpu.count, machine.cpu.max_count, machine.cpu.model) == (2, 4, "qemu64-v1")


@pytest.mark.parametrize("major", MAJORS)
def test_libvirt_says_how_a_disk_does_its_io_on_its_command_line_only(major: str) -> None:
    root = described("libvirt-q35", major).machine.disks[0]
    unsure = described("libvirt-q35", major, argv=())

    assert (root.cache, root.aio, root.discard, root.serial) == (
        CacheMode.NONE,
        AioMode.NATIVE,
        DiscardMode.UNMAP,
        "WD-0001",
    )
    assert unsure.machine.disks[0].aio is AioMode.THREADS
    assert (
        "how disk virtio-disk0 does its I/O cannot be asked: aio Threads and discard Ignore are taken" in unsure.doubts
    )


@pytest.mark.parametrize("major", MAJORS)
def test_proxmox_keeps_its_fixed_slots(major: str) -> None:
    description = described("proxmox-pc", major)
    machine = description.machine
    first, second = machine.disks

    assert {each.id: str(each.address) for each in machine.pci.devices} == {
        "disk-virtio1": "pci.0:0b.0",
        "nic-net0": "pci.0:12.0",
        "scsi": "pci.0:05.0",
        "balloon": "pci.0:03.0",
    }
    assert first.throttle == Throttle(
        iops=500, iops_burst=None, bandwidth_bytes=10 * MIB, bandwidth_burst_bytes=20 * MIB
    )
    assert (first.name, first.bus, first.unit, first.cache) == ("scsi0", DiskBus.SCSI, 0, CacheMode.NONE)
    assert (second.name, second.cache) == ("virtio1", CacheMode.WRITETHROUGH)
    assert (machine.networks[0].backend, machine.networks[0].tap) == (
        TapNet(up_script=None, down_script=None),
        "tap101i0",
    )
    assert description.aliases.devices["scsi"] == "scsihw0"
    assert description.aliases.nodes["disk-scsi0"].startswith("#block")
    assert (
        "the CPU has the flags +aes,enforce beside its model: they are not part of the next start" in description.doubts
    )
    assert [str(each.address) for each in machine.pci.anonymous] == ["pci.0:01.2", "pci.0:02.0"]


@pytest.mark.parametrize("major", MAJORS)
def test_devices_without_an_id_are_called_by_their_place_in_qom(major: str) -> None:
    description = described("plain-pc", major)
    machine = description.machine

    assert (machine.uuid, machine.disks) == (UUID, ())
    assert any(doubt.startswith("disk ide0-hd0: it is on an IDE controller") for doubt in description.doubts)
    assert (machine.networks[0].model, str(machine.pci.devices[0].address)) == (NicModel.E1000, "pci.0:03.0")
    assert description.aliases.devices["nic-net"].startswith("/machine/unattached/device[")
    assert [(each.vendor, str(each.address)) for each in machine.pci.anonymous] == [("1234", "pci.0:02.0")]


@pytest.mark.parametrize("major", MAJORS)
def test_a_plain_q35_has_its_disk_on_the_chipsets_own_sata(major: str) -> None:
    description = described("plain-q35", major)
    disk, drive = description.machine.disks

    assert (disk.name, disk.bus, disk.unit) == ("ide0-hd0", DiskBus.SATA, 0)
    assert (drive.cdrom, drive.source, drive.unit) == (True, None, 2)
    assert any("e1000e" in doubt and "left alone" in doubt for doubt in description.doubts)


@pytest.mark.parametrize("major", MAJORS)
def test_nested_bridges_are_walked_to_the_bottom(major: str) -> None:
    description = described("nested-pc", major)
    layout = description.machine.pci

    assert [(each.id, str(each.address), each.index) for each in layout.controllers] == [
        ("br1", "pci.0:05.0", 1),
        ("br2", "br1:03.0", 2),
        ("pci.1", "br2:07.0", 3),
        ("br4", "br2:08.0", 4),
    ]
    assert {each.id: str(each.address) for each in layout.devices} == {
        "disk-deep-disk": "br4:02.0",
        "nic-card": "br2:04.0",
    }
    assert description.aliases.devices["disk-deep-disk"] == "Deep_Disk"
    assert description.aliases.devices["pci.1"] == "/machine/peripheral-anon/device[0]"
    assert any("nothing can be plugged behind it" in doubt for doubt in description.doubts)


def test_a_q35_whose_devices_are_all_behind_bridges_goes_on_so() -> None:
    layout = described("nested-q35").machine.pci

    assert layout.device_bus is DeviceBus.PCI_BRIDGE
    assert {each.kind for each in layout.controllers} == {
        ControllerKind.DMI_BRIDGE,
        ControllerKind.PCIE_PCI_BRIDGE,
        ControllerKind.PCI_BRIDGE,
    }


@pytest.mark.parametrize(("name", "bus"), [("multifunction-pc", "pci.0"), ("multifunction-q35", "pcie.0")])
def test_functions_of_one_slot_are_told_apart(name: str, bus: str) -> None:
    layout = described(name).machine.pci

    assert [str(each.address) for each in layout.devices] == [f"{bus}:04.{number}" for number in range(4)]
    assert [each.id for each in layout.devices] == ["disk-blk0", "nic-card0", "rng", "balloon"]


@pytest.mark.parametrize("major", MAJORS)
def test_a_viommu_is_said_and_older_root_ports_are_known(major: str) -> None:
    description = described("viommu-q35", major)

    assert [each.kind for each in description.machine.pci.controllers] == [
        ControllerKind.INTEL_ROOT_PORT,
        ControllerKind.ROOT_PORT,
    ]
    assert description.machine.networks[0].backend == IsolatedNet()
    assert "it has an intel-iommu: the next start has none, and its devices go without it" in description.doubts


@pytest.mark.parametrize("major", MAJORS)
def test_memory_modules_are_slots_and_the_base_is_the_rest(major: str) -> None:
    description = described("dimms-q35", major)
    memory = description.machine.memory

    assert (memory.boot_bytes, memory.max_bytes) == (64 * MIB, 1024 * MIB)
    assert memory.dimms == (Dimm(slot=0, size_bytes=128 * MIB), Dimm(slot=3, size_bytes=256 * MIB))
    assert memory.asked_bytes == 448 * MIB
    assert (description.machine.cpu.count, description.machine.cpu.max_count) == (2, 4)
    assert description.aliases.devices == {
        "cpu-1": "/machine/peripheral-anon/device[1]",
        "dimm-0": "dimm1",
        "dimm-3": "/machine/peripheral-anon/device[0]",
    }


@pytest.mark.parametrize("major", MAJORS)
def test_virtio_mem_is_a_device_with_a_place(major: str) -> None:
    description = described("virtio-mem-pc", major)

    assert description.machine.memory.virtio_mem == VirtioMem(
        max_bytes=512 * MIB, block_bytes=2 * MIB, requested_bytes=64 * MIB
    )
    assert description.machine.memory.max_bytes == 1024 * MIB
    assert [(each.id, str(each.address)) for each in description.machine.pci.devices] == [("memory", "pci.0:06.0")]
    assert description.aliases.devices == {"memory": "vm0"}


def test_a_machine_of_another_kind_is_refused() -> None:
    with pytest.raises(Refused, match="only q35 and pc"):
        described("ours-q35", changed={"/machine type": "microvm-machine"})

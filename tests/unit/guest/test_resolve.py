"""From spec to machine: what is chosen once and kept, and every spec that a node cannot serve, with its message."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestlet.api.disk_spec import DiskSpec
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.observed import ObservedGuest
from guestlet.guest.resolve import TB_SIZE_MIB, resolve_machine
from guestlet.guest.resolve_disks import resolve_disks
from guestlet.guest.resolve_networks import generated_mac, tap_name
from guestlet.host.facts import PoolFacts
from guestlet.pci.address import parse_address
from guestlet.qemu.machine import Accelerator, DiskBus, FirmwareType, ImageFormat, KernelBoot, Machine, MachineType
from unit.guest.guest_samples import (
    CAPABILITIES,
    GIB,
    KVM,
    NODE,
    POOL,
    QEMU,
    SLOW_KVM,
    UUID,
    disk,
    guest,
    image,
    machine,
    network,
    observed,
    storage,
)
from unit.qemu.sample_machines import file_of

LOOK = observed()
BAD_NAME = Refused(Reason.IMAGE_NAME_REFUSED, "image 'x' is a link that leads out of pool default")


def resolved(
    spec: Mapping[str, Any] | None = None, look: ObservedGuest | None = None, previous: Machine | None = None
) -> Machine:
    return resolve_machine(guest=guest(spec), observed=look or observed(), previous=previous, uuid=UUID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A spec that the node cannot serve: what it is refused with. ``says``: field, value and remedy in the message."""

    spec: Mapping[str, Any]
    reason: Reason
    says: tuple[str, ...]
    look: ObservedGuest = LOOK
    previous: Machine | None = None


REFUSALS: Mapping[str, Bad] = {
    "KVM that does not work": Bad(
        spec={"accelerator": "KVM"},
        reason=Reason.ACCELERATOR_MISSING,
        says=("spec.accelerator", "node-a", "there is no /dev/kvm", "use Auto or TCG"),
    ),
    "a machine type this QEMU lost": Bad(
        spec={},
        previous=replace(machine(), machine_type="pc-q35-6.1"),
        reason=Reason.MACHINE_TYPE_MISSING,
        says=("pc-q35-6.1", "7.2.22", "install a QEMU that has it"),
    ),
    "a family this QEMU never had": Bad(
        spec={"machine": {"type": "pc"}},
        look=observed(capabilities=replace(CAPABILITIES, machine_types={"q35": "pc-q35-7.2"})),
        reason=Reason.MACHINE_TYPE_MISSING,
        says=("spec.machine.type", "'pc'"),
    ),
    "another chipset after the first start": Bad(
        spec={"machine": {"type": "pc"}},
        previous=machine(),
        reason=Reason.INVALID_SPEC,
        says=("spec.machine.type", "pc", "set it back"),
    ),
    "another device bus after the first start": Bad(
        spec={"pci": {"deviceBus": "PCIBridge"}},
        previous=machine(),
        reason=Reason.INVALID_SPEC,
        says=("spec.pci.deviceBus", "PCIBridge", "set it back to RootPort"),
    ),
    "UEFI on a node without firmware": Bad(
        spec={"firmware": {"type": "UEFI"}},
        look=observed(storage=storage(firmware=None, firmware_present=False)),
        reason=Reason.FIRMWARE_MISSING,
        says=("spec.firmware.type", "UEFI", "install Debian's package ovmf"),
    ),
    "the firmware of the first start is gone": Bad(
        spec={"firmware": {"type": "UEFI"}},
        previous=replace(machine(), firmware=FirmwareType.UEFI, firmware_image="OLD_CODE.fd"),
        look=observed(storage=storage(firmware_present=False)),
        reason=Reason.FIRMWARE_MISSING,
        says=("spec.firmware.type", "OLD_CODE.fd", "install"),
    ),
    "a kernel in no pool": Bad(
        spec={"boot": {"kernel": {"pool": "fast", "image": "vmlinuz"}}},
        reason=Reason.NO_SUCH_POOL,
        says=("spec.boot.kernel.pool", "'fast'"),
    ),
    "a kernel that is not there": Bad(
        spec={"boot": {"kernel": {"pool": "default", "image": "vmlinuz"}}},
        reason=Reason.IMAGE_MISSING,
        says=("spec.boot.kernel.image", "'vmlinuz'", "put it there or correct the name"),
    ),
    "an initrd that is not there": Bad(
        spec={"boot": {"kernel": {"pool": "default", "image": "vmlinuz", "initrd": "initrd.img"}}},
        look=observed(storage=storage(image("vmlinuz"))),
        reason=Reason.IMAGE_MISSING,
        says=("spec.boot.kernel.initrd", "'initrd.img'", "put it there or correct the name"),
    ),
    "a kernel by a link out of the pool": Bad(
        spec={"boot": {"kernel": {"pool": "default", "image": "x"}}},
        look=observed(storage=storage(images={("default", "x"): BAD_NAME})),
        reason=Reason.IMAGE_NAME_REFUSED,
        says=("spec.boot.kernel.image", "leads out of pool"),
    ),
    "more CPUs than the node": Bad(
        spec={"cpu": {"count": 8}},
        reason=Reason.INSUFFICIENT_CPUS,
        says=("spec.cpu.count", "8 virtual CPUs", "node-a with 4 CPUs", "use at most 4"),
    ),
    "CPUs that cannot be arranged": Bad(
        spec={"cpu": {"count": 4, "cores": 3}},
        reason=Reason.INVALID_SPEC,
        says=("spec.cpu", "count 4", "correct one of them"),
    ),
    "an unknown CPU model": Bad(
        spec={"cpu": {"model": "Pentium9"}},
        reason=Reason.UNKNOWN_CPU_MODEL,
        says=("spec.cpu.model", "'Pentium9'", "known are Host, Max and Nehalem"),
    ),
    "the host's CPU without KVM": Bad(
        spec={"cpu": {"model": "Host"}},
        reason=Reason.UNKNOWN_CPU_MODEL,
        says=("spec.cpu.model", "Host needs KVM", "use Max or a named model"),
    ),
    "more memory than is left": Bad(
        spec={"memory": {"size": "4Gi"}},
        look=observed(committed_memory_bytes=4 * GIB),
        reason=Reason.INSUFFICIENT_MEMORY,
        says=("spec.memory.size", "4Gi", "node-a", "3Gi free", "ask for less"),
    ),
    "a bridge the node does not allow": Bad(
        spec={"networks": [{"name": "lan", "bridge": {"name": "virbr7"}}]},
        reason=Reason.NO_SUCH_BRIDGE,
        says=("spec.networks[lan].bridge.name", "'virbr7'", "br0, br1", "allow it in the node's settings"),
    ),
    "a bridge that is not there": Bad(
        spec={"networks": [{"name": "wan", "user": {}}, {"name": "lan", "bridge": {"name": "br1"}}]},
        reason=Reason.NO_SUCH_BRIDGE,
        says=("spec.networks[lan].bridge.name", "'br1'", "create it"),
    ),
    "an up script that is not there": Bad(
        spec={"networks": [{"name": "lan", "tap": {"upScript": "up.sh"}}]},
        reason=Reason.NO_SUCH_SCRIPT,
        says=("spec.networks[lan].tap.upScript", "'up.sh'", "scriptsDir"),
    ),
    "a down script that is not there": Bad(
        spec={"networks": [{"name": "lan", "tap": {"upScript": "up.sh", "downScript": "down.sh"}}]},
        look=observed(network=network(scripts=("up.sh",))),
        reason=Reason.NO_SUCH_SCRIPT,
        says=("spec.networks[lan].tap.downScript", "'down.sh'", "scriptsDir"),
    ),
    "a MAC that was generated for another": Bad(
        spec={
            "networks": [
                {"name": "lan", "user": {}},
                {"name": "wan", "user": {}, "macAddress": generated_mac(UUID, "lan")},
            ]
        },
        reason=Reason.INVALID_SPEC,
        says=("spec.networks[wan].macAddress", generated_mac(UUID, "lan"), "lan", "give another"),
    ),
    "a network without a backend": Bad(
        spec={"networks": [{"name": "lan"}]},
        reason=Reason.INVALID_SPEC,
        says=("spec.networks[lan]", "exactly one of user, bridge, tap and isolated"),
    ),
    "a disk without a source": Bad(
        spec={"disks": [{"name": "root", "source": {}}]},
        reason=Reason.INVALID_SPEC,
        says=("spec.disks[root].source", "name exactly one source"),
    ),
    "a pool the node does not have": Bad(
        spec={"disks": [disk(file={"pool": "fast"})]},
        reason=Reason.NO_SUCH_POOL,
        says=("spec.disks[root].source.file.pool", "'fast'", "add it to the node's settings"),
    ),
    "a pool that is not mounted": Bad(
        spec={"disks": [disk(size="1Gi")]},
        look=observed(storage=storage(pools={"default": PoolFacts(name="default", identity=None, free_bytes=0)})),
        reason=Reason.POOL_NOT_READY,
        says=("spec.disks[root].source.file.pool", "'default'", ".guestlet-pool", "mount it"),
    ),
    "an image by a link out of the pool": Bad(
        spec={"disks": [disk(file={"image": "x"})]},
        look=observed(storage=storage(images={("default", "x"): BAD_NAME})),
        reason=Reason.IMAGE_NAME_REFUSED,
        says=("spec.disks[root].source.file.image", "leads out of pool"),
    ),
    "an image of another format": Bad(
        spec={"disks": [disk(file={"format": "Raw"})]},
        look=observed(storage=storage(image())),
        reason=Reason.IMAGE_FORMAT_MISMATCH,
        says=("spec.disks[root].source.file.format", "Raw", "'root.qcow2' is Qcow2", "correct the format or the image"),
    ),
    "an image on another backing image": Bad(
        spec={"disks": [disk(file={"backingImage": "base.qcow2"})]},
        look=observed(storage=storage(image(backing_image="other.qcow2"), image("base.qcow2"))),
        reason=Reason.BACKING_IMAGE_MISMATCH,
        says=("spec.disks[root].source.file.backingImage", "'base.qcow2'", "'other.qcow2'", "name exactly that image"),
    ),
    "a backing image that is not there": Bad(
        spec={"disks": [disk(file={"backingImage": "base.qcow2"})]},
        reason=Reason.BACKING_IMAGE_MISSING,
        says=("spec.disks[root].source.file.backingImage", "'base.qcow2'", "put it there"),
    ),
    "a backing image by a link out of the pool": Bad(
        spec={"disks": [disk(file={"backingImage": "x"})]},
        look=observed(storage=storage(images={("default", "x"): BAD_NAME})),
        reason=Reason.IMAGE_NAME_REFUSED,
        says=("spec.disks[root].source.file.backingImage", "leads out of pool"),
    ),
    "an image that would shrink": Bad(
        spec={"disks": [disk(size="512Mi")]},
        look=observed(storage=storage(image())),
        reason=Reason.IMAGE_SIZE_MISMATCH,
        says=("spec.disks[root].size", "512Mi", "1Gi", "ask for at least that"),
    ),
    "an address for a SATA disk": Bad(
        spec={"disks": [disk(bus="SATA", size="1Gi", pciAddress="pcie.0:05.0")]},
        reason=Reason.PCI_ADDRESS_REFUSED,
        says=("spec.disks[root].pciAddress", "SATA", "leave it out"),
    ),
    "an address the chipset has": Bad(
        spec={"disks": [disk(size="1Gi", pciAddress="pcie.0:1f.0")]},
        reason=Reason.PCI_ADDRESS_REFUSED,
        says=("disks[root].pciAddress", "pcie.0:1f.0", "choose another or leave it out"),
    ),
    "an address that a controller has": Bad(
        spec={"disks": [disk(size="1Gi", pciAddress="pcie.0:01.0")]},
        reason=Reason.PCI_ADDRESS_TAKEN,
        says=("disks[root].pciAddress", "pcie.0:01.0", "choose another or leave it out"),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_spec_that_cannot_be_served_is_refused_by_field_value_and_remedy(case: str) -> None:
    bad = REFUSALS[case]

    with pytest.raises(Refused) as refusal:
        resolved(bad.spec, bad.look, bad.previous)

    assert refusal.value.reason == bad.reason
    for words in bad.says:
        assert words in refusal.value.message


def test_more_disks_than_a_bus_has_units_are_refused() -> None:
    specs = tuple(DiskSpec.model_validate(disk(f"d{number}", bus="SATA", size="1Gi")) for number in range(31))

    with pytest.raises(Refused, match=r"spec.disks\[d30\].bus: SATA has 30 units .* use Virtio or SCSI") as refusal:
        resolve_disks(specs, storage=storage(), previous=None)

    assert refusal.value.reason == Reason.PCI_EXHAUSTED


def test_what_runs_is_not_refused_the_memory_it_has() -> None:
    look = observed(running=QEMU, committed_memory_bytes=7 * GIB)

    assert resolved({"memory": {"size": "1Gi"}}, look).memory.boot_bytes == GIB


@pytest.mark.parametrize(
    ("wanted", "probe", "found"),
    [
        ("Auto", KVM, Accelerator.KVM),
        ("Auto", SLOW_KVM, Accelerator.TCG),
        ("TCG", KVM, Accelerator.TCG),
        ("KVM", SLOW_KVM, Accelerator.KVM),
    ],
)
def test_auto_takes_the_faster_accelerator_and_a_user_may_insist(wanted: str, probe: Any, found: Accelerator) -> None:
    machine = resolved({"accelerator": wanted}, observed(accelerator=probe))

    assert machine.accelerator is found
    assert machine.tb_size_mib == (TB_SIZE_MIB if found is Accelerator.TCG else None)


@pytest.mark.parametrize(
    ("cpu", "topology"),
    [
        ({"count": 4}, (4, 1, 1)),
        ({"count": 4, "cores": 2}, (2, 2, 1)),
        ({"count": 4, "sockets": 1}, (1, 4, 1)),
        ({"count": 4, "sockets": 1, "cores": 2}, (1, 2, 2)),
        ({"count": 4, "threads": 2}, (2, 1, 2)),
        ({"count": 4, "sockets": 2, "cores": 2, "threads": 1}, (2, 2, 1)),
    ],
)
def test_the_absent_part_of_a_topology_takes_the_rest(cpu: dict[str, int], topology: tuple[int, int, int]) -> None:
    found = resolved({"cpu": cpu}).cpu

    assert (found.sockets, found.cores, found.threads) == topology


@pytest.mark.parametrize(
    ("model", "found"), [(None, "Nehalem-v1"), ("qemu64", "qemu64-v1"), ("Max", "max"), ("Nehalem-v1", "Nehalem-v1")]
)
def test_a_cpu_model_is_resolved_to_its_version(model: str | None, found: str) -> None:
    assert resolved({"cpu": {"model": model} if model else {}}).cpu.model == found


def test_host_is_taken_under_kvm() -> None:
    assert resolved({"cpu": {"model": "Host"}}, observed(accelerator=KVM)).cpu.model == "host"


def test_the_first_start_fixes_machine_type_cpu_model_and_firmware() -> None:
    first = resolved({"firmware": {"type": "UEFI"}})
    newer = observed(
        capabilities=replace(
            CAPABILITIES,
            machine_types={"q35": "pc-q35-10.0"},
            all_machine_types=(*CAPABILITIES.all_machine_types, "pc-q35-10.0"),
            cpu_aliases={"Nehalem": "Nehalem-v2"},
        ),
        storage=storage(firmware="NEW_CODE.fd"),
    )

    second = resolved({"firmware": {"type": "UEFI"}}, newer, first)

    assert second == first


def test_a_named_cpu_model_may_change_at_a_start() -> None:
    assert resolved({"cpu": {"model": "qemu64"}}, previous=resolved()).cpu.model == "qemu64-v1"


def test_pc_has_its_own_versioned_type() -> None:
    assert resolved({"machine": {"type": MachineType.PC.value}}).machine_type == "pc-i440fx-7.2"


def test_every_field_of_a_kernel_reaches_the_machine() -> None:
    kernel = {"pool": "default", "image": "vmlinuz", "initrd": "initrd.img", "cmdline": "console=ttyS0"}
    look = observed(storage=storage(image("vmlinuz"), image("initrd.img")))

    found = resolved({"boot": {"kernel": kernel}}, look).kernel

    assert found == KernelBoot(pool="default", image="vmlinuz", initrd="initrd.img", cmdline="console=ttyS0")


def test_every_field_of_a_disk_reaches_the_machine() -> None:
    wanted = disk(
        "root",
        bus="NVMe",
        file={"image": "r.img", "format": "Raw"},
        readOnly=True,
        serial="SN-1",
        cache="None",
        aio="Native",
        discard="Ignore",
        ioThread=True,
        bootOrder=3,
        pciAddress="pcie.0:05.0",
    )
    raw = image("r.img", format=ImageFormat.RAW)

    machine = resolved({"disks": [wanted]}, observed(storage=storage(raw)))

    (found,) = machine.disks
    assert found.bus is DiskBus.NVME
    source = file_of(found)
    assert (source.pool, source.image, source.format) == ("default", "r.img", ImageFormat.RAW)
    assert (found.read_only, found.cdrom, found.serial) == (True, False, "SN-1")
    assert (found.cache.value, found.aio.value, found.discard.value) == ("None", "Native", "Ignore")
    assert (found.io_thread, found.boot_order, found.size_bytes) == (True, 3, GIB)
    assert machine.pci.devices[0].address == parse_address("pcie.0:05.0")


def test_every_field_of_a_network_reaches_the_machine() -> None:
    forward = {"protocol": "UDP", "hostAddress": "127.0.0.2", "hostPort": 2222, "guestPort": 22}
    wanted = {
        "name": "lan",
        "model": "Virtio",
        "macAddress": "52:54:00:AB:CD:EF",
        "tap": {"upScript": "up.sh", "downScript": "down.sh"},
        "queues": 4,
        "linkUp": False,
        "bootOrder": 2,
        "pciAddress": "pcie.0:06.0",
    }
    plain = {"name": "out", "user": {"hostForwards": [forward]}}
    look = observed(network=network(scripts=("up.sh", "down.sh")))

    machine = resolved({"networks": [wanted, plain]}, look)

    lan, out = machine.networks
    assert (lan.mac, lan.queues, lan.link_up, lan.boot_order) == ("52:54:00:ab:cd:ef", 4, False, 2)
    assert lan.tap == tap_name(UUID, "lan")
    assert out.tap is None
    assert "host_port=2222" in repr(out.backend)
    assert machine.pci.devices[0].address == parse_address("pcie.0:06.0")


def test_every_small_device_and_the_log_reach_the_machine() -> None:
    off = {"devices": {"rng": False, "balloon": False, "pvpanic": False}, "console": {"serialLog": False}}
    on = {"devices": {"watchdog": {"action": "Pause"}}}

    assert (resolved(off).rng, resolved(off).balloon, resolved(off).pvpanic) == (False, False, False)
    assert (resolved(off).serial_log, resolved(off).watchdog) == (False, None)
    assert (resolved(on).rng, resolved(on).balloon, resolved(on).pvpanic) == (True, True, True)
    assert resolved(on).watchdog == "Pause"
    assert resolved().sandbox


def test_a_cdrom_is_read_only_and_a_serial_is_made_of_the_name() -> None:
    drive = disk("installer", bus="SATA", cdrom=True, readOnly=True, file={"image": "a"})

    (found,) = resolved({"disks": [drive]}, observed(storage=storage(image("a")))).disks

    assert found.read_only
    assert found.serial == "installer"


def test_an_overlay_has_the_size_of_its_backing_image() -> None:
    base = image("base.qcow2", virtual_size_bytes=3 * GIB)

    (found,) = resolved({"disks": [disk(file={"backingImage": "base.qcow2"})]}, observed(storage=storage(base))).disks

    assert found.size_bytes == 3 * GIB
    assert file_of(found).backing_format is ImageFormat.QCOW2


CORRUPT = Refused(Reason.IMAGE_CORRUPT, "image 'root.img' has a qcow2 header that cannot be read")


def test_an_image_that_cannot_be_read_is_refused() -> None:
    look = observed(storage=storage(images={("default", "root.qcow2"): CORRUPT}))

    with pytest.raises(Refused, match=r"spec.disks\[root\].source.file.image: .* cannot be read") as refusal:
        resolved({"disks": [disk()]}, look)

    assert refusal.value.reason == Reason.IMAGE_CORRUPT


@pytest.mark.parametrize("found", [CORRUPT, image("root.img", format=ImageFormat.QCOW2, virtual_size_bytes=1)])
def test_what_a_guest_wrote_into_its_raw_disk_changes_nothing(found: Any) -> None:
    spec = {"disks": [disk(size="1Gi", file={"image": "root.img", "format": "Raw"})]}
    first = resolved(spec)
    look = observed(storage=storage(images={("default", "root.img"): found}))

    assert resolved(spec, look, first).disks == first.disks
    with pytest.raises(Refused):
        resolved(spec, look)


def test_units_stay_with_their_disks_when_others_come_and_go() -> None:
    first = resolved({"disks": [disk(name, bus="SCSI", size="1Gi") for name in ("a", "b", "c")]})
    second = resolved({"disks": [disk(name, bus="SCSI", size="1Gi") for name in ("c", "d", "b")]}, previous=first)

    assert {each.name: each.unit for each in first.disks} == {"a": 0, "b": 1, "c": 2}
    assert {each.name: each.unit for each in second.disks} == {"c": 2, "d": 0, "b": 1}


names = st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z0-9]", fullmatch=True), unique=True, max_size=6)


@given(before=names, after=names)
def test_macs_serials_taps_and_addresses_never_move(before: list[str], after: list[str]) -> None:
    def spec(wanted: list[str]) -> Mapping[str, Any]:
        return {
            "disks": [disk(name, size="1Gi") for name in wanted],
            "networks": [{"name": name, "bridge": {"name": "br0"}} for name in wanted],
        }

    first = resolved(spec(before))
    second = resolved(spec(after), previous=first)

    for kept in set(before) & set(after):
        (old,) = (each for each in first.networks if each.name == kept)
        (new,) = (each for each in second.networks if each.name == kept)
        assert (new.mac, new.tap) == (old.mac, old.tap)
    places = {each.id: each.address for each in first.pci.devices}
    assert all(places.get(each.id, each.address) == each.address for each in second.pci.devices)
    assert resolved(spec(after), previous=second) == second


def test_macs_and_taps_differ_between_guests_and_networks() -> None:
    pairs = [(uuid, name) for uuid in ("one", "two") for name in ("lan", "wan")]

    assert len({generated_mac(*pair) for pair in pairs}) == 4
    assert len({tap_name(*pair) for pair in pairs}) == 4
    assert all(len(tap_name(*pair)) <= 15 for pair in pairs)
    assert all(generated_mac(*pair).startswith("52:54:00:") for pair in pairs)


def test_a_mac_that_was_once_given_is_kept_when_the_user_leaves_it_out() -> None:
    first = resolved({"networks": [{"name": "lan", "user": {}, "macAddress": "52:54:00:00:00:09"}]})

    second = resolved({"networks": [{"name": "lan", "user": {}}]}, previous=first)

    assert second.networks[0].mac == "52:54:00:00:00:09"


def test_a_machine_is_resolved_only_after_looking() -> None:
    with pytest.raises(ValueError, match="storage"):
        resolved({}, replace(observed(), storage=None))
    with pytest.raises(ValueError, match="network"):
        resolved({}, replace(observed(), network=None))


def test_the_node_and_pool_of_these_tests_are_as_the_messages_say() -> None:
    assert (NODE.cpus, POOL.name) == (4, "default")

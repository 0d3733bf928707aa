"""What cannot be said for certain is left alone and told of; nothing is named by a guess."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.errors import Broken, Refused
from guestlet.guest.recovery.description import Description
from guestlet.guest.recovery.naming import bus_name, default_serial, part_name
from guestlet.guest.resolve_disks import resolve_disk
from guestlet.qemu.machine import FirmwareType, ImageFormat, KernelBoot
from unit.guest.guest_samples import disk, image, storage
from unit.guest.recovery.descriptions import described
from unit.qemu.shapes.recorded import recorded


def block(name: str, edit: Callable[[dict[str, Any]], None]) -> dict[str, object]:
    """``query-block`` of a shape, its first drive with a medium changed."""
    drives: Any = copy.deepcopy(recorded(name, "10").replies["block"])
    edit(next(each for each in drives if "inserted" in each))
    return {"block": drives}


def tree(name: str, pattern: str, by: str) -> dict[str, object]:
    """The device tree of a shape with some text of it changed."""
    text = str(recorded(name, "10").replies["tree"])
    changed, times = re.subn(pattern, by, text)
    assert times
    return {"tree": changed}


def doubt(description: Description, pattern: str) -> str:
    found = [each for each in description.doubts if re.search(pattern, each)]
    assert len(found) == 1, description.doubts
    return found[0]


def test_an_image_in_no_pool_leaves_its_disk_anonymous_with_its_address_reserved() -> None:
    description = described("multifunction-q35", pools={"/pools/other": "other"})

    assert description.machine.disks == ()
    assert description.outside == ("/pools/default/first.qcow2",)
    assert [(each.id, str(each.address)) for each in description.machine.pci.anonymous] == [("blk0", "pcie.0:04.0")]
    assert "left alone" in doubt(description, "disk blk0: its image .* is in no pool")


def test_a_relative_file_name_is_looked_for_where_qemu_works() -> None:
    def shorten(drive: dict[str, Any]) -> None:
        drive["inserted"]["image"]["filename"] = "first.qcow2"

    nodes: Any = copy.deepcopy(recorded("multifunction-q35", "10").replies["nodes"])
    for each in nodes:
        each["file"] = "first.qcow2"
    changed = {**block("multifunction-q35", shorten), "nodes": nodes}

    assert described("multifunction-q35", changed=changed, folder="/pools/default").machine.disks[0].source is not None
    assert described("multifunction-q35", changed=changed, folder="/elsewhere").outside == ("first.qcow2",)


def test_an_image_of_another_kind_leaves_its_disk_alone() -> None:
    def other(drive: dict[str, Any]) -> None:
        drive["inserted"]["drv"] = "vmdk"

    description = described("multifunction-q35", changed=block("multifunction-q35", other))

    assert (description.machine.disks, description.outside) == ((), ())
    doubt(description, "is vmdk, not a Raw or Qcow2 file")


def test_a_raw_host_device_is_not_taken_for_a_file_of_a_pool() -> None:
    nodes: Any = copy.deepcopy(recorded("multifunction-q35", "10").replies["nodes"])
    for each in nodes:
        each["drv"] = "host_device" if each["drv"] == "file" else each["drv"]

    description = described("multifunction-q35", changed={"nodes": nodes})

    assert description.machine.disks == ()


def test_a_chain_of_three_images_leaves_its_disk_alone() -> None:
    def deepen(drive: dict[str, Any]) -> None:
        lower = drive["inserted"]["image"]["backing-image"]
        lower["backing-image"] = {**lower, "filename": "/pools/default/older.qcow2"}

    description = described("ours-q35", changed=block("ours-q35", deepen))

    assert [each.name for each in description.machine.disks] == ["data", "seed"]
    doubt(description, "disk disk-root: its image .* has a chain of 3 images")


@pytest.mark.parametrize(("name", "by"), [("lun", "lun = 3"), ("channel", "channel = 1")])
def test_a_scsi_disk_where_guestlet_would_not_put_one_is_left_alone_with_its_controller(name: str, by: str) -> None:
    description = described("libvirt-q35", changed=tree("libvirt-q35", rf"\b{name} = 0", by))

    assert [each.name for each in description.machine.disks] == ["virtio-disk0", "sata0-0-0"]
    assert "scsi0" in [each.id for each in description.machine.pci.anonymous]
    doubt(description, "guestlet makes LUN 0 of channel 0 only")


def test_limits_of_one_direction_are_told_of() -> None:
    def limit(drive: dict[str, Any]) -> None:
        drive["inserted"]["iops_rd"] = 100

    description = described("multifunction-q35", changed=block("multifunction-q35", limit))

    assert description.machine.disks[0].throttle is None
    doubt(description, "throttled in one direction only")


def test_a_tap_whose_name_is_not_known_leaves_its_card_alone() -> None:
    description = described("libvirt-q35", taps={})

    assert description.machine.networks == ()
    assert "net0" in [each.id for each in description.machine.pci.anonymous]
    doubt(description, "network card net0 .*: the name of its tap is not known")


def test_a_backend_that_guestlet_does_not_make_leaves_its_card_alone() -> None:
    text = str(recorded("multifunction-q35", "10").replies["network"]).replace("type=user", "type=vhost-user")

    doubt(described("multifunction-q35", changed={"network": text}), "of type vhost-user, which guestlet does not make")


def test_two_of_a_small_device_are_one_named_and_one_anonymous() -> None:
    description = described(
        "multifunction-q35", changed=tree("multifunction-q35", "virtio-balloon-pci", "virtio-rng-pci")
    )

    assert description.machine.rng
    assert [each.id for each in description.machine.pci.anonymous] == ["bal0"]
    doubt(description, "more than one virtio-rng-pci: bal0 is left alone")


def test_memory_that_does_not_add_up_is_refused() -> None:
    wrong = {"base-memory": 64 << 20, "plugged-memory": 128 << 20}

    with pytest.raises(Refused, match="384Mi in all and QEMU says 128Mi"):
        described("dimms-q35", changed={"memory": wrong})


def test_memory_of_something_else_is_told_of() -> None:
    objects: Any = recorded("dimms-q35", "10").replies["memory objects"]
    more = [*objects, {"id": "shared", "size": 1 << 20}]

    doubt(described("dimms-q35", changed={"memory objects": more}), "something else has memory too")


def test_memory_of_another_kind_is_refused() -> None:
    with pytest.raises(Refused, match="are not DIMMs and one virtio-mem at most"):
        described(
            "dimms-q35",
            changed={"memory devices": [{"type": "nvdimm", "data": {"size": 1 << 20, "slot": 0}}]},
        )


def test_dies_are_refused_because_the_guest_would_see_other_cpus() -> None:
    with pytest.raises(Refused, match="arranged in dies"):
        described("dimms-q35", changed={"/machine smp": {"sockets": 1, "dies": 2, "cores": 2, "threads": 1}})


def test_cpus_that_are_not_the_first_are_told_of() -> None:
    slots: Any = copy.deepcopy(recorded("dimms-q35", "10").replies["cpu slots"])
    slots[0]["qom-path"] = slots[2].pop("qom-path")

    doubt(described("dimms-q35", changed={"cpu slots": slots}), "not the first ones")


def flash(number: int, file: str) -> dict[str, Any]:
    """A drive of the firmware's, as ``-drive if=pflash`` makes it."""
    inserted = {"node-name": f"#block{number}", "drv": "raw", "image": {"filename": file, "virtual-size": 1 << 20}}
    return {"device": f"pflash{number}", "qdev": f"/machine/system.flash{number}", "inserted": inserted}


def test_firmware_in_flash_drives_is_known_by_its_file_and_variables_elsewhere_are_told_of() -> None:
    drives: Any = recorded("multifunction-q35", "10").replies["block"]
    changed = {
        "block": [*drives, flash(0, "/usr/share/OVMF/OVMF_CODE_4M.fd"), flash(1, "/srv/vars.fd")],
        "/machine pflash0": "pflash0",
        "/machine pflash1": "pflash1",
    }

    description = described("multifunction-q35", changed=changed)

    assert description.machine.firmware is FirmwareType.UEFI
    assert description.machine.firmware_image == "OVMF_CODE_4M.fd"
    doubt(description, "its UEFI variables in /srv/vars.fd are not where guestlet keeps them")
    assert not any("open for" in each for each in description.doubts)


def test_a_kernel_in_a_pool_is_booted_again_and_one_elsewhere_is_told_of() -> None:
    inside = {"/machine kernel": "/pools/default/vmlinuz", "/machine initrd": "/pools/default/initrd.img"}
    changed = {**inside, "/machine append": "console=ttyS0 quiet"}

    known = described("multifunction-q35", changed=changed).machine.kernel
    unknown = described("multifunction-q35", changed={**changed, "/machine initrd": "/boot/initrd.img"})

    assert known == KernelBoot(pool="default", image="vmlinuz", initrd="initrd.img", cmdline="console=ttyS0 quiet")
    assert unknown.machine.kernel is None
    doubt(unknown, "is in no pool: the next start boots from disk")


def test_a_firmware_of_its_own_is_told_of() -> None:
    doubt(described("multifunction-q35", argv=("qemu", "-bios", "OVMF.fd")), "its firmware is OVMF.fd")


def test_a_tree_that_cannot_be_read_is_no_description() -> None:
    with pytest.raises(Refused, match=r"device tree .* cannot be read"):
        described("ours-q35", changed={"tree": "no such command"})


def test_a_device_that_the_tree_does_not_show_is_told_of() -> None:
    named: Any = recorded("ours-q35", "10").replies["named"]

    description = described("ours-q35", changed={"named": [*named, {"name": "ghost", "type": "child<ghost>"}]})

    doubt(description, "device ghost is not in QEMU's device tree")


def test_a_function_that_only_query_pci_shows_keeps_its_address() -> None:
    pci: Any = copy.deepcopy(recorded("multifunction-q35", "10").replies["pci"])
    pci[0]["devices"].append({**pci[0]["devices"][0], "slot": 9, "qdev_id": ""})

    description = described("multifunction-q35", changed={"pci": pci})

    assert [str(each.address) for each in description.machine.pci.anonymous] == ["pcie.0:09.0"]
    doubt(description, "query-pci has a device at pcie.0:09.0")


def test_an_answer_that_is_missing_altogether_is_no_description() -> None:
    with pytest.raises(Broken, match="cannot be read"):
        described("ours-q35", changed={"memory": {}})


def test_the_users_names_are_found_by_image_and_by_mac() -> None:
    spec = VirtualGuestSpec.model_validate(
        {
            "disks": [disk("system", file={"image": "first.qcow2"})],
            "networks": [{"name": "lan", "macAddress": "52:54:00:00:00:01", "user": {}}],
        }
    )

    description = described("multifunction-q35", spec=spec)

    assert [each.name for each in description.machine.disks] == ["system"]
    assert [each.name for each in description.machine.networks] == ["lan"]
    assert description.aliases.devices["disk-system"] == "blk0"
    assert description.aliases.devices["nic-lan"] == "card0"


def test_an_image_that_two_disks_of_the_spec_name_names_neither() -> None:
    spec = VirtualGuestSpec.model_validate(
        {"disks": [disk("one", file={"image": "first.qcow2"}), disk("two", file={"image": "first.qcow2"})]}
    )

    assert [each.name for each in described("multifunction-q35", spec=spec).machine.disks] == ["blk0"]


def test_names_are_kept_as_far_as_the_api_can_hold_them() -> None:
    assert part_name("disk-", found="disk-root", taken=set(), otherwise="disk") == "root"
    assert part_name("disk-", found="Drive_A.1", taken=set(), otherwise="disk") == "drive-a-1"
    assert part_name("disk-", found="root", taken={"root"}, otherwise="disk") == "root-2"
    assert part_name("disk-", found="", taken=set(), otherwise="disk") == "disk"
    assert len(part_name("disk-", found="x" * 60, taken={"x" * 32}, otherwise="disk")) <= 32
    assert bus_name("RP_1", kind="pcie-root-port", taken={"pcie-root-port-1"}) == "pcie-root-port-2"
    assert bus_name("pci.3", kind="pcie-root-port", taken=set()) == "pci.3"


@pytest.mark.parametrize("name", ["root", "a-name-too-long-for-a-serial"])
def test_the_serial_of_a_disk_without_one_is_the_one_that_the_next_start_gives(name: str) -> None:
    spec = VirtualGuestSpec.model_validate({"disks": [disk(name)]}).disks[0]
    made = resolve_disk(spec, earlier=(), storage=storage(image(f"{name}.qcow2", format=ImageFormat.QCOW2)), live=())

    assert default_serial(name) == made.serial

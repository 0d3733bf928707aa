"""The QEMUs and the test guest of the sandbox as they are: each boots on each machine and says what it sees."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.qemu.console import boot
from sandbox.qemu import QemuBuild, ensure_qemu, ensure_system_qemu, link_build, read_version
from sandbox.test_guest import TestGuest, ensure_test_guest

PLUGGED = {
    "q35": (
        *("-device", "pcie-root-port,id=port-1,chassis=1,slot=1"),
        *("-device", "pcie-pci-bridge,id=pcie-bridge"),
        *("-device", "pci-bridge,id=pci-bridge,bus=pcie-bridge,chassis_nr=9,addr=1"),
    ),
    "pc": ("-device", "pci-bridge,id=pci-bridge,chassis_nr=9", "-device", "ahci,id=ide"),
}


@pytest.fixture(scope="session", params=["system", "10"])
def qemu(request: pytest.FixtureRequest) -> QemuBuild:
    return ensure_system_qemu() if request.param == "system" else ensure_qemu(int(request.param))


@pytest.fixture(scope="session")
def test_guest() -> TestGuest:
    return ensure_test_guest()


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short, because sockets are made in it.
    with tempfile.TemporaryDirectory(prefix="gq-", dir="/tmp") as name:
        yield Path(name)


def disk(folder: Path, number: int, device: str) -> tuple[str, ...]:
    image = folder / f"disk{number}"
    image.touch()
    os.truncate(image, number * 10 * 2**20)
    drive = f"if=none,id=disk{number},format=raw,file={image}"
    return ("-drive", drive, "-device", f"{device},drive=disk{number}")


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_the_guest_names_every_device_by_its_address_and_heeds_the_power_button(
    qemu: QemuBuild, test_guest: TestGuest, folder: Path, machine: str
) -> None:
    own_port = ",bus=port-1" if machine == "q35" else ""
    devices = (
        *PLUGGED[machine],
        *disk(folder, 1, f"virtio-blk-pci,serial=ONE{own_port}"),
        *disk(folder, 2, "nvme,serial=TWO,bus=pci-bridge,addr=2"),
        *disk(folder, 3, "ide-hd,bus=ide.0,serial=THREE"),
        *("-device", "virtio-scsi-pci,id=scsi"),
        *disk(folder, 4, "scsi-hd,bus=scsi.0,serial=FOUR"),
        *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,mac=52:54:00:00:00:01"),
        *("-nic", "none", "-device", "e1000,bus=pci-bridge,addr=3,mac=52:54:00:00:00:02"),
    )
    with boot(qemu, test_guest, folder, machine, "-smp", "2", *devices) as guest:
        report = guest.report()
        asked = guest.pci_functions()
        guest.execute("system_powerdown")
        assert guest.wait_for_end(timeout_s=4) == 0
    assert report.pci == asked
    assert sorted(report.disks) == [
        (10 * 2**20, "ONE"),
        (20 * 2**20, "TWO"),
        (30 * 2**20, "THREE"),
        (40 * 2**20, "FOUR"),
    ]
    assert sorted(report.nics) == [("52:54:00:00:00:01", "virtio_net"), ("52:54:00:00:00:02", "e1000")]
    assert report.cpus == 2
    assert 250 * 1024 < report.memory_kib <= 256 * 1024


def test_it_obeys_on_the_console(qemu: QemuBuild, test_guest: TestGuest, folder: Path) -> None:
    with boot(qemu, test_guest, folder, "q35", "-device", "i6300esb", "-no-reboot") as guest:
        first = guest.report()
        guest.say("count")
        guest.read_until("count 2")
        guest.say("\x03")
        guest.read_until("guest# ")
        guest.say("report")
        assert guest.report() == first
        guest.say("starve")
        # The watchdog resets the machine, and -no-reboot makes an end of that.
        assert guest.wait_for_end(timeout_s=20) == 0


def test_a_crash_reaches_the_panic_device(qemu: QemuBuild, test_guest: TestGuest, folder: Path) -> None:
    with boot(qemu, test_guest, folder, "q35", "-device", "pvpanic", "-action", "panic=shutdown") as guest:
        guest.report()
        guest.say("crash")
        assert guest.wait_for_end(timeout_s=20) == 0


def test_uefi_boots_the_kernel_as_debian_ships_it(qemu: QemuBuild, test_guest: TestGuest, folder: Path) -> None:
    variables = folder / "vars.fd"
    shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.fd", variables)
    firmware = (
        *("-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"),
        *("-drive", f"if=pflash,format=raw,file={variables}"),
    )
    with boot(qemu, test_guest, folder, "q35", *firmware, kernel=test_guest.uefi_kernel) as guest:
        assert guest.report().pci == guest.pci_functions()


def test_a_linked_build_is_the_same_build(qemu: QemuBuild, folder: Path) -> None:
    linked = link_build(qemu, folder)
    assert read_version(linked) == read_version(qemu)
    assert link_build(qemu, folder) == linked
    assert linked == qemu or linked.binary.is_relative_to(folder)


def test_the_script_prints_the_program_and_nothing_else() -> None:
    script = Path(__file__).resolve().parents[3] / "hack" / "qemu"
    printed = subprocess.run([script, "10"], capture_output=True, text=True, timeout=300, check=True).stdout
    assert printed == f"{ensure_qemu(10).binary}\n"

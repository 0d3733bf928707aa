"""``guestlet pci``: what is recorded, and what the guest's own QEMU says of it."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from guestlet.cli.pci import pci
from guestlet.guest.record import Pending, PendingKind, Record, dump_record
from guestlet.host.process import identity_of
from guestlet.pci.layout import Family
from sandbox.qemu import ensure_system_qemu
from unit.guest.guest_samples import record, run
from unit.qemu.real_qemu import real_qemu
from unit.qemu.sample_machines import bare, disk, laid_out


def printed(folder: Path, remembered: Record) -> Result:
    """What the command prints of a guest that a node below the folder remembers."""
    place = folder / "state" / "guests" / remembered.uuid
    place.mkdir(parents=True, exist_ok=True)
    (place / "record.json").write_bytes(dump_record(remembered))
    settings = {"nodeName": "n1", "stateDir": str(folder / "state"), "runtimeDir": str(folder / "run")}
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))
    return CliRunner().invoke(pci, ["default/demo", "--config", str(folder / "node.yaml")])


def test_a_guest_that_does_not_run_shows_what_is_recorded_and_why_there_is_no_more(tmp_path: Path) -> None:
    plugging = Pending(part="disk-root", kind=PendingKind.PLUG, since=0, asked=0, asked_at=0)
    machine = laid_out(replace(bare(Family.PC), disks=(disk("root"),)))

    result = printed(tmp_path, record(machine=machine, pending=(plugging,)))

    assert result.exit_code == 0
    assert result.stdout == (
        "default/demo on node n1\n"
        "pci.0 (pc; disks and networks: on PCI slots; 25 of 26 hotplug places free)\n"
        "├─ 02.0 disk root (disk-root)                           being plugged\n"
        "└─ 25 slots free (03..1b)\n"
    )
    assert result.stderr == "no addresses of the guest: it does not run\n"


def test_a_guest_whose_qemu_is_silent_shows_what_is_recorded(tmp_path: Path) -> None:
    result = printed(tmp_path, record(machine=bare(Family.Q35), run=run()))

    assert result.exit_code == 0
    assert result.stdout.startswith("default/demo on node n1\npcie.0 (q35; ")
    assert result.stderr.startswith("no addresses of the guest: its QEMU does not answer (")


def test_a_guest_that_never_started_has_no_tree(tmp_path: Path) -> None:
    result = printed(tmp_path, record())

    assert result.exit_code == 1
    assert "default/demo was never started: it has no PCI addresses yet" in result.stderr


@pytest.mark.qemu
@pytest.mark.slow
async def test_a_running_guest_is_asked_for_its_own_addresses() -> None:
    machine = laid_out(replace(bare(Family.Q35), disks=(disk("root"),)), hotplug_ports=1)
    async with real_qemu(ensure_system_qemu(), machine) as qemu:
        remembered = record(machine=machine, run=run(identity=identity_of(qemu.process.pid)))
        folder = Path(qemu.paths.runtime_dir).parent / "node"  # short, as a socket's path must be
        (folder / "run").mkdir(parents=True)
        (folder / "run" / remembered.uuid).symlink_to(qemu.paths.runtime_dir)
        frozen = await asyncio.to_thread(printed, folder, remembered)
        await qemu.ask("cont")
        async with asyncio.timeout(30):
            while (running := await asyncio.to_thread(printed, folder, remembered)).stderr:
                pass

    assert frozen.stderr == "no addresses of the guest: its firmware has not numbered the buses yet\n"
    assert running.stdout == (
        "default/demo on node n1\n"
        "pcie.0 (q35; disks and networks: on RootPort; 1 of 2 hotplug places free)\n"
        "├─ 01.0 pcie-bridge (pcie-pci-bridge)  0000:00:01.0  1b36:000e\n"
        "│  └─ 01.0 bridge-0 (pci-bridge)       0000:01:01.0  1b36:0001\n"
        "│     └─ 31 slots free (01..1f)\n"
        "├─ 02.0 port-0 (pcie-root-port)        0000:00:02.0  1b36:000c\n"
        "│  └─ 00.0 disk root (disk-root)       0000:03:00.0  1af4:1042\n"
        "└─ 02.1 port-1 (pcie-root-port)        0000:00:02.1  1b36:000c\n"
        "   └─ 00.0 free\n"
    )

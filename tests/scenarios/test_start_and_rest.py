"""Stories of guests that start, run and rest."""

from guestlet.guest.files import NEXT_SCRIPT, SOURCE_FILE
from guestlet.pci.address import parse_address
from guestlet.qemu.machine import ImageFormat
from guestlet.qemu.replies import RunState
from scenarios.stage import Stage, disk
from unit.guest.guest_samples import KVM, SLOW_KVM


async def test_a_new_guest_is_ready_in_at_most_four_writes(stage: Stage) -> None:
    await stage.create(disks=[disk()], networks=[{"name": "lan", "user": {}}])
    await stage.passes(5)

    bindings = 1
    assert stage.ready()
    assert stage.says("Ready") == ("True", "Running")
    assert stage.phase() == "Running"
    assert stage.writes + bindings <= 4
    assert stage.launches == 1
    assert None not in stage.addresses


async def test_a_guest_that_runs_costs_no_write(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.passes(5)
    before = stage.writes, list(stage.reasons), stage.host.files[stage.uuid(), "record.json"]

    for _ in range(5):
        stage.wake()
        await stage.passes(300)

    assert (stage.writes, list(stage.reasons), stage.host.files[stage.uuid(), "record.json"]) == before


async def test_ready_does_not_wait_for_the_firmware(stage: Stage) -> None:
    await stage.create(disks=[disk()], paused=True)
    stage.qemu().switches.firmware_numbers_buses = False
    await stage.edit(paused=False)

    assert stage.ready()
    assert stage.condition("Ready").message == "the guest runs; its firmware has not numbered the PCI buses yet"
    assert stage.addresses == {None}

    stage.qemu().firmware_has_run = True
    await stage.passes(5)
    assert None not in stage.addresses
    assert stage.condition("Ready").message == "the guest runs"


async def test_firmware_that_never_numbers_the_buses_is_said_once(stage: Stage) -> None:
    await stage.create(disks=[disk()], paused=True)
    stage.qemu().switches.firmware_numbers_buses = False
    await stage.edit(paused=False)
    await stage.passes(121)

    assert stage.ready()
    assert "LayoutUnknown" in stage.condition("Ready").message
    before = stage.writes
    await stage.passes(600)
    assert stage.writes == before


async def test_addresses_stay_published_while_a_reset_unnumbers_the_buses(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    known = stage.addresses
    stage.qemu().firmware_has_run = False

    stage.wake()
    await stage.passes(10)

    assert stage.addresses == known


async def test_a_guest_without_a_single_device_is_done_too(stage: Stage) -> None:
    await stage.create(devices={"rng": False, "balloon": False, "pvpanic": False})
    await stage.passes(5)

    assert stage.condition("Ready").message == "the guest runs"


async def test_the_machine_is_recorded_before_it_starts_and_described_after(stage: Stage) -> None:
    await stage.create(disks=[disk()], networks=[{"name": "lan", "bridge": {"name": "br0"}}])

    done = stage.effects
    assert done.index("create_image") < done.index("open_tap") < done.index("launch")
    assert (stage.uuid(), SOURCE_FILE) in stage.host.files
    script = stage.host.files[stage.uuid(), NEXT_SCRIPT].decode()
    assert script.startswith("#!/bin/sh")
    assert "The tap gl" in script
    record = stage.record()
    assert record.machine is not None
    assert record.run is not None
    assert record.run.argv == stage.qemu().argv


async def test_a_cable_that_is_out_is_pulled_before_the_first_instruction(stage: Stage) -> None:
    networks = [{"name": "lan", "user": {}, "linkUp": False}, {"name": "wan", "user": {}}]
    await stage.create(networks=networks, paused=True)

    assert stage.qemu().run_state is RunState.PRELAUNCH
    assert stage.qemu().links == {"lan": False, "wan": True}
    assert stage.says("Paused") == ("True", "User")

    await stage.edit(paused=False)
    assert stage.ready()
    assert stage.qemu().links == {"lan": False, "wan": True}


async def test_devices_that_are_not_where_they_were_recorded_keep_the_guest_from_running(stage: Stage) -> None:
    await stage.create(disks=[disk()], paused=True)
    stage.qemu().switches.moved = {"disk-root": parse_address("pcie.0:09.0")}
    await stage.edit(paused=False)

    assert stage.qemu().run_state is RunState.PRELAUNCH
    assert stage.says("Ready") == ("False", "PciMismatch")
    assert stage.says("Stalled") == ("True", "PciMismatch")
    assert "pcie.0:09.0" in stage.condition("Ready").message

    await stage.edit(restart={"token": "again"})
    await stage.passes(5)
    assert stage.ready()
    assert stage.launches == 2


async def test_software_emulation_is_said_with_its_figures(stage: Stage) -> None:
    await stage.create()
    assert stage.says("SoftwareEmulation") == ("True", "KvmMissing")
    assert "TCG 0.004 s" in stage.condition("SoftwareEmulation").message

    stage.host.probe = SLOW_KVM
    await stage.create("slow")
    assert stage.says("SoftwareEmulation", "slow") == ("True", "TcgFaster")

    stage.host.probe = KVM
    await stage.create("fast")
    await stage.create("slowly", accelerator="TCG")
    assert stage.says("SoftwareEmulation", "fast") == ("False", "HardwareAccelerated")
    assert stage.says("SoftwareEmulation", "slowly") == ("True", "TcgRequested")


async def test_guests_do_not_get_more_memory_than_the_node_has(stage: Stage) -> None:
    await stage.create("first", memory={"size": "5Gi"})
    await stage.create("second", memory={"size": "5Gi"})

    assert stage.ready("first")
    assert stage.says("Stalled", "second") == ("True", "InsufficientMemory")
    assert "2Gi" in stage.condition("Stalled", "second").message

    await stage.edit("first", runStrategy="Halted")
    await stage.passes(30)
    assert stage.ready("second")


async def test_a_guest_with_everything_is_started(stage: Stage) -> None:
    stage.add_image("vmlinuz", format=ImageFormat.RAW)
    await stage.create(
        machine={"type": "pc"},
        firmware={"type": "UEFI"},
        boot={"kernel": {"pool": "default", "image": "vmlinuz", "cmdline": "quiet"}},
        cpu={"count": 4, "sockets": 1, "cores": 2, "threads": 2, "model": "qemu64"},
        console={"serialLog": False},
        devices={"watchdog": {"action": "Pause"}},
        disks=[disk(bus="SATA", serial="SN", cache="None", aio="Native", discard="Ignore", bootOrder=1)],
    )
    await stage.passes(1)

    assert stage.ready()
    status = stage.status()
    assert status.machine_type == "pc-i440fx-7.2"
    assert status.firmware is not None
    assert status.firmware.image == "OVMF_CODE_4M.fd"
    assert status.cpu is not None
    assert (status.cpu.count, status.cpu.sockets, status.cpu.cores, status.cpu.threads) == (4, 1, 2, 2)

"""What every ``GuestHost`` promises, held against the fake and against a real node with real QEMUs."""

import pytest

from contracts.host.nodes import GUEST, machine_with_a_disk, small_machine, source
from contracts.host.stage import Stage, launch
from guestlet.errors import Broken, GuestletError, Refused, Unknown
from guestlet.guest.ports import GuestHost
from guestlet.host.facts import ScriptOutcome, ScriptRun
from guestlet.host.ledger import Holding
from guestlet.pci.compare import compare, recorded_places
from guestlet.pci.layout import Layout
from guestlet.pci.observed import guest_addresses
from guestlet.qemu import commands
from guestlet.qemu.commandline import build_argv
from guestlet.qemu.machine import ImageFormat
from guestlet.qemu.names import nic_device
from guestlet.qemu.replies import RunState, parse_address, parse_parent_bus, parse_pci, parse_status

MIB = 1024 * 1024
OTHER = "00000000-0000-0000-0000-000000000002"


async def run_state(host: GuestHost) -> RunState:
    return parse_status(await host.execute(GUEST, commands.query_status())).run_state


# files


async def test_a_file_is_read_back_and_its_guest_is_known(stage: Stage) -> None:
    await stage.host.write_file(GUEST, "record.json", b"one")
    await stage.host.write_file(GUEST, "record.json", b"two")

    assert await stage.host.read_file(GUEST, "record.json") == b"two"
    assert await stage.host.read_file(GUEST, "other.json") is None
    assert await stage.host.guests() == (GUEST,)


async def test_a_forgotten_guest_leaves_nothing_but_its_images(stage: Stage) -> None:
    await stage.host.create_image(source("root.qcow2"), MIB)
    await stage.host.write_file(GUEST, "record.json", b"one")

    await stage.host.forget(GUEST)
    await stage.host.forget(GUEST)

    assert await stage.host.guests() == ()
    assert await stage.host.read_file(GUEST, "record.json") is None
    assert await stage.host.image("default", "root.qcow2") is not None


# storage


async def test_pools_tell_their_identity_and_an_unmounted_one_has_none(stage: Stage) -> None:
    there = await stage.host.pool("default")
    stage.unmount_the_pool()
    away = await stage.host.pool("default")

    assert there is not None
    assert there.identity
    assert there.free_bytes > 0
    assert away is not None
    assert away.identity is None
    assert await stage.host.pool("nowhere") is None


@pytest.mark.parametrize("image_format", list(ImageFormat))
async def test_a_created_image_is_as_asked(stage: Stage, image_format: ImageFormat) -> None:
    await stage.host.create_image(source("root", image_format), 3 * MIB)

    image = await stage.host.image("default", "root")

    assert image is not None
    assert (image.format, image.virtual_size_bytes, image.backing_image) == (image_format, 3 * MIB, None)
    assert not image.locked


async def test_an_overlay_is_as_large_as_its_backing_image(stage: Stage) -> None:
    await stage.host.create_image(source("base"), 5 * MIB)

    await stage.host.create_image(source("root", backing="base"), None)

    image = await stage.host.image("default", "root")
    assert image is not None
    assert (image.virtual_size_bytes, image.backing_image) == (5 * MIB, "base")


async def test_an_existing_image_is_never_overwritten(stage: Stage) -> None:
    await stage.host.create_image(source("root"), 3 * MIB)

    with pytest.raises(Refused, match="ImageExists"):
        await stage.host.create_image(source("root"), 4 * MIB)

    image = await stage.host.image("default", "root")
    assert image is not None
    assert image.virtual_size_bytes == 3 * MIB


async def test_nothing_is_created_in_a_pool_that_is_not_mounted(stage: Stage) -> None:
    stage.unmount_the_pool()

    with pytest.raises(Refused, match="PoolNotReady"):
        await stage.host.create_image(source("root"), MIB)

    assert await stage.host.image("default", "root") is None


async def test_a_missing_backing_image_is_named(stage: Stage) -> None:
    with pytest.raises(Refused, match=r"BackingImageMissing: .*base"):
        await stage.host.create_image(source("root", backing="base"), MIB)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a,b=c", "json:{}", "a\0b", "x" * 300, ".hidden", "", ".guestlet-pool"]
)
async def test_no_name_leads_out_of_a_pool(stage: Stage, name: str) -> None:
    with pytest.raises(Refused, match="ImageNameRefused"):
        await stage.host.image("default", name)
    with pytest.raises(Refused, match="ImageNameRefused"):
        await stage.host.create_image(source(name), MIB)
    with pytest.raises(Refused, match="ImageNameRefused"):
        await stage.host.delete_image("default", name)


async def test_an_image_grows_and_never_shrinks(stage: Stage) -> None:
    await stage.host.create_image(source("root"), 3 * MIB)

    await stage.host.grow_image(source("root"), 5 * MIB)
    await stage.host.grow_image(source("root"), 4 * MIB)

    image = await stage.host.image("default", "root")
    assert image is not None
    assert image.virtual_size_bytes == 5 * MIB


async def test_a_deleted_image_is_gone_and_an_absent_one_is_fine(stage: Stage) -> None:
    await stage.host.create_image(source("root"), MIB)

    await stage.host.delete_image("default", "root")
    await stage.host.delete_image("default", "root")

    assert await stage.host.image("default", "root") is None


async def test_what_others_hold_is_counted(stage: Stage) -> None:
    stage.host.hold(
        GUEST, Holding(label="default/demo", memory_bytes=7, writes=frozenset({("default", "root")}), names=frozenset())
    )
    stage.host.hold(OTHER, Holding(label="default/other", memory_bytes=5, writes=frozenset(), names=frozenset()))

    assert await stage.host.committed_memory_bytes(excluding=GUEST) == 5
    assert await stage.host.image_in_use_elsewhere("default", "root", guest=OTHER) == "default/demo"
    assert await stage.host.image_in_use_elsewhere("default", "root", guest=GUEST) is None

    stage.host.hold(GUEST, None)
    assert await stage.host.committed_memory_bytes(excluding=OTHER) == 0


# scripts


async def test_a_script_runs_and_tells(stage: Stage) -> None:
    stage.add_script("tap-up", says="hello", code=3)

    outcome = await stage.host.run_script(ScriptRun(script="tap-up", environment=(("GUESTLET_EVENT", "up"),)))

    assert outcome == ScriptOutcome(code=3, output="hello")
    assert await stage.host.script_exists("tap-up")
    assert not await stage.host.script_exists("tap-down")
    with pytest.raises(Refused, match="NoSuchScript"):
        await stage.host.run_script(ScriptRun(script="tap-down", environment=()))


async def test_no_bridge_of_that_name(stage: Stage) -> None:
    assert not await stage.host.bridge_exists("nosuchbridge0")


# process and monitor


async def test_nothing_runs_at_first(stage: Stage) -> None:
    facts = await stage.host.process(GUEST)

    assert (facts.running, facts.last_exit) == (None, None)
    with pytest.raises(Unknown, match="was not sent"):
        await stage.host.execute(GUEST, commands.query_status())


async def test_a_launched_guest_stands_frozen_runs_and_is_paused(stage: Stage) -> None:
    identity = await launch(stage.host, small_machine())
    states = [await run_state(stage.host)]

    for command in (commands.cont(), commands.stop(), commands.cont()):
        await stage.host.execute(GUEST, command)
        states.append(await run_state(stage.host))

    assert states == [RunState.PRELAUNCH, RunState.RUNNING, RunState.PAUSED, RunState.RUNNING]
    assert (await stage.host.process(GUEST)).running == identity


async def test_a_second_launch_is_unknown(stage: Stage) -> None:
    identity = await launch(stage.host, small_machine())

    with pytest.raises(Unknown):
        await launch(stage.host, small_machine())

    assert (await stage.host.process(GUEST)).running == identity


async def test_its_command_line_can_be_read(stage: Stage) -> None:
    machine = small_machine()
    identity = await launch(stage.host, machine)

    assert await stage.host.cmdline(identity) == build_argv(machine, stage.host.paths(GUEST, machine))


async def test_a_launch_without_its_image_is_refused(stage: Stage) -> None:
    with pytest.raises(Refused, match=r"ImageMissing: .*root\.qcow2"):
        await launch(stage.host, machine_with_a_disk())


async def test_a_writing_guest_locks_its_image(stage: Stage) -> None:
    await stage.host.create_image(source("root.qcow2"), MIB)
    identity = await launch(stage.host, machine_with_a_disk())

    locked = await stage.host.image("default", "root.qcow2")
    await stage.host.kill(GUEST, identity)
    free = await stage.host.image("default", "root.qcow2")

    assert locked is not None
    assert locked.locked
    assert free is not None
    assert not free.locked


async def test_a_killed_guest_has_ended_by_the_signal(stage: Stage) -> None:
    identity = await launch(stage.host, small_machine())

    await stage.host.kill(GUEST, identity)
    await stage.host.kill(GUEST, identity)

    facts = await stage.host.process(GUEST)
    assert facts.running is None
    assert facts.last_exit is not None
    assert (facts.last_exit.identity, facts.last_exit.code, facts.last_exit.signal) == (identity, None, 9)


async def test_a_running_guest_cannot_be_forgotten(stage: Stage) -> None:
    await launch(stage.host, small_machine())

    with pytest.raises(Broken, match="cannot be forgotten"):
        await stage.host.forget(GUEST)


async def places(host: GuestHost, layout: Layout) -> dict[str, tuple[str, str]]:
    found = {}
    for device in recorded_places(layout):
        address = await host.execute(GUEST, commands.device_address(device))
        found[device] = (
            parse_address(address),
            parse_parent_bus(await host.execute(GUEST, commands.device_bus(device))),
        )
    return found


async def test_devices_are_where_they_were_recorded(stage: Stage) -> None:
    machine = small_machine()
    await launch(stage.host, machine)

    assert compare(machine.pci, await places(stage.host, machine.pci)) == ()


async def test_behind_bridges_nothing_is_known_before_the_firmware_ran(stage: Stage) -> None:
    machine = small_machine()
    await launch(stage.host, machine)

    assert guest_addresses(machine.pci, parse_pci(await stage.host.execute(GUEST, commands.query_pci()))) is None


async def test_a_device_that_is_not_there_is_refused(stage: Stage) -> None:
    await launch(stage.host, small_machine())

    with pytest.raises(GuestletError, match="QmpRefused"):
        await stage.host.execute(GUEST, commands.device_address("disk-nowhere"))


async def test_links_are_pulled_by_the_interfaces_id(stage: Stage) -> None:
    await launch(stage.host, small_machine())

    await stage.host.execute(GUEST, commands.set_link(nic_device("lan"), up=False))

    with pytest.raises(Broken, match="QmpRefused"):
        await stage.host.execute(GUEST, commands.set_link(nic_device("wan"), up=False))

"""What every ``GuestHost`` promises of a running QEMU's parts, held against the fake and against real QEMUs of two
versions.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.host.conftest import REAL, REAL_10
from contracts.host.nodes import GUEST, small_machine, source
from contracts.host.stage import Stage, launch, open_qcow2
from guestlet.errors import Broken, Refused, Unknown
from guestlet.host.facts import NOTHING_HEARD, TapRequest
from guestlet.qemu import commands
from guestlet.qemu.commands import Command
from guestlet.qemu.machine import Bandwidth
from unit.qemu.sample_machines import disk

MIB = 1024 * 1024
TAP = f"gh{os.getpid()}"
BRIDGES = (f"gi{os.getpid()}", f"gj{os.getpid()}")
versions = pytest.mark.parametrize("real_node", ["fake", REAL, REAL_10], indirect=True)
as_root = pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="only root makes taps")


@pytest.fixture
def bridges(stage: Stage) -> Iterator[tuple[str, str]]:
    for name in BRIDGES:
        stage.add_bridge(name)
    yield BRIDGES
    for name in BRIDGES:
        stage.remove_bridge(name)


@pytest.fixture
async def tap(stage: Stage) -> AsyncIterator[str]:
    """A tap of a guest that does not run."""
    await stage.host.open_tap(GUEST, tap_request())
    yield TAP
    await stage.host.close_tap(TAP)


def tap_request(queues: int = 1) -> TapRequest:
    return TapRequest(name=TAP, queues=queues, bridge=None)


def netdev(names: tuple[str, ...], *, id_: str = "net-hot") -> Command:
    named = {"fd": names[0]} if len(names) == 1 else {"fds": ":".join(names)}
    return commands.netdev_add({"type": "tap", "id": id_, "vhost": False, **named})


def open_taps(pid: int) -> int:
    return [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()].count("/dev/net/tun")


async def require_no_tap_in_qemu(stage: Stage) -> None:
    if stage.fake is not None:
        assert stage.fake.qemus[GUEST].fds == set()
        return
    running = (await stage.host.process(GUEST)).running
    assert running is not None
    assert open_taps(running.pid) == 0


# taps


@as_root
@versions
@pytest.mark.parametrize("queues", [1, 2])
async def test_a_tap_goes_to_the_running_qemu_and_ends_with_its_backend(stage: Stage, queues: int) -> None:
    await launch(stage.host, small_machine())
    await stage.host.open_tap(GUEST, tap_request(queues))

    names = await stage.host.hand_over_tap(GUEST, tap_request(queues))
    await stage.host.execute(GUEST, netdev(names))
    held = stage.tap_exists(TAP)
    await stage.host.execute(GUEST, commands.netdev_del("net-hot"))

    assert len(set(names)) == queues
    assert held
    assert not stage.tap_exists(TAP)


@as_root
@versions
async def test_a_tap_that_was_handed_over_ends_with_qemu(stage: Stage) -> None:
    identity = await launch(stage.host, small_machine())
    await stage.host.open_tap(GUEST, tap_request())
    await stage.host.execute(GUEST, netdev(await stage.host.hand_over_tap(GUEST, tap_request())))

    await stage.host.kill(GUEST, identity)

    assert not stage.tap_exists(TAP)


@as_root
@versions
async def test_a_tap_is_handed_over_again_after_a_crash_between(stage: Stage) -> None:
    """An older descriptor of the name is closed: not one is left in QEMU in the end."""
    await launch(stage.host, small_machine())
    for _ in range(3):
        await stage.host.open_tap(GUEST, tap_request(2))
        names = await stage.host.hand_over_tap(GUEST, tap_request(2))
    await stage.host.execute(GUEST, netdev(names))

    await stage.host.execute(GUEST, commands.netdev_del("net-hot"))

    assert not stage.tap_exists(TAP)
    await require_no_tap_in_qemu(stage)


@as_root
@versions
async def test_a_tap_that_qemu_did_not_take_is_closed_there_too(stage: Stage) -> None:
    await launch(stage.host, small_machine())
    await stage.host.open_tap(GUEST, tap_request(2))
    names = await stage.host.hand_over_tap(GUEST, tap_request(2))
    with pytest.raises(Broken, match=r"QmpRefused: .*Duplicate ID"):
        await stage.host.execute(GUEST, netdev(names, id_="net-lan"))

    await stage.host.close_tap(TAP)
    await stage.host.close_tap(TAP)

    assert not stage.tap_exists(TAP)
    await require_no_tap_in_qemu(stage)


@as_root
async def test_a_tap_that_was_not_opened_is_not_handed_over(stage: Stage) -> None:
    await launch(stage.host, small_machine())

    with pytest.raises(Refused, match=f"TapFailed: tap {TAP} was not opened"):
        await stage.host.hand_over_tap(GUEST, tap_request())


@as_root
async def test_a_tap_that_no_qemu_took_over_stays_ours(stage: Stage, tap: str) -> None:
    with pytest.raises(Unknown, match="no QEMU of this guest runs"):
        await stage.host.hand_over_tap(GUEST, tap_request())

    assert stage.tap_exists(tap)


@as_root
async def test_a_tap_moves_between_bridges(stage: Stage, tap: str, bridges: tuple[str, str]) -> None:
    for bridge in (bridges[0], bridges[1], bridges[1]):
        await stage.host.move_tap(tap, bridge)

        assert stage.bridge_of(tap) == bridge


@as_root
async def test_a_move_that_cannot_be_is_refused_and_says_why(stage: Stage, tap: str, bridges: tuple[str, str]) -> None:
    await stage.host.move_tap(tap, bridges[0])

    with pytest.raises(Refused, match="NoSuchBridge: the node has no bridge nosuchbridge0"):
        await stage.host.move_tap(tap, "nosuchbridge0")
    with pytest.raises(Refused, match="TapFailed: the node has no tap nosuchtap0"):
        await stage.host.move_tap("nosuchtap0", bridges[0])

    assert stage.bridge_of(tap) == bridges[0]


@as_root
async def test_a_tap_is_limited_and_freed(stage: Stage, tap: str) -> None:
    limit = Bandwidth(inbound_bytes=1_000_000, outbound_bytes=None)
    limited = []
    for bandwidth in (limit, limit, None, None):
        await stage.host.shape_tap(tap, bandwidth)
        limited.append(stage.tap_is_limited(tap))

    assert limited == [True, True, False, False]
    with pytest.raises(Refused, match="TapFailed: the node has no tap nosuchtap0"):
        await stage.host.shape_tap("nosuchtap0", limit)


@as_root
async def test_a_direction_that_the_kernel_cannot_limit_is_refused_and_nothing_is_limited(
    stage: Stage, tap: str
) -> None:
    """A kernel that can limits both."""
    both = Bandwidth(inbound_bytes=1_000_000, outbound_bytes=1_000_000)
    if stage.fake is not None:
        stage.fake.can_limit_outbound = False
    said = ""
    try:
        await stage.host.shape_tap(tap, both)
    except Refused as error:
        said = str(error)

    lacking = said.startswith("BandwidthUnsupported: the node's kernel lacks act_police and cls_matchall")
    assert lacking or not said
    assert stage.tap_is_limited(tap) != lacking


@as_root
@versions
async def test_limits_outlive_the_hand_over(stage: Stage) -> None:
    await launch(stage.host, small_machine())
    await stage.host.open_tap(GUEST, tap_request())
    await stage.host.shape_tap(TAP, Bandwidth(inbound_bytes=1_000_000, outbound_bytes=None))

    await stage.host.execute(GUEST, netdev(await stage.host.hand_over_tap(GUEST, tap_request())))

    assert stage.tap_is_limited(TAP)


# disks


@versions
async def test_a_lent_disk_is_one_that_qemu_can_open(stage: Stage) -> None:
    await launch(stage.host, small_machine())
    await stage.host.create_image(source("base"), MIB)
    await stage.host.create_image(source("over", backing="base"), None)
    data = replace(disk("data"), source=source("over", backing="base"))

    await stage.host.lend_disk(GUEST, data)
    await stage.host.lend_disk(GUEST, data)

    path = Path(stage.host.paths(GUEST, small_machine()).pools["default"]) / "over"
    await open_qcow2(stage.host, "disk-data", path)
    opened = await stage.host.image("default", "over")
    await stage.host.execute(GUEST, commands.blockdev_del("disk-data"))
    closed = await stage.host.image("default", "over")
    assert opened is not None
    assert closed is not None
    assert (opened.locked, closed.locked) == (True, False)


async def test_a_drive_without_a_medium_needs_nothing(stage: Stage) -> None:
    await stage.host.lend_disk(GUEST, replace(disk("tray"), source=None, cdrom=True, read_only=True))


async def test_a_disk_without_its_image_is_not_lent(stage: Stage) -> None:
    with pytest.raises(Refused, match="ImageMissing: pool default has no image nowhere"):
        await stage.host.lend_disk(GUEST, replace(disk("data"), source=source("nowhere")))
    with pytest.raises(Refused, match="ImageNameRefused"):
        await stage.host.lend_disk(GUEST, replace(disk("data"), source=source("../nowhere")))

    await stage.host.create_image(source("base"), MIB)
    await stage.host.create_image(source("over", backing="base"), None)
    stage.remove_image("base")
    with pytest.raises(Refused, match=r"BackingImageMissing: .*base"):
        await stage.host.lend_disk(GUEST, replace(disk("data"), source=source("over", backing="base")))


# what QEMU says


@versions
async def test_a_reset_is_heard_and_wakes(stage: Stage) -> None:
    await launch(stage.host, small_machine())
    before = stage.host.heard(GUEST)
    await stage.host.execute(GUEST, commands.cont())
    stage.woken.clear()

    await stage.host.execute(GUEST, commands.system_reset())
    while stage.host.heard(GUEST).reset_at is None:
        await asyncio.wait_for(stage.woken.wait(), 10)
        stage.woken.clear()

    assert before == NOTHING_HEARD
    assert stage.host.heard(GUEST).unplug_refusals == {}


@versions
async def test_a_new_qemu_has_said_nothing_yet(stage: Stage) -> None:
    identity = await launch(stage.host, small_machine())
    await stage.host.execute(GUEST, commands.cont())
    await stage.host.execute(GUEST, commands.system_reset())
    await stage.host.kill(GUEST, identity)

    await launch(stage.host, small_machine())

    assert stage.host.heard(GUEST) == NOTHING_HEARD


@versions
async def test_a_device_that_goes_wakes(stage: Stage) -> None:
    """An object without a bus, that QEMU lets go of by itself, is enough."""
    await launch(stage.host, small_machine())
    await stage.host.execute(GUEST, commands.device_add({"driver": "virtio-rng-pci", "id": "rng-hot", "bus": "port-1"}))
    await stage.host.execute(GUEST, commands.device_del("rng-hot"))
    stage.woken.clear()

    await stage.host.execute(GUEST, commands.system_reset())

    await asyncio.wait_for(stage.woken.wait(), 10)

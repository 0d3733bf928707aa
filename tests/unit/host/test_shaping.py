"""Limits as the kernel has them afterwards, on a real tap."""

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestlet.errors import Refused
from guestlet.host.facts import TapRequest
from guestlet.host.network import Taps
from guestlet.host.shaping import burst_bytes, shape_tap
from guestlet.qemu.machine import Bandwidth

as_root = pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="only root makes taps")
TAP = f"gs{os.getpid()}"
KIB, TIB = 1024, 1 << 40


def tc(*arguments: str) -> str:
    done = subprocess.run(["tc", *arguments], check=True, capture_output=True, timeout=10, text=True)
    return done.stdout


def disciplines(tap: str) -> list[str]:
    """The kernel's own words for what the tap has, without the numbers it gives to what nobody named."""
    return [line.strip() for line in tc("qdisc", "show", "dev", tap).splitlines()]


def limits(*, inbound: int | None = None, outbound: int | None = None) -> Bandwidth:
    return Bandwidth(inbound_bytes=inbound, outbound_bytes=outbound)


@pytest.fixture(params=[1, 2])
def tap(request: pytest.FixtureRequest) -> Iterator[str]:
    taps = Taps()
    taps.open("guest", TapRequest(name=TAP, queues=request.param, bridge=None))
    yield TAP
    taps.close_all()


@pytest.fixture
def polices(tap: str) -> bool:
    """Whether this kernel can limit what comes from a guest."""
    tc("qdisc", "add", "dev", tap, "ingress")
    limit = ("rate", "1mbit", "burst", "64kb", "conform-exceed", "drop")
    command = ["tc", "filter", "add", "dev", tap, "ingress", "matchall", "action", "police", *limit]
    can = subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0
    tc("qdisc", "del", "dev", tap, "ingress")
    return can


@as_root
async def test_what_goes_to_the_guest_is_held_to_the_rate(tap: str) -> None:
    await shape_tap(tap, limits(inbound=1_000_000))
    once = disciplines(tap)
    await shape_tap(tap, limits(inbound=1_000_000))

    assert len(once) == 1
    assert re.match(r"qdisc tbf 676c: root .* rate 8Mbit burst 65Kb lat 50ms", once[0])
    assert disciplines(tap) == once


@as_root
@pytest.mark.parametrize(("rate", "said"), [(KIB, "8192bit"), (125_000_000, "1Gbit"), (TIB, "8796Gbit")])
async def test_every_rate_that_the_api_allows_is_taken(tap: str, rate: int, said: str) -> None:
    await shape_tap(tap, limits(inbound=5000))
    await shape_tap(tap, limits(inbound=rate))

    assert f"rate {said} " in disciplines(tap)[0]


def delivered(taps: Taps, *, for_s: float) -> int:
    """Bytes that reach the guest's side of the tap while the node sends as fast as it can."""
    frame = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01" + b"\x88\xb5" + bytes(1400)
    (guest,) = taps.fds(TAP)
    received, end = 0, time.monotonic() + for_s
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as node:
        node.bind((TAP, 0))
        while time.monotonic() < end:
            with contextlib.suppress(OSError):  # the queue is full
                node.send(frame)
            with contextlib.suppress(BlockingIOError):
                while True:
                    received += len(os.read(guest, 2000))
    return received


@as_root
@pytest.mark.slow
async def test_a_limited_guest_gets_no_more_than_its_rate_and_one_burst() -> None:
    taps = Taps()
    taps.open("guest", TapRequest(name=TAP, queues=1, bridge=None))
    rate, for_s = 200_000, 0.2
    try:
        await shape_tap(TAP, limits(inbound=rate))
        limited = delivered(taps, for_s=for_s)
        await shape_tap(TAP, None)
        free = delivered(taps, for_s=for_s)
    finally:
        taps.close_all()

    assert 0 < limited <= burst_bytes(rate) + 2 * rate * for_s
    assert free > 4 * limited


@as_root
async def test_a_limit_that_is_taken_away_leaves_nothing(tap: str) -> None:
    before = sorted(disciplines(tap))
    for nothing in (None, limits()):
        await shape_tap(tap, limits(inbound=1_000_000))

        await shape_tap(tap, nothing)
        await shape_tap(tap, nothing)

        assert sorted(disciplines(tap)) == before


@as_root
async def test_a_discipline_of_somebody_else_stays(tap: str) -> None:
    tc("qdisc", "replace", "dev", tap, "root", "handle", "5:", "tbf", "rate", "1mbit", "burst", "9kb", "limit", "9kb")

    await shape_tap(tap, None)

    assert "qdisc tbf 5: root" in disciplines(tap)[0]


@as_root
async def test_both_directions_or_none(tap: str, polices: bool) -> None:
    """Where the kernel has no policer, the other direction is as it was, and what is missing is named."""
    await shape_tap(tap, limits(inbound=1_000_000))
    before = disciplines(tap)
    both = limits(inbound=2_000_000, outbound=3_000_000)
    if not polices:
        for wanted in (both, limits(outbound=3_000_000)):
            with pytest.raises(Refused, match=r"BandwidthUnsupported: .* act_police and cls_matchall"):
                await shape_tap(tap, wanted)
            assert disciplines(tap) == before
        return
    for _ in range(2):
        await shape_tap(tap, both)
        assert "rate 16Mbit" in disciplines(tap)[0]
        assert tc("filter", "show", "dev", tap, "ingress").count("rate 24Mbit") == 1
    await shape_tap(tap, limits(inbound=1_000_000))
    assert disciplines(tap) == before


@as_root
async def test_what_is_no_tap_is_left_alone() -> None:
    for name in ("lo", "nosuchtap0"):
        with pytest.raises(Refused, match=f"TapFailed: the node has no tap {name}"):
            await shape_tap(name, limits(inbound=1_000_000))


def test_a_burst_lets_a_tick_of_the_slowest_clock_through_and_never_less_than_a_packet() -> None:
    assert burst_bytes(KIB) > 64 * KIB
    assert burst_bytes(1_000_000_000) == 10_000_000
    assert burst_bytes(TIB) < 1 << 31

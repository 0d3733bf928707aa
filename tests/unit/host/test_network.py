import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestlet.errors import Broken, Refused
from guestlet.host.facts import TapRequest
from guestlet.host.network import Taps, bridge_exists

pytestmark = [pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="only root makes taps")]
BRIDGE, TAP = f"gb{os.getpid()}", f"gt{os.getpid()}"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=10)


def attribute(name: str) -> str:
    return (Path("/sys/class/net") / TAP / name).read_text().strip()


@pytest.fixture
def bridge() -> Iterator[str]:
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("link", "set", BRIDGE, "mtu", "1400")
    yield BRIDGE
    ip("link", "del", BRIDGE)


@pytest.fixture
def taps() -> Iterator[Taps]:
    made = Taps()
    yield made
    made.close_all()


def exists(name: str) -> bool:
    return name in {each for _, each in socket.if_nameindex()}


def test_a_bridge_is_told_from_other_interfaces(bridge: str) -> None:
    assert bridge_exists(bridge)
    assert not bridge_exists("lo")
    assert not bridge_exists("nosuchbridge0")
    assert not bridge_exists("../class/net")


def test_a_tap_is_up_on_its_bridge_with_the_bridges_mtu(taps: Taps, bridge: str) -> None:
    taps.open("guest", TapRequest(name=TAP, queues=2, bridge=bridge))

    assert len(taps.fds(TAP)) == 2
    assert int(attribute("flags"), 16) & 1
    assert attribute("mtu") == "1400"
    assert (Path("/sys/class/net") / TAP / "master").resolve().name == bridge


def test_a_tap_vanishes_with_its_last_descriptor(taps: Taps) -> None:
    taps.open("guest", TapRequest(name=TAP, queues=1, bridge=None))
    kept = os.dup(taps.fds(TAP)[0])  # as QEMU has it

    taps.release("guest")
    stayed = exists(TAP)
    os.close(kept)

    assert stayed
    assert not exists(TAP)


def test_opening_again_is_fine(taps: Taps) -> None:
    request = TapRequest(name=TAP, queues=1, bridge=None)
    taps.open("guest", request)
    first = taps.fds(TAP)

    taps.open("guest", request)

    assert taps.fds(TAP) == first


def test_a_tap_left_by_somebody_is_removed(taps: Taps) -> None:
    ip("tuntap", "add", TAP, "mode", "tap")

    taps.close(TAP)
    taps.close(TAP)

    assert not exists(TAP)


def test_an_interface_that_is_no_tap_is_left_alone(taps: Taps, bridge: str) -> None:
    with pytest.raises(Broken, match="is not a tap"):
        taps.close(bridge)

    assert exists(bridge)


def test_a_bridge_that_is_not_there_is_named_and_no_tap_stays(taps: Taps) -> None:
    with pytest.raises(Refused, match="NoSuchBridge: the node has no bridge nosuchbridge0"):
        taps.open("guest", TapRequest(name=TAP, queues=1, bridge="nosuchbridge0"))

    assert not exists(TAP)


@pytest.mark.parametrize("name", ["", "a" * 16])
def test_a_name_that_the_kernel_would_cut_is_refused(taps: Taps, name: str) -> None:
    with pytest.raises(Refused, match="TapFailed"):
        taps.open("guest", TapRequest(name=name, queues=1, bridge=None))

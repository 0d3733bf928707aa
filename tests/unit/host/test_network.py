import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestlet.errors import Broken, Refused
from guestlet.host.facts import TapRequest
from guestlet.host.network import Taps, bridge_exists, move_tap

pytestmark = [pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="only root makes taps")]
BRIDGE, OTHER_BRIDGE, TAP = f"gb{os.getpid()}", f"gc{os.getpid()}", f"gt{os.getpid()}"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=10)


def attribute(name: str, interface: str = TAP) -> str:
    return (Path("/sys/class/net") / interface / name).read_text().strip()


def bridge_of(tap: str) -> str | None:
    master = Path("/sys/class/net") / tap / "master"
    return master.resolve().name if master.exists() else None


@pytest.fixture
def bridge() -> Iterator[str]:
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("link", "set", BRIDGE, "mtu", "1400")
    yield BRIDGE
    ip("link", "del", BRIDGE)


@pytest.fixture
def other_bridge() -> Iterator[str]:
    ip("link", "add", OTHER_BRIDGE, "type", "bridge")
    ip("link", "set", OTHER_BRIDGE, "mtu", "1300")
    yield OTHER_BRIDGE
    ip("link", "del", OTHER_BRIDGE)


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
    assert bridge_of(TAP) == bridge


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


def test_a_tap_that_is_wanted_on_another_bridge_is_made_anew(taps: Taps, bridge: str, other_bridge: str) -> None:
    taps.open("guest", TapRequest(name=TAP, queues=1, bridge=bridge))

    taps.open("guest", TapRequest(name=TAP, queues=1, bridge=other_bridge))

    assert bridge_of(TAP) == other_bridge


def test_letting_go_of_one_tap_leaves_the_guests_others(taps: Taps) -> None:
    other = f"{TAP}o"
    taps.open("guest", TapRequest(name=TAP, queues=1, bridge=None))
    taps.open("guest", TapRequest(name=other, queues=1, bridge=None))

    taps.let_go(TAP)

    assert not exists(TAP)
    assert exists(other)
    assert len(taps.fds(other)) == 1


def test_a_tap_moves_with_its_mtu_and_stays_up(taps: Taps, bridge: str, other_bridge: str) -> None:
    taps.open("guest", TapRequest(name=TAP, queues=1, bridge=bridge))

    move_tap(TAP, other_bridge)
    move_tap(TAP, other_bridge)

    assert bridge_of(TAP) == other_bridge
    assert attribute("mtu") == "1300"
    assert attribute("mtu", bridge) == "1400"
    assert int(attribute("flags"), 16) & 1


def test_a_tap_without_a_bridge_gets_one(taps: Taps, bridge: str) -> None:
    taps.open("guest", TapRequest(name=TAP, queues=1, bridge=None))

    move_tap(TAP, bridge)

    assert bridge_of(TAP) == bridge


def test_a_tap_stays_where_it_is_when_the_bridge_is_not_there(taps: Taps, bridge: str) -> None:
    taps.open("guest", TapRequest(name=TAP, queues=1, bridge=bridge))

    with pytest.raises(Refused, match="NoSuchBridge"):
        move_tap(TAP, "nosuchbridge0")

    assert bridge_of(TAP) == bridge


def test_a_tap_goes_back_when_the_bridge_does_not_take_it(taps: Taps, bridge: str, other_bridge: str) -> None:
    """As one whose MTU no tap may have."""
    taps.open("guest", TapRequest(name=TAP, queues=1, bridge=bridge))
    ip("link", "set", other_bridge, "mtu", "65535")

    with pytest.raises(Refused, match=r"TapFailed: cannot put tap .* Invalid argument"):
        move_tap(TAP, other_bridge)

    assert bridge_of(TAP) == bridge
    assert attribute("mtu") == "1400"


def test_only_taps_are_moved(bridge: str) -> None:
    for name in ("nosuchtap0", "lo", "../lo", ""):
        with pytest.raises(Refused, match="TapFailed: the node has no tap"):
            move_tap(name, bridge)


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

"""A layout over any history of adding, removing and choosing: nothing moves, nothing collides."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestlet.errors import Refused
from guestlet.pci.address import PciAddress, parse_address
from guestlet.pci.controllers import reserved_for
from guestlet.pci.layout import DeviceBus, DeviceKind, Family, Layout, Request, hotplug_ports_free, place
from guestlet.pci.venues import Venue, slots_of

CHOICES = ("port-0:00.0", "port-3:00.0", "pcie.0:05.0", "pcie.0:05.1", "bridge-0:03.0", "pci.0:04.0", "pci.0:1c.0")
KINDS = (DeviceKind.DISK, DeviceKind.DISK, DeviceKind.NIC, DeviceKind.RNG)


@st.composite
def request_sets(draw: st.DrawFn) -> tuple[Request, ...]:
    numbers = draw(st.lists(st.integers(0, 39), unique=True, max_size=38))
    requests = []
    for number in numbers:
        kind = KINDS[number % len(KINDS)]
        chosen = draw(st.one_of(st.none(), st.none(), st.none(), st.sampled_from(CHOICES)))
        requests.append(
            Request(
                id=f"{kind}-{number}",
                name=str(number),
                kind=kind,
                conventional=kind is DeviceKind.NIC and number % 8 == 6,
                explicit=None if chosen is None else parse_address(chosen),
            )
        )
    return tuple(requests)


HISTORIES = st.lists(st.tuples(request_sets(), st.integers(0, 8)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(family=st.sampled_from(Family), device_bus=st.sampled_from(DeviceBus), history=HISTORIES)
@pytest.mark.slow
def test_no_device_moves_and_no_two_meet(
    family: Family, device_bus: DeviceBus, history: list[tuple[tuple[Request, ...], int]]
) -> None:
    before: Layout | None = None
    for requests, spares in history:
        try:
            after = place(
                family=family, device_bus=device_bus, hotplug_ports=spares, requests=requests, previous=before
            )
        except Refused:
            assert any(each.explicit is not None for each in requests) or before is not None
            continue
        assert_sound(family, after, requests, spares)
        if before is not None:
            assert_follows(before, after, requests)
        again = place(family=family, device_bus=device_bus, hotplug_ports=spares, requests=requests, previous=after)
        assert again == after
        before = after


def assert_sound(family: Family, layout: Layout, requests: tuple[Request, ...], spares: int) -> None:
    places = [*(each.address for each in layout.controllers), *(each.address for each in layout.devices)]
    assert len(places) == len(set(places))
    assert {each.id for each in layout.devices} == {each.id for each in requests}
    assert not any(reserved_for(family, address) for address in places)
    assert set(layout.freed).isdisjoint(places)
    assert hotplug_ports_free(layout)[1] >= spares
    chosen = {each.id: each.explicit for each in requests if each.explicit is not None}
    assert chosen.items() <= {each.id: each.address for each in layout.devices}.items()


def assert_follows(before: Layout, after: Layout, requests: tuple[Request, ...]) -> None:
    assert after.controllers[: len(before.controllers)] == before.controllers
    old = {each.id: each.address for each in before.devices}
    new = {each.id: each.address for each in after.devices}
    wanted = {each.id: each for each in requests}
    moved = {device for device in old.keys() & new.keys() if old[device] != new[device]}
    assert all(wanted[device].explicit is not None for device in moved)
    gone = {address for device, address in old.items() if new.get(device) != address}
    assert (set(before.freed) | gone) - set(new.values()) == set(after.freed)
    late = {(each.bus, each.slot) for each in (*before.freed, *gone)}
    for device, address in new.items():
        if wanted[device].explicit is None and old.get(device) != address and (address.bus, address.slot) in late:
            assert all_free_are_late(after, address, late)


def all_free_are_late(layout: Layout, reused: PciAddress, late: set[tuple[str, int]]) -> bool:
    taken = {(each.address.bus, each.address.slot) for each in layout.devices}
    venues = [tuple(slots_of(venue, layout.controllers)) for venue in Venue]
    venue = next(slots for slots in venues if any((each.bus, each.slot) == (reused.bus, reused.slot) for each in slots))
    return all((each.bus, each.slot) in taken | late for each in venue)


def test_the_same_history_gives_the_same_layout_under_every_hash_seed() -> None:
    program = (
        "from unit.pci.requests import *\n"
        "layout = q35(*(disk(f'd{i}') for i in range(20)), nic('n', 'pcie.0:05.0'), spares=4)\n"
        "layout = q35(*(disk(f'd{i}') for i in range(0, 20, 2)), spares=0, previous=layout)\n"
        "print(q35(*(disk(f'e{i}') for i in range(40)), spares=4, previous=layout))\n"
    )
    root = Path(__file__).resolve().parents[3]
    path = os.pathsep.join(str(root / each) for each in ("operator", "tests"))

    layouts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": path, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(layouts) == 1

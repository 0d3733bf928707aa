"""A layout over any life of a guest: edits, plugs, unplugs, crashes, cold starts, and a beginning that was found.

After each step no two devices are at one address, nothing that stayed has moved, an address used before came last, and
the count of hotplug places is what can really be plugged.
"""

from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from guestlet.errors import Refused
from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import Family
from guestlet.pci.layout import (
    DeviceBus,
    DeviceKind,
    Layout,
    Request,
    can_hotplug,
    hotplug_ports_free,
    place,
    plug,
    unplug,
)
from guestlet.pci.venues import occupied, slots, slots_of, venue_of
from unit.pci.foreign import EVERYTHING, LIBVIRT_LIKE, PLAIN_PC, PLAIN_Q35, found

NAMES = st.integers(0, 37).map(lambda number: f"n{number}")
KINDS = st.sampled_from((DeviceKind.DISK, DeviceKind.DISK, DeviceKind.NIC, DeviceKind.RNG))
FOUND = (None, None, LIBVIRT_LIKE, EVERYTHING, PLAIN_PC, PLAIN_Q35, found(), found(family=Family.PC))


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """A plug whose record was written and whose command QEMU may or may not have got."""

    layout: Layout
    device: str


class Guest(RuleBasedStateMachine):
    """What a node does to one guest's layout; ``layout`` is what its record holds."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: dict[str, Request] = {}
        self.spares = 0

    @initialize(
        beginning=st.sampled_from(FOUND),
        family=st.sampled_from(Family),
        device_bus=st.sampled_from(DeviceBus),
        spares=st.integers(0, 6),
    )
    def begins(self, beginning: Layout | None, family: Family, device_bus: DeviceBus, spares: int) -> None:
        self.family, self.device_bus, self.spares = family, device_bus, spares
        if beginning is None:
            self.layout = self._placed(None)
            return
        self.family = beginning.family
        self.layout = replace(beginning, device_bus=device_bus)
        self.wanted = {each.id: request(each.id, each.kind) for each in beginning.devices}

    @rule(name=NAMES, kind=KINDS, conventional=st.booleans())
    def a_device_is_plugged(self, name: str, kind: DeviceKind, conventional: bool) -> None:
        wanted = request(f"{kind}-{name}", kind, conventional=conventional and kind is DeviceKind.NIC)
        assume(wanted.id not in self.wanted)
        before = self.layout
        try:
            self.layout = plug(before, wanted)
        except Refused:
            venue = venue_of(self.family, self.device_bus, wanted)
            assert slots(slots_of(venue, before.controllers)) <= slots(occupied(before))
            return
        self.wanted[wanted.id] = wanted
        address = self._address(wanted.id)
        assert can_hotplug(before, address)
        assert_last_choice(before, self.layout, wanted, address)
        assert_nothing_moved(before, self.layout)
        assert self.layout.controllers == before.controllers

    @rule(name=NAMES, kind=KINDS, data=st.data())
    def a_device_is_plugged_where_somebody_chose(self, name: str, kind: DeviceKind, data: st.DataObject) -> None:
        buses = sorted({each.id for each in self.layout.controllers} | {"pcie.0", "pci.0", "nowhere"})
        chosen = PciAddress(
            bus=data.draw(st.sampled_from(buses)),
            slot=data.draw(st.sampled_from((0, 1, 2, 5, 0x1F))),
            function=data.draw(st.sampled_from((0, 0, 0, 1))),
        )
        wanted = replace(request(f"{kind}-{name}", kind), explicit=chosen)
        assume(wanted.id not in self.wanted)
        before = self.layout
        try:
            self.layout = plug(before, wanted)
        except Refused:
            return
        self.wanted[wanted.id] = replace(wanted, explicit=None)
        assert can_hotplug(before, chosen)
        assert self._address(wanted.id) == chosen
        assert_nothing_moved(before, self.layout)

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def a_device_is_unplugged(self, data: st.DataObject) -> None:
        device = data.draw(st.sampled_from(sorted(self.wanted)))
        before, address = self.layout, self._address(device)
        assume(can_hotplug(before, address))
        self.layout = unplug(before, device)
        del self.wanted[device]
        assert self.layout.freed[-1] == address
        assert {*addresses(before)} - {*addresses(self.layout)} == {device}
        assert_nothing_moved(before, self.layout)

    @rule(name=NAMES, kind=KINDS, happened=st.booleans())
    def the_agent_dies_in_the_middle_of_a_plug(self, name: str, kind: DeviceKind, happened: bool) -> None:
        wanted = request(f"{kind}-{name}", kind)
        assume(wanted.id not in self.wanted)
        before = self.layout
        try:
            recorded = plug(before, wanted)
        except Refused:
            return
        # The next agent looks at QEMU: what is there goes on as recorded, what is not is taken back.
        self.layout = recorded if happened else unplug(recorded, wanted.id)
        if happened:
            assert plug(self.layout, wanted) == recorded
            self.wanted[wanted.id] = wanted
        else:
            assert hotplug_ports_free(self.layout) == hotplug_ports_free(before)
        assert_nothing_moved(before, self.layout)

    @rule(added=st.dictionaries(NAMES, KINDS, max_size=8), removed=st.sets(NAMES, max_size=4), spares=st.integers(0, 6))
    def the_spec_changes_and_the_guest_starts_cold(
        self, added: dict[str, DeviceKind], removed: set[str], spares: int
    ) -> None:
        before, wanted = self.layout, dict(self.wanted)
        gone = {each for each in wanted if each.rpartition("-")[2] in removed}
        self.wanted = {name: each for name, each in wanted.items() if name not in gone}
        for name, kind in added.items():
            self.wanted.setdefault(f"{kind}-{name}", request(f"{kind}-{name}", kind))
        self.spares = spares
        try:
            self.layout = self._placed(before)
        except Refused:
            self.wanted = wanted  # a device at function 0 cannot go and leave the others of its slot unseen
            return
        assert hotplug_ports_free(self.layout)[1] >= spares
        assert_nothing_moved(before, self.layout)
        assert self.layout.controllers[: len(before.controllers)] == before.controllers
        assert self._placed(self.layout) == self.layout

    @rule()
    def the_guest_starts_cold_as_it_is(self) -> None:
        before = self.layout
        self.layout = self._placed(before)
        assert addresses(self.layout) == addresses(before)
        assert self.layout.freed == before.freed

    @precondition(lambda self: self.layout.anonymous)
    @rule()
    def what_nobody_knew_goes(self) -> None:
        self.layout = replace(self.layout, anonymous=self.layout.anonymous[1:])

    @invariant()
    def no_two_are_at_one_address(self) -> None:
        everything = occupied(self.layout)
        assert len(everything) == len(set(everything))
        assert set(self.layout.freed).isdisjoint(everything)
        assert len({each.id for each in self.layout.controllers}) == len(self.layout.controllers)

    @invariant()
    def the_hotplug_places_said_to_be_free_are_those_that_can_be_plugged(self) -> None:
        total, free = hotplug_ports_free(self.layout)
        assert 0 <= free <= total
        try:
            plugged = plug(self.layout, request("disk-probe", DeviceKind.DISK))
        except Refused:
            assert free == 0
        else:
            assert hotplug_ports_free(plugged) == (total, free - 1)

    def _address(self, device: str) -> PciAddress:
        return addresses(self.layout)[device]

    def _placed(self, previous: Layout | None) -> Layout:
        return place(
            family=self.family,
            device_bus=self.device_bus,
            hotplug_ports=self.spares,
            requests=tuple(self.wanted.values()),
            previous=previous,
        )


def request(device: str, kind: DeviceKind, *, conventional: bool = False) -> Request:
    name = device.partition("-")[2]
    return Request(id=device, name=name, kind=kind, conventional=conventional, explicit=None)


def addresses(layout: Layout) -> dict[str, PciAddress]:
    return {each.id: each.address for each in layout.devices}


def assert_nothing_moved(before: Layout, after: Layout) -> None:
    old, new = addresses(before), addresses(after)
    assert {device: new[device] for device in old.keys() & new.keys()} == {
        device: old[device] for device in old.keys() & new.keys()
    }
    assert after.anonymous == before.anonymous


def assert_last_choice(before: Layout, after: Layout, wanted: Request, address: PciAddress) -> None:
    if (address.bus, address.slot) not in slots(before.freed):
        return
    venue = venue_of(after.family, after.device_bus, wanted)
    free = slots(slots_of(venue, after.controllers)) - slots(occupied(after))
    assert free <= slots(before.freed)


Guest.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestGuest = pytest.mark.slow(Guest.TestCase)

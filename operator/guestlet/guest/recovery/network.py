"""The network interfaces of a running QEMU: cards, what they are connected to, and what they may be called. Pure.

A MAC is the one that the card was given; QEMU's RX filter (``query-rx-filter``) tells what the guest chose since. It
must never guess what a card is connected to: one whose backend guestlet does not know gets no name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from guestlet.guest.recovery.buses import Buses
from guestlet.guest.recovery.description import Hints
from guestlet.guest.recovery.naming import part_name
from guestlet.qemu.device_tree import TreeDevice
from guestlet.qemu.found import FoundBackend, FoundQemu
from guestlet.qemu.machine import BridgeNet, IsolatedNet, NetBackend, Nic, NicModel, TapNet, UserNet
from guestlet.qemu.names import net_backend, nic_device
from guestlet.qemu.questions import CARDS, NAMED, plain_driver

_MODELS = {"virtio-net-pci": NicModel.VIRTIO, "e1000": NicModel.E1000}
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_DESCRIPTOR = re.compile(r"(?:^|,)fd=(\d+)")
_INTERFACE = re.compile(r"(?:^|,)ifname=([^,]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The interfaces that have a name; ``holders``: qdev id by index in the tree."""

    networks: tuple[Nic, ...]
    holders: Mapping[int, str]
    devices: Mapping[str, str]
    netdevs: Mapping[str, str]
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    """A card: ``back`` has its MAC and backend, ``client`` is its name in ``info network``."""

    front: TreeDevice
    back: TreeDevice
    client: str
    mac: str
    path: str

    @property
    def label(self) -> str:
        return self.front.id or self.client or self.front.driver


def read_networks(found: FoundQemu, hints: Hints, *, buses: Buses) -> Networks:
    """The interfaces, in the order of the user's spec where there is one, else in the order of creation."""
    nics: list[Nic] = []
    holders: dict[int, str] = {}
    devices: dict[str, str] = {}
    netdevs: dict[str, str] = {}
    doubts: list[str] = []
    for card in _cards(found, buses):
        backend = _backend(found.backends.get(card.client), found, hints)
        if plain_driver(card.front.driver) not in _MODELS or isinstance(backend, str) or not _MAC.fullmatch(card.mac):
            why = backend if isinstance(backend, str) else "its model is none that guestlet makes"
            doubts.append(f"network card {card.label} ({card.front.driver}, {card.mac}): {why}; it is left alone")
            continue
        name = _name(card, hints, {nic.name for nic in nics})
        nics.append(_nic(card, name, found=found, backend=backend[0], tap=backend[1]))
        holders[card.front.index] = nic_device(name)
        if card.path != nic_device(name):
            devices[nic_device(name)] = card.path
        netdev = card.back.text("netdev")
        if netdev != net_backend(name):
            netdevs[net_backend(name)] = netdev
        if card.front.driver not in _MODELS:
            doubts.append(f"network {name} is a {card.front.driver}: from the next start on it is a plain one")
    if nics:
        doubts.append("whether cables are plugged cannot be asked: they are taken to be")
    order = {spec.name: number for number, spec in enumerate(hints.spec.networks)} if hints.spec else {}
    return Networks(
        networks=tuple(sorted(nics, key=lambda nic: order.get(nic.name, len(order)))),
        holders=holders,
        devices=devices,
        netdevs=netdevs,
        doubts=tuple(doubts),
    )


def _cards(found: FoundQemu, buses: Buses) -> tuple[_Card, ...]:
    fronts = [each for each in found.tree if plain_driver(each.driver) in CARDS and each.index in buses.places]
    cards = []
    for front in sorted(fronts, key=lambda each: -each.index):  # QEMU prints the newest first
        back = next((each for each in found.tree if each.above == front.index and "mac" in each.properties), front)
        mac = back.text("mac").lower()
        path = front.id or found.paths.get(front.index, "")
        cards.append(_Card(front=front, back=back, client=front.id or _client(front, mac, found), mac=mac, path=path))
    return tuple(cards)


def _client(front: TreeDevice, mac: str, found: FoundQemu) -> str:
    """What ``info network`` calls a card without an id (``e1000.0``): by its driver and MAC, if one alone has both."""
    fits = [name for name, has in found.cards.items() if name.rpartition(".")[0] == front.driver and has == mac]
    return fits[0] if len(fits) == 1 else ""


def _backend(found_backend: FoundBackend | None, found: FoundQemu, hints: Hints) -> tuple[NetBackend, str | None] | str:
    """What the card is connected to and the tap's name, or why that cannot be said in guestlet's words."""
    if found_backend is None:
        return "what it is connected to cannot be told"
    match found_backend.type:
        case "user":
            return UserNet(host_forwards=found.forwards.get(found_backend.name, ())), None
        case "hub":
            return IsolatedNet(), None
        case "tap":
            tap = _tap(found_backend.detail, hints)
            if tap is None:
                return "the name of its tap is not known"
            bridge = hints.bridges.get(tap)
            return BridgeNet(bridge=bridge) if bridge else TapNet(up_script=None, down_script=None), tap
    return f"its backend {found_backend.name} is of type {found_backend.type}, which guestlet does not make"


def _tap(detail: str, hints: Hints) -> str | None:
    named, numbered = _INTERFACE.search(detail), _DESCRIPTOR.search(detail)
    if named is not None:
        return named[1]
    return hints.taps.get(int(numbered[1])) if numbered is not None else None


def _name(card: _Card, hints: Hints, taken: set[str]) -> str:
    """By our own id, then by the MAC that spec names, then after what QEMU calls it."""
    if not card.front.id.startswith("nic-") and hints.spec is not None:
        wanted = [each.name for each in hints.spec.networks if (each.mac_address or "").lower() == card.mac]
        if len(wanted) == 1 and wanted[0] not in taken:
            return wanted[0]
    return part_name("nic-", found=card.front.id, taken=taken, otherwise="net")


def _nic(card: _Card, name: str, *, found: FoundQemu, backend: NetBackend, tap: str | None) -> Nic:
    path = card.path if card.path.startswith("/") else f"{NAMED}/{card.path}"
    boot = found.settings.get(f"{path} bootindex", -1)
    return Nic(
        name=name,
        model=_MODELS[plain_driver(card.front.driver)],
        mac=card.mac,
        backend=backend,
        queues=found.backends[card.client].queues,
        link_up=True,
        bandwidth=None,
        boot_order=boot if isinstance(boot, int) and boot >= 0 else None,
        tap=tap,
    )

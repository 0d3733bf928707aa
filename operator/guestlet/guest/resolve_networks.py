"""Network interfaces of the next start: MACs and tap names are made from the guest's uuid, so that they never change.

Pure. The MAC prefix 52:54:00 is the one QEMU and libvirt use (locally administered).
"""

import hashlib
from collections.abc import Mapping

from guestlet.api.network_spec import BandwidthSpec, NetworkSpec
from guestlet.api.quantity import parse_quantity
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.observed import NetworkFacts
from guestlet.host.facts import NodeFacts
from guestlet.qemu.machine import (
    Bandwidth,
    BridgeNet,
    HostForward,
    IsolatedNet,
    Machine,
    NetBackend,
    Nic,
    TapNet,
    UserNet,
)


def resolve_networks(specs: tuple[NetworkSpec, ...], *, uuid: str, previous: Machine | None) -> tuple[Nic, ...]:
    """The interfaces in spec order; one whose MAC the user left open keeps the one it had.

    Raises:
        Refused: a generated MAC meets one that the user gave to another interface.
    """
    live = previous.networks if previous else ()
    return tuple(
        resolve_network(spec, earlier=specs[:number], uuid=uuid, live=live) for number, spec in enumerate(specs)
    )


def resolve_network(spec: NetworkSpec, *, earlier: tuple[NetworkSpec, ...], uuid: str, live: tuple[Nic, ...]) -> Nic:
    """One interface; ``live``: those that the machine has, ``earlier``: the spec's interfaces before this one.

    Raises:
        Refused: no backend is named, or the MAC is that of an earlier one.
    """
    kept = {nic.name: nic.mac for nic in live}
    mac = _mac(spec, uuid, kept)
    for other in earlier:
        if _mac(other, uuid, kept) == mac:
            raise Refused(
                Reason.INVALID_SPEC,
                f"spec.networks[{spec.name}].macAddress: {mac} is also that of {other.name}; give another",
            )
    backend = net_backend(spec)
    return Nic(
        name=spec.name,
        model=spec.model,
        mac=mac,
        backend=backend,
        queues=spec.queues,
        link_up=spec.link_up,
        bandwidth=_bandwidth(spec.bandwidth) if spec.bandwidth else None,
        boot_order=spec.boot_order,
        tap=tap_name(uuid, spec.name) if isinstance(backend, BridgeNet | TapNet) else None,
    )


def refuse_unserved(spec: NetworkSpec, node: NodeFacts, facts: NetworkFacts) -> None:
    """Nothing when the node has what the interface is to be connected to.

    Raises:
        Refused: a bridge is missing or not allowed, or a script is missing.
    """
    where = f"spec.networks[{spec.name}]"
    if spec.bridge is not None:
        if spec.bridge.name not in node.bridges:
            raise Refused(
                Reason.NO_SUCH_BRIDGE,
                f"{where}.bridge.name: {spec.bridge.name!r} is not among the node's allowedBridges "
                f"({', '.join(node.bridges) or 'none'}); allow it in the node's settings or use another",
            )
        if spec.bridge.name not in facts.bridges:
            raise Refused(
                Reason.NO_SUCH_BRIDGE,
                f"{where}.bridge.name: node {node.name} has no bridge {spec.bridge.name!r}; create it",
            )
    scripts = (("upScript", spec.tap.up_script), ("downScript", spec.tap.down_script)) if spec.tap else ()
    for field, script in scripts:
        if script is not None and script not in facts.scripts:
            raise Refused(
                Reason.NO_SUCH_SCRIPT, f"{where}.tap.{field}: the node's scriptsDir holds no executable {script!r}"
            )


def generated_mac(uuid: str, name: str) -> str:
    """The MAC address of interface ``name`` of guest ``uuid`` when the user gives none."""
    digest = hashlib.sha256(f"{uuid}/{name}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def tap_name(uuid: str, name: str) -> str:
    """The host's interface name, within Linux' 15 characters."""
    return "gl" + hashlib.sha256(f"{uuid}/{name}".encode()).hexdigest()[:12]


def _mac(spec: NetworkSpec, uuid: str, kept: Mapping[str, str]) -> str:
    if spec.mac_address:
        return spec.mac_address.lower()
    return kept.get(spec.name) or generated_mac(uuid, spec.name)


def _bandwidth(spec: BandwidthSpec) -> Bandwidth:
    return Bandwidth(
        inbound_bytes=parse_quantity(spec.inbound) if spec.inbound else None,
        outbound_bytes=parse_quantity(spec.outbound) if spec.outbound else None,
    )


def net_backend(spec: NetworkSpec) -> NetBackend:
    """What the interface is connected to.

    Raises:
        Refused: none is named (an object older than the rule of the CRD).
    """
    if spec.user is not None:
        return UserNet(
            host_forwards=tuple(
                HostForward(
                    protocol=forward.protocol,
                    host_address=forward.host_address,
                    host_port=forward.host_port,
                    guest_port=forward.guest_port,
                )
                for forward in spec.user.host_forwards
            )
        )
    if spec.bridge is not None:
        return BridgeNet(bridge=spec.bridge.name)
    if spec.tap is not None:
        return TapNet(up_script=spec.tap.up_script, down_script=spec.tap.down_script)
    if spec.isolated is not None:
        return IsolatedNet()
    raise Refused(
        Reason.INVALID_SPEC, f"spec.networks[{spec.name}]: name exactly one of user, bridge, tap and isolated"
    )

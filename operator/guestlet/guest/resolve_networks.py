"""Network interfaces of the next start: MACs and tap names are made from the guest's uuid, so that they never change.

Pure. The MAC prefix 52:54:00 is the one QEMU and libvirt use (locally administered).
"""

import hashlib

from guestlet.api.network_spec import NetworkSpec
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.qemu.machine import (
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
    kept = {nic.name: nic.mac for nic in previous.networks} if previous else {}
    nics = tuple(_nic(spec, uuid, kept) for spec in specs)
    seen: dict[str, str] = {}
    for nic in nics:
        if nic.mac in seen:
            raise Refused(
                Reason.INVALID_SPEC,
                f"spec.networks[{nic.name}].macAddress: {nic.mac} is also that of {seen[nic.mac]}; give another",
            )
        seen[nic.mac] = nic.name
    return nics


def generated_mac(uuid: str, name: str) -> str:
    """The MAC address of interface ``name`` of guest ``uuid`` when the user gives none."""
    digest = hashlib.sha256(f"{uuid}/{name}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def tap_name(uuid: str, name: str) -> str:
    """The host's interface name, within Linux' 15 characters."""
    return "gl" + hashlib.sha256(f"{uuid}/{name}".encode()).hexdigest()[:12]


def _nic(spec: NetworkSpec, uuid: str, kept: dict[str, str]) -> Nic:
    backend = net_backend(spec)
    mac = spec.mac_address.lower() if spec.mac_address else kept.get(spec.name) or generated_mac(uuid, spec.name)
    return Nic(
        name=spec.name,
        model=spec.model,
        mac=mac,
        backend=backend,
        queues=spec.queues,
        link_up=spec.link_up,
        boot_order=spec.boot_order,
        tap=tap_name(uuid, spec.name) if isinstance(backend, BridgeNet | TapNet) else None,
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

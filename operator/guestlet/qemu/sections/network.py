"""Network interfaces: one ``-netdev`` and one ``-device`` each.

A link that is to be down is set by ``set_link`` before ``cont``: no device has a property for it.
"""

from guestlet.api.reasons import Reason
from guestlet.errors import Broken
from guestlet.qemu.machine import (
    BridgeNet,
    HostForward,
    HostPaths,
    IsolatedNet,
    Machine,
    Nic,
    NicModel,
    Protocol,
    TapNet,
    UserNet,
)
from guestlet.qemu.names import hub, net_backend, nic_device
from guestlet.qemu.options import OptionValue, json_option
from guestlet.qemu.sections.buses import placement

Option = dict[str, OptionValue]

_MODEL = {NicModel.VIRTIO: "virtio-net-pci", NicModel.E1000: "e1000"}
_PROTOCOL = {Protocol.TCP: "tcp", Protocol.UDP: "udp"}


def network_args(machine: Machine, paths: HostPaths) -> list[str]:
    """Backends before the devices that name them, in the order of the machine."""
    args = []
    for nic in machine.networks:
        descriptors = tuple(str(each) for each in paths.tap_fds.get(nic.name, ()))
        args += ["-netdev", json_option(backend_option(nic, descriptors))]
        args += ["-device", json_option(nic_option(machine, nic))]
    return args


def backend_option(nic: Nic, descriptors: tuple[str, ...]) -> Option:
    """The interface's ``-netdev``; ``netdev_add`` takes the same.

    ``descriptors``, one a queue of a tap: their numbers in a QEMU that inherits them, or the names that ``getfd`` gave
    them in a running one; anything but a tap needs none.

    Raises:
        Broken: ``HostFailure`` when a tap's descriptors are not as many as its queues.
    """
    backend = net_backend(nic.name)
    match nic.backend:
        case UserNet(host_forwards=forwards):
            option: Option = {"type": "user", "id": backend}
            if forwards:
                option["hostfwd"] = tuple({"str": _forward(each)} for each in forwards)
            return option
        case BridgeNet() | TapNet():
            return {"type": "tap", "id": backend, **_descriptors(nic, descriptors), "vhost": False}
        case IsolatedNet():
            return {"type": "hubport", "id": backend, "hubid": hub(nic.name)}


def nic_option(machine: Machine, nic: Nic) -> Option:
    """The interface's ``-device``; ``device_add`` takes the same."""
    device = nic_device(nic.name)
    option: Option = {
        "driver": _MODEL[nic.model],
        "id": device,
        "netdev": net_backend(nic.name),
        "mac": nic.mac,
        **placement(machine.pci, device),
    }
    if nic.queues > 1:
        # One vector a queue and direction, one for control, one for configuration (QEMU hw/net/virtio-net).
        option |= {"mq": True, "vectors": 2 * nic.queues + 2}
    if nic.boot_order is None:
        option["romfile"] = ""  # no network boot was asked for: the firmware need not even look
    else:
        option["bootindex"] = nic.boot_order
    return option


def _descriptors(nic: Nic, descriptors: tuple[str, ...]) -> Option:
    count = len(descriptors)
    if count != nic.queues:
        raise Broken(Reason.HOST_FAILURE, f"network {nic.name}: {count} tap descriptors for {nic.queues} queues")
    return {"fd": descriptors[0]} if count == 1 else {"fds": ":".join(descriptors)}


def _forward(forward: HostForward) -> str:
    host = f"{_PROTOCOL[forward.protocol]}:{forward.host_address}:{forward.host_port}"
    return f"{host}-:{forward.guest_port}"

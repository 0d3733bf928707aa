"""The QMP commands that guestlet sends, as values: what to say and how long to wait for the answer.

It must never send anything. A command whose deadline passes may have been carried out: ``errors.Unknown``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from guestlet.qemu.names import nic_device
from guestlet.qemu.options import OptionValue

_QUERY_DEADLINE_S = 5.0
_CHANGE_DEADLINE_S = 10.0
_NOTHING: Mapping[str, OptionValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: ``deadline_s`` is how long QEMU may take to answer before the outcome counts as unknown."""

    name: str
    arguments: Mapping[str, OptionValue] = field(default_factory=lambda: _NOTHING)
    deadline_s: float = _CHANGE_DEADLINE_S


def cont() -> Command:
    """Let the guest run."""
    return Command(name="cont")


def stop() -> Command:
    """Freeze the guest's virtual CPUs; outstanding disk requests are finished first."""
    return Command(name="stop")


def system_powerdown() -> Command:
    """Press the power button: the guest may shut down, later, or not at all."""
    return Command(name="system_powerdown")


def system_reset() -> Command:
    """Press the reset button."""
    return Command(name="system_reset")


def quit_qemu() -> Command:
    """End QEMU at once; disk caches of QEMU's own are flushed."""
    return Command(name="quit")


def set_link(network: str, *, up: bool) -> Command:
    """Pull or plug the cable of the network, by the user's name for it."""
    return Command(name="set_link", arguments={"name": nic_device(network), "up": up})


def query_status() -> Command:
    """The run state."""
    return _query("query-status")


def query_version() -> Command:
    """QEMU's own version."""
    return _query("query-version")


def query_name() -> Command:
    """The guest's name, as QEMU was given it."""
    return _query("query-name")


def query_uuid() -> Command:
    """The guest's UUID, as QEMU was given it."""
    return _query("query-uuid")


def query_cpus_fast() -> Command:
    """The virtual CPUs and the threads that execute them."""
    return _query("query-cpus-fast")


def query_pci() -> Command:
    """The PCI functions as the guest sees them; blind before its firmware has run."""
    return _query("query-pci")


def query_block() -> Command:
    """The disks with what they read."""
    return _query("query-block")


def qom_list(path: str) -> Command:
    """The properties of an object; of ``/machine/peripheral``: the devices that were given an id."""
    return _query("qom-list", path=path)


def qom_get(path: str, name: str) -> Command:
    """One property of an object."""
    return _query("qom-get", path=path, property=name)


def device_address(device: str) -> Command:
    """Slot and function of a PCI device, by its qdev id (``replies.parse_address``)."""
    return qom_get(f"/machine/peripheral/{device}", "legacy-addr")


def device_bus(device: str) -> Command:
    """The bus that a device is on, by its qdev id (``replies.parse_parent_bus``)."""
    return qom_get(f"/machine/peripheral/{device}", "parent_bus")


def _query(name: str, **arguments: OptionValue) -> Command:
    return Command(name=name, arguments=arguments, deadline_s=_QUERY_DEADLINE_S)

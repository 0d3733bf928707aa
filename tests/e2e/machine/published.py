"""What status says of a machine, in the shape in which a guest's own report can be compared with it."""

from collections.abc import Mapping
from typing import cast

from e2e.stage import Guest
from sandbox.kubectl import Object

# What the chipsets have by themselves; q35's SATA controller is published when a disk is on it.
BOARD: Mapping[str, frozenset[str]] = {
    "q35": frozenset({"0000:00:00.0", "0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3"}),
    "pc": frozenset({"0000:00:00.0", "0000:00:01.0", "0000:00:01.1", "0000:00:01.3"}),
}
ROOT_BUSES = ("pcie.0", "pci.0")


def objects(parent: Object, *path: str) -> tuple[Object, ...]:
    """A list of objects in an object; empty when it is not there."""
    value: object = parent
    for key in path:
        value = cast(Object, value).get(key, {})
    return tuple(cast("list[Object]", value or []))


def devices_by_id(status: Object) -> dict[str, Object]:
    """The entries of ``status.pci.devices``."""
    return {str(each["id"]): each for each in objects(status, "pci", "devices")}


def functions(status: Object) -> dict[str, tuple[str, str]]:
    """Guest address → (vendor, device) of every published device; each has an address of its own."""
    devices = objects(status, "pci", "devices")
    found = {str(each["guestAddress"]): (str(each["vendor"]), str(each["device"])) for each in devices}
    assert len(found) == len(devices)
    return found


def places(status: Object) -> dict[str, str]:
    """Device or controller → the recorded place, ``bus:slot.function``: what nothing may move."""
    everything = (*objects(status, "pci", "controllers"), *objects(status, "pci", "devices"))
    return {str(each["id"]): f"{each['bus']}:{each['address']}" for each in everything}


def guest_addresses(guest: Guest) -> dict[str, str]:
    """Device → its address as the guest's firmware numbered it."""
    found = devices_by_id(guest.status()).items()
    return {name: str(each.get("guestAddress", "")) for name, each in found}

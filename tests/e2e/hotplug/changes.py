"""Words for changes of a running guest: what is added, when it is done, how it stands.

Nothing here decides whether a test passes; a wait that ends without what was waited for raises with the state as found.
"""

import json
from collections.abc import Callable, Mapping
from typing import cast

from e2e.hotplug.monitor import Belongings, belongings, runtime_of
from e2e.machine.linux import Report, ask_at, parse_report
from e2e.machine.published import objects
from e2e.stage import Guest, Stage, eventually
from sandbox.kubectl import Object
from sandbox.nodes import POOL

MIB = 2**20
BANNER = "made by hack/test-guest"
# A Linux that may grow: one CPU more, a GiB more, and places for devices.
GROWING: Mapping[str, object] = {
    "nodeName": "node-a",
    "cpu": {"count": 1, "maxCount": 2},
    "memory": {"size": "160Mi", "maxSize": "1184Mi"},
    "pci": {"hotplugPorts": 6},
}


def disk(stage: Stage, name: str, *, size: str | None = "8Mi", bus: str = "Virtio", **more: object) -> Object:
    """A disk of the stage's own, with its name in capitals as serial."""
    source = {"file": {"pool": POOL, "image": f"{stage.namespace}-{name}.qcow2"}}
    sized = {"size": size} if size else {}
    return {"name": name, "bus": bus, "serial": name.upper(), "source": source, **sized, **more}


def settle(guest: Guest, *, timeout_s: float = 60) -> None:
    """Waits until status speaks of the spec as it is, and nothing is under way and nobody need act."""

    def settled() -> bool:
        found = guest.read()
        metadata, status = cast(Mapping[str, object], found["metadata"]), cast(Object, found.get("status", {}))
        states = {str(each["type"]): each["status"] for each in objects(status, "conditions")}
        quiet = "True" not in (states.get("Reconciling"), states.get("Stalled"))
        return status.get("observedGeneration") == metadata["generation"] and states.get("Ready") == "True" and quiet

    try:
        eventually(settled, timeout_s=timeout_s, what=f"{guest.name} at rest")
    except AssertionError as error:
        raise AssertionError(f"{error}:\n{json.dumps(guest.status(), indent=1)}") from error


def change(guest: Guest, spec: Mapping[str, object], *, timeout_s: float = 60) -> None:
    """An edit that is done before this returns."""
    guest.edit(spec)
    settle(guest, timeout_s=timeout_s)


def wait_for_belongings(guest: Guest, check: Callable[[Belongings], bool], what: str, *, timeout_s: float = 30) -> None:
    """Waits until QEMU has what it should."""
    try:
        eventually(lambda: check(belongings(guest)), timeout_s=timeout_s, what=what)
    except AssertionError as error:
        status = json.dumps(guest.status(), indent=1)
        raise AssertionError(f"{error}: {belongings(guest)}\n{status}") from error


def wait_for_report(guest: Guest, check: Callable[[Report], bool], what: str, *, timeout_s: float = 30) -> Report:
    """Waits until the guest's kernel sees what it should, and gives what it sees; it has booted."""
    seen: list[Report] = []

    def asked() -> bool:
        seen.append(parse_report(ask_at(runtime_of(guest) / "console", "report")))
        return check(seen[-1])

    try:
        eventually(asked, timeout_s=timeout_s, what=what)
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen[-1]}\n{guest.console()[-2000:]}") from error
    return seen[-1]


def boots(guest: Guest) -> int:
    """How often its Linux has booted; the log of the console goes on over restarts."""
    return guest.console().count(BANNER)


def wait_for_boot(guest: Guest, number: int) -> None:
    """Waits until its Linux has booted that often."""
    try:
        eventually(lambda: boots(guest) >= number, timeout_s=90, what=f"boot {number} of the guest")
    except AssertionError as error:
        raise AssertionError(f"{error}:\n{guest.console()[-2000:]}") from error


def addressed(guest: Guest) -> Object:
    """Status once every device has the address at which the guest sees it."""

    def complete() -> bool:
        devices = objects(guest.status(), "pci", "devices")
        return bool(devices) and all("guestAddress" in each for each in devices)

    eventually(complete, timeout_s=30, what="an address of every device")
    return guest.status()


def free_ports(guest: Guest) -> int:
    """``status.pci.hotplugPorts.free``."""
    return int(guest.field(".status.pci.hotplugPorts.free") or 0)


def mac_of(guest: Guest, name: str) -> str:
    """The MAC address of a network."""
    (found,) = (each for each in objects(guest.status(), "networks") if each["name"] == name)
    return str(found["macAddress"]).lower()


def serials(seen: Report) -> dict[str, int]:
    """Serial → size in bytes of the disks that the guest sees."""
    return {each.serial: each.size_bytes for each in seen.disks}

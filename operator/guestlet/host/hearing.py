"""What the guests' QEMUs said by events, kept for as long as it can be true. In memory only.

It must never be the only ground of a decision: events are lost with the connection and with the agent.
"""

from dataclasses import replace

from guestlet.host.facts import NOTHING_HEARD, Heard
from guestlet.qemu.commands import Command
from guestlet.qemu.events import (
    AcpiOst,
    DeviceDeleted,
    DeviceUnplugRefused,
    Event,
    MemoryUnplugRefused,
    Reset,
    Shutdown,
    ejection_refusal,
)

_REFUSALS_LIMIT = 256  # of one QEMU; a guest can refuse without end, and QEMU has no more slots


class Hearing:
    """What was heard, by guest. Devices without a qdev id go by their QOM path."""

    def __init__(self) -> None:
        self._heard: dict[str, Heard] = {}
        self._farewells: dict[str, str] = {}

    def take(self, guest: str, event: Event) -> None:
        """Takes note of an event. A reset gives every device back to the firmware: nothing refused before counts."""
        match event:
            case Shutdown():
                self._farewells[guest] = event.reason
            case Reset():
                self._heard[guest] = Heard(reset_at=event.at_s, unplug_refusals={})
            case DeviceDeleted():
                self._excuse(guest, event.device or event.path)
            case DeviceUnplugRefused():
                self._refuse(guest, event.device or event.path, event.at_s, "the guest refused to let go of it")
            case MemoryUnplugRefused():
                self._refuse(guest, event.device, event.at_s, event.message)
            case AcpiOst():
                why = ejection_refusal(event)
                if event.device and why is not None:
                    self._refuse(guest, event.device, event.at_s, why)
            case _:
                return

    def sent(self, guest: str, command: Command) -> None:
        """Takes note of a command: what is plugged anew has refused nothing yet."""
        if command.name == "device_add":
            self._excuse(guest, str(command.arguments.get("id")))

    def heard(self, guest: str) -> Heard:
        """Everything that still counts."""
        return self._heard.get(guest, NOTHING_HEARD)

    def farewell(self, guest: str) -> str | None:
        """Why the guest's last QEMU said it would go, if it said so."""
        return self._farewells.get(guest)

    def ended(self, guest: str) -> None:
        """Its QEMU is no more; why it went is still of interest."""
        self._heard.pop(guest, None)

    def forget(self, guest: str) -> None:
        """Another QEMU, or none: nothing of the one before counts."""
        self._heard.pop(guest, None)
        self._farewells.pop(guest, None)

    def _refuse(self, guest: str, device: str, at_s: float, why: str) -> None:
        before = self.heard(guest)
        if device in before.unplug_refusals or len(before.unplug_refusals) < _REFUSALS_LIMIT:
            refusals = {**before.unplug_refusals, device: (at_s, why)}
            self._heard[guest] = replace(before, unplug_refusals=refusals)

    def _excuse(self, guest: str, device: str) -> None:
        before = self.heard(guest)
        if device in before.unplug_refusals:
            refusals = {name: said for name, said in before.unplug_refusals.items() if name != device}
            self._heard[guest] = replace(before, unplug_refusals=refusals)

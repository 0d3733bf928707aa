"""The columns of ``kubectl get virtualguests``; each path exists in the schema (a test checks it)."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One printer column; a ``wide`` one is shown only with ``-o wide``."""

    name: str
    path: str
    type: str
    description: str
    wide: bool = False

    def to_wire(self) -> dict[str, Any]:
        """The column as an entry of ``additionalPrinterColumns``."""
        wire: dict[str, Any] = {
            "name": self.name,
            "jsonPath": self.path,
            "type": self.type,
            "description": self.description,
        }
        return wire | ({"priority": 1} if self.wide else {})


_READY = '.status.conditions[?(@.type=="Ready")]'

GUEST_COLUMNS = (
    Column(name="Phase", path=".status.phase", type="string", description="A summary for people."),
    Column(name="Ready", path=f"{_READY}.status", type="string", description="Whether the guest runs as recorded."),
    Column(name="Node", path=".status.nodeName", type="string", description="The node that may run the guest."),
    Column(name="vCPU", path=".status.cpu.count", type="integer", description="Virtual CPUs of the guest."),
    Column(name="Memory", path=".status.memory.current", type="string", description="Memory of the guest."),
    Column(name="Age", path=".metadata.creationTimestamp", type="date", description="Time since it was created."),
    Column(name="Reason", path=f"{_READY}.reason", type="string", description="Why Ready is as it is.", wide=True),
    Column(
        name="Machine", path=".status.machineType", type="string", description="The versioned machine type.", wide=True
    ),
    Column(
        name="PCI free",
        path=".status.pci.hotplugPorts.free",
        type="integer",
        description="Spare root ports still empty.",
        wide=True,
    ),
)

"""What `hack/up` shows at its end, made from the example's object as the API server returns it. It must never wait."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich import box
from rich.table import Table

from sandbox.cluster import DEFAULT_ROOT
from sandbox.kubectl import Object

_COLUMNS = ("name", "kind", "bus", "address", "guestAddress", "vendor", "device")


def pci_devices(guest: Object) -> Iterator[Mapping[str, str]]:
    """Each device of ``status.pci.devices``."""
    status = guest.get("status")
    pci = status.get("pci") if isinstance(status, dict) else None
    for device in pci.get("devices", ()) if isinstance(pci, dict) else ():
        yield {column: str(device.get(column, "")) for column in _COLUMNS}


def pci_table(guest: Object) -> Table:
    """The PCI addresses of a guest: where each device was put, and where the guest sees it."""
    table = Table(title="demo: PCI devices", box=box.SIMPLE, title_justify="left", pad_edge=False)
    for column in ("name", "kind", "on bus", "slot.function", "in the guest", "vendor", "device"):
        table.add_column(column, no_wrap=True)
    for device in pci_devices(guest):
        table.add_row(*(device[column] for column in _COLUMNS))
    return table


def next_commands(root: Path, *, example: bool) -> str:
    """Commands worth trying, to be pasted as they are."""
    where = shlex.quote(str(root.absolute()))
    guest = """\
  kubectl get vg demo -o yaml                                          # the live description
  .venv/bin/guestlet console default/demo                              # its serial console; leave with Ctrl-]
  kubectl patch vg demo --type=merge -p '{"spec":{"paused":true}}'     # freeze it; false thaws it
  kubectl patch vg demo --type=merge -p '{"spec":{"restart":{"token":"1"}}}'
  kubectl delete vg demo
"""
    return f"""\
Next:
  export KUBECONFIG={where}/kubeconfig PATH={where}/bin:$PATH
  kubectl get vg -o wide -w
{guest if example else ""}  kubectl explain vg.spec
  hack/down{"" if root.absolute() == DEFAULT_ROOT else f" --root {shlex.quote(str(root))}"}
"""

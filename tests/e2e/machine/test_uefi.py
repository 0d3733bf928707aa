"""UEFI boots Linux, and its variables are the guest's own for as long as there is a guest."""

from pathlib import Path

from e2e.machine.linux import first_report
from e2e.machine.published import functions
from e2e.machine.samples import disk
from e2e.stage import KERNEL, NODES, Stage, eventually
from guestlet.host.firmware import Firmware, variables_of
from guestlet.settings import load_agent_settings
from sandbox.kubectl import Object


def test_uefi_boots_linux_with_variables_of_its_own(stage: Stage) -> None:
    kernel = {**_object(KERNEL["kernel"]), "image": "vmlinuz"}
    spec = {
        "nodeName": NODES[0],
        "firmware": {"type": "UEFI"},
        "boot": {"kernel": kernel},
        "memory": {"size": "256Mi"},
        "disks": [disk("root", f"{stage.namespace}.qcow2", size="4Mi")],
        "networks": [{"name": "lan", "isolated": {}}, {"name": "old", "model": "E1000", "isolated": {}}],
    }
    guest, other = stage.guest(spec=spec), stage.guest("other", {**spec, "paused": True, "disks": []})
    seen = first_report(guest)
    guest.wait_for_addresses(timeout_s=120)
    published = functions(guest.status())
    assert {address: seen.pci.get(address) for address in published} == published
    template = template_of(stage, guest.field(".status.firmware.image"))

    # The guest's firmware has written to its own copy, another guest has one of its own, and the template is as it was.
    other.wait("Paused")
    variables = guest.state / "nvram.fd"
    assert variables.read_bytes() != template.read_bytes() == (other.state / "nvram.fd").read_bytes()
    assert variables.stat().st_size == template.stat().st_size

    own = variables.stat().st_ino
    pid = guest.pid()
    guest.edit({"restart": {"token": "now"}})
    eventually(lambda: guest.pid() not in (None, pid), timeout_s=60, what="the next QEMU")
    guest.wait()
    assert first_report(guest).pci == seen.pci
    # The very file, not another copy of the template.
    assert variables.stat().st_ino == own
    assert variables.read_bytes() != template.read_bytes()


def template_of(stage: Stage, image: str) -> Path:
    """Debian's variables that belong to a code image."""
    code = Firmware(load_agent_settings(stage.sandbox.node(NODES[0]).config).firmware_dirs).code(image)
    assert code is not None
    template = variables_of(code)
    assert template is not None
    return template


def _object(value: object) -> Object:
    assert isinstance(value, dict)
    return value

"""Is the machine that status describes the machine that runs? Asked of another process and of the kernel."""

import json
import subprocess
import sys
from pathlib import Path
from typing import cast

import yaml

from e2e.machine.rebuild import elsewhere
from e2e.stage import Guest
from guestlet.host.firmware import Firmware
from guestlet.qemu.commandline import host_neutral
from guestlet.qemu.machine import HostPaths
from guestlet.settings import load_agent_settings
from sandbox.kubectl import Object
from sandbox.nodes import program_environment


def rebuilt(found: Object) -> tuple[str, ...]:
    """The command line that another process makes of an object's status, with spec taken away."""
    alone = {key: value for key, value in found.items() if key != "spec"} | {"spec": {}}
    run = subprocess.run(
        [sys.executable, elsewhere.__file__],
        input=json.dumps(alone),
        env=program_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return tuple(json.loads(run.stdout))


def running(guest: Guest) -> tuple[str, ...]:
    """The command line of the guest's QEMU as the kernel has it, host paths replaced by their roles."""
    pid = guest.pid()
    assert pid is not None, f"no QEMU of {guest.name} runs"
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    return host_neutral(tuple(word.decode() for word in words), _paths(guest))


def _paths(guest: Guest) -> HostPaths:
    node, uuid = guest.node, guest.field(".status.uuid")
    settings = load_agent_settings(node.config)
    image = guest.field(".status.firmware.image")
    code = Firmware(settings.firmware_dirs).code(image) if image else None
    pools = cast("list[dict[str, str]]", yaml.safe_load(node.config.read_text())["pools"])
    return HostPaths(
        binary=str(settings.qemu_binary),
        data_dirs=tuple(map(str, settings.qemu_data_dirs)),
        state_dir=str(guest.state),
        runtime_dir=str(node.runtime / uuid),
        pools={pool["name"]: str(Path(pool["path"])) for pool in pools},
        firmware_code=str(code) if code else None,
        tap_fds={},
    )

"""A control plane and its kubectl, as the tests of this folder use them."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from sandbox.assets import Assets
from sandbox.control_plane import ControlPlane, Options


class Cluster:
    def __init__(self, root: Path, assets: Assets) -> None:
        self.said: list[str] = []
        self.audit_log = root / "log" / "audit.log"
        self.control_plane = ControlPlane(root, assets, options=Options(audit_log=self.audit_log), say=self.said.append)

    def kubectl(self, *arguments: str, stdin: str = "", kubeconfig: Path | None = None) -> str:
        run = self.run_kubectl(*arguments, stdin=stdin, kubeconfig=kubeconfig)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def run_kubectl(
        self, *arguments: str, stdin: str = "", kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.control_plane.kubectl, f"--kubeconfig={kubeconfig or self.control_plane.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )

    def apply(self, *objects: dict[str, object]) -> None:
        body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def get(self, *arguments: str) -> dict[str, object]:
        return cast(dict[str, object], json.loads(self.kubectl("get", *arguments, "-o", "json")))

    def exists(self, *arguments: str) -> bool:
        return self.kubectl("get", *arguments, "--ignore-not-found", "-o", "name") != ""

    @property
    def pids(self) -> dict[str, int | None]:
        return {component.name: component.pid for component in self.control_plane.status().components}

    def processes_left(self) -> list[str]:
        """Command lines of all live processes that name our root."""
        left = []
        for directory in Path("/proc").iterdir():
            if directory.name.isdecimal():
                try:
                    command_line = (directory / "cmdline").read_bytes()
                except OSError:
                    continue
                if str(self.control_plane.root).encode() in command_line:
                    left.append(command_line.replace(b"\0", b" ").decode())
        return left


def eventually(condition: Callable[[], bool], *, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.1)

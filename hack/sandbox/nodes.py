"""Nodes of the sandbox: each a folder with settings, a pool and an agent; several share this one machine.

It must never start a second agent for a node, nor write into a pool that it did not set up.
"""

import filecmp
import http
import http.client
import os
import string
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from sandbox import processes
from sandbox.errors import SandboxError
from sandbox.ports import free_port, is_free, remember_ports, remembered_ports
from sandbox.qemu import QemuBuild, link_build
from sandbox.root import Root

OPERATOR = Path(__file__).resolve().parents[2] / "operator"
POOL = "default"


def node_name(index: int) -> str:
    """``node-a`` for 0, ``node-z`` for 25, ``node-aa`` for 26."""
    name = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        name = string.ascii_lowercase[letter] + name
    return f"node-{name}"


def run_guestlet(*arguments: str, timeout_s: float = 60) -> str:
    """Runs the program once and gives what it prints.

    Raises:
        SandboxError: it failed or did not end in time.
    """
    try:
        run = subprocess.run(
            guestlet_argv(*arguments),
            env=program_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise SandboxError(f"guestlet {' '.join(arguments)}: {error}") from error
    if run.returncode != 0:
        raise SandboxError(f"guestlet {' '.join(arguments)}: {run.stderr.strip() or run.stdout.strip()}")
    return run.stdout


def guestlet_argv(*arguments: str) -> tuple[str, ...]:
    """The command line of the program of this checkout."""
    return (str(Path(sys.executable).with_name("guestlet")), *arguments)


def program_environment() -> dict[str, str]:
    """What controller, agents and commands get to see: no proxy, no setting of the caller's shell."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "PATH", "TMPDIR")}
    # The system's tools (ip, qemu-img) lie in sbin too, which is not in everybody's PATH.
    return kept | {"PYTHONPATH": str(OPERATOR), "PATH": f"{kept.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A long-running guestlet of the sandbox: the controller or one agent."""

    root: Root
    name: str
    arguments: tuple[str, ...]

    @property
    def pid_file(self) -> Path:
        """Where its pid and start time are."""
        return self.root.run / f"{self.name}.pid"

    @property
    def log_file(self) -> Path:
        """Its standard output and error."""
        return self.root.log / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Its pid while it runs."""
        return processes.alive_pid(self.pid_file)

    def start(self) -> bool:
        """Starts it unless it runs; tells whether it had to.

        Raises:
            SandboxError: it ended at once, with the end of its log.
        """
        if self.pid is not None:
            return False
        daemon = processes.Daemon(
            name=self.name,
            argv=guestlet_argv(*self.arguments),
            pid_file=self.pid_file,
            log_file=self.log_file,
            environment=program_environment(),
        )
        processes.start(daemon)
        return True

    def stop(self, *, kill: bool = False) -> bool:
        """Ends it and tells whether it ran; ``kill`` as a crash would."""
        return processes.stop(self.pid_file, kill=kill)

    def is_ready(self) -> bool:
        """Whether its /readyz says so."""
        return self.fetch("/readyz") is not None

    def fetch(self, path: str) -> str | None:
        """What it answers on its HTTP port (/healthz, /readyz, /metrics); ``None`` unless it is 200 OK."""
        connection = http.client.HTTPConnection("127.0.0.1", http_port(self), timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.read().decode() if answer.status == http.HTTPStatus.OK else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node: its folder under the root, and its agent."""

    root: Root
    name: str

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self.root.nodes / self.name

    @property
    def state(self) -> Path:
        """The agent's state directory: records, pid files and logs of guests."""
        return self.folder / "state"

    @property
    def runtime(self) -> Path:
        """The agent's runtime directory: sockets."""
        return self.root.runtime(self.name)

    @property
    def config(self) -> Path:
        """The agent's settings."""
        return self.folder / "node.yaml"

    @property
    def kubeconfig(self) -> Path:
        """The agent's own kubeconfig, with the token of its service account."""
        return self.folder / "kubeconfig"

    @property
    def scripts(self) -> Path:
        """Where tap scripts must lie."""
        return self.folder / "scripts"

    @property
    def agent(self) -> Program:
        """The agent."""
        arguments = ("agent", "--config", str(self.config))
        return Program(root=self.root, name=f"agent-{self.name}", arguments=arguments)

    def pool(self, name: str = POOL) -> Path:
        """The folder of a pool."""
        return self.folder / "pools" / name

    def prepare(self, qemu: QemuBuild, *, settings: Mapping[str, object] | None = None) -> None:
        """Makes folders, pool and settings; ``settings`` overrule those of the sandbox.

        An agent that runs with other settings is ended: it reads them once, and its guests do not mind.

        Raises:
            SandboxError: the pool cannot be set up.
        """
        for folder in (self.state, self.pool(), self.scripts):
            folder.mkdir(parents=True, exist_ok=True)
        # QEMU's uid passes through to what it is given; what it may open is the agent's business.
        for folder in (self.folder, self.pool().parent):
            folder.chmod(0o711)
        self.root.prepare_runtime(self.name)
        if not (self.pool() / ".guestlet-pool").exists():
            run_guestlet("pool", "init", str(self.pool()))
        # Beside the node's other folders: a cache in root's home is closed to QEMU's uid.
        linked = link_build(qemu, self.folder / "qemu")
        if write_settings(self.config, {**self._settings(linked), **(settings or {})}):
            self.agent.stop()

    def put_image(self, source: Path, name: str, *, pool: str = POOL) -> Path:
        """Copies an image into a pool unless it is there already; a copy shares no block that a guest could change."""
        target = self.pool(pool) / name
        if not (target.exists() and filecmp.cmp(source, target, shallow=True)):
            partial = target.with_name(f".{name}.partial")
            subprocess.run(["cp", "--reflink=auto", "--preserve=timestamps", source, partial], check=True, timeout=300)
            partial.rename(target)
        return target

    def _settings(self, qemu: QemuBuild) -> dict[str, object]:
        optional = {"qemuModuleDir": str(qemu.module_dir)} if qemu.module_dir else {}
        return {
            "nodeName": self.name,
            "stateDir": str(self.state),
            "runtimeDir": str(self.runtime),
            "pools": [{"name": POOL, "path": str(self.pool())}],
            "scriptsDir": str(self.scripts),
            "qemuBinary": str(qemu.binary),
            "qemuImg": str(qemu.img),
            "qemuDataDirs": [str(folder) for folder in qemu.data_dirs],
            **optional,
            "registerNode": True,
            "kubeconfig": str(self.kubeconfig),
            "httpPort": http_port(self.agent),
        }


def write_settings(file: Path, settings: Mapping[str, object]) -> bool:
    """Writes a program's settings and tells whether they are other ones than before."""
    wanted = yaml.safe_dump(dict(settings), sort_keys=False)
    if file.exists() and file.read_text() == wanted:
        return False
    new = file.with_suffix(".new")
    new.write_text(wanted)
    new.rename(file)
    return True


def http_port(program: Program) -> int:
    """The port of a program's /metrics: chosen once, chosen anew only when somebody else took it meanwhile.

    Raises:
        SandboxError: no port is free.
    """
    file = program.root.run / f"{program.name}.ports"
    port = remembered_ports(file).get("http")
    if port is None or (program.pid is None and not is_free(port)):
        port = free_port()
        remember_ports(file, {"http": port})
    return port

"""A whole Kubernetes control plane under one folder: start it, repair it, ask about it, stop it, from any process.

It must never listen on another address than loopback, nor touch a process that its own pid files do not name.
"""

import contextlib
import fcntl
import http.client
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox import processes
from sandbox.assets import Assets
from sandbox.certificates import Identity, ensure_authority, ensure_certificate, ensure_signing_key
from sandbox.components import (
    AUDIT_POLICY,
    COMPONENTS,
    PORT_NAMES,
    Layout,
    Options,
    data_directory,
    etcd_directory,
    pki_directory,
)
from sandbox.errors import SandboxError
from sandbox.kubeconfigs import certificate_kubeconfig
from sandbox.ports import free_port, is_free, remember_ports, remembered_ports

__all__ = ["ComponentStatus", "ControlPlane", "ControlPlaneStatus", "Options", "is_ready"]

_READY_TIMEOUT_S = 90.0
_LOOPBACK = ("localhost", "127.0.0.1")
_ADMINISTRATOR = Identity(common_name="sandbox-admin", organization="system:masters")
_CONTROL_PLANE_USERS = ("kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentStatus:
    """One program of the control plane; `pid` is None while it does not run."""

    name: str
    pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneStatus:
    """What runs of a control plane, and whether its API server says that it is ready."""

    server: str | None
    ready: bool
    components: tuple[ComponentStatus, ...]


class ControlPlane:
    """The control plane of one root folder; made anew in each process that deals with it."""

    def __init__(
        self, root: Path, assets: Assets, *, options: Options | None = None, say: Callable[[str], None] = print
    ) -> None:
        self.root = root.absolute()
        self.assets = assets
        self.options = options or Options()
        self._say = say

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def kubectl(self) -> Path:
        """The kubectl of the same version."""
        return self.root / "bin" / "kubectl"

    @property
    def server(self) -> str:
        """The URL of the API server.

        Raises: SandboxError before the first start.
        """
        layout = self._remembered_layout()
        if layout is None:
            raise SandboxError(f"no control plane was ever started in {self.root}")
        return layout.server

    def start(self) -> None:
        """Start what does not run, and return when the API server is ready.

        Raises: SandboxError with the end of the log when a program does not come up.
        """
        with self._alone():
            layout = self._layout()
            self._write_files(layout)
            for name, build_argv in COMPONENTS:
                self._ensure_running(name, build_argv(self.assets, layout, self.options))
                if name == "kube-apiserver":
                    self._wait_until_ready(layout)

    def stop(self, *, timeout_s: float = 15.0) -> None:
        """End every program of the control plane and return when they are gone; the data stays."""
        if not self.root.exists():
            return
        with self._alone():
            self._stop_components(timeout_s=timeout_s)

    def kill(self, name: str) -> None:
        """End one program as a crash would, for tests; `start` repairs it.

        Raises: SandboxError when there is no such program.
        """
        if name not in dict(COMPONENTS):
            raise SandboxError(f"no component {name!r}, only {', '.join(dict(COMPONENTS))}")
        processes.stop(self._pid_file(name), kill=True)

    def status(self) -> ControlPlaneStatus:
        """Tell what runs; starts and changes nothing."""
        layout = self._remembered_layout()
        components = tuple(
            ComponentStatus(name=name, pid=processes.alive_pid(self._pid_file(name))) for name, _ in COMPONENTS
        )
        return ControlPlaneStatus(
            server=layout.server if layout else None,
            ready=layout is not None and is_ready(layout),
            components=components,
        )

    def _pid_file(self, name: str) -> Path:
        return self.root / "run" / f"{name}.pid"

    def _log_file(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        run = self.root / "run"
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run / "control-plane.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _stop_components(self, *, timeout_s: float) -> None:
        # Clients first, etcd last: in the other order the API server waits for an etcd that is gone.
        names = [name for name, _ in COMPONENTS]
        if processes.alive_pid(self._pid_file("etcd")) is None:
            # It would wait for etcd until the deadline, and has nothing to lose.
            self.kill("kube-apiserver")
        for group in (names[2:], names[1:2], names[:1]):
            processes.stop_all((self._pid_file(name) for name in group), timeout_s=timeout_s)

    def _remembered_layout(self) -> Layout | None:
        ports = remembered_ports(self._ports_file)
        return self._layout_of(ports) if set(PORT_NAMES) <= ports.keys() else None

    @property
    def _ports_file(self) -> Path:
        return data_directory(self.root) / "ports.json"

    def _layout_of(self, ports: Mapping[str, int]) -> Layout:
        return Layout(
            root=self.root,
            etcd_port=ports["etcd"],
            etcd_peer_port=ports["etcd-peer"],
            api_port=ports["kube-apiserver"],
        )

    def _layout(self) -> Layout:
        ports = remembered_ports(self._ports_file)
        chosen = dict(ports)
        for name in PORT_NAMES:
            owner = "etcd" if name == "etcd-peer" else name
            if name in ports and (processes.alive_pid(self._pid_file(owner)) or is_free(ports[name])):
                continue
            chosen[name] = free_port(besides=chosen.values())
            if name in ports:
                self._say(f"port {ports[name]} of {name} is taken by another program: {chosen[name]} from now on")
        if chosen != ports:
            # Each program names the others' ports on its command line.
            self._stop_components(timeout_s=15.0)
            remember_ports(self._ports_file, chosen)
        return self._layout_of(chosen)

    def _write_files(self, layout: Layout) -> None:
        data, pki = data_directory(self.root), pki_directory(self.root)
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        etcd_directory(self.root).mkdir(exist_ok=True, mode=0o700)
        authority = ensure_authority(pki)
        for server in ("etcd", "kube-apiserver"):
            ensure_certificate(pki, server, Identity(common_name=server, hosts=_LOOPBACK))
        ensure_signing_key(pki, "service-accounts")
        admin = ensure_certificate(pki, "admin", _ADMINISTRATOR)
        certificate_kubeconfig(self.kubeconfig, server=layout.server, authority=authority.certificate, user=admin)
        for name in _CONTROL_PLANE_USERS:
            user = ensure_certificate(pki, name, Identity(common_name=f"system:{name}"))
            file = data / f"{name}.kubeconfig"
            certificate_kubeconfig(file, server=layout.server, authority=authority.certificate, user=user, name=name)
        (data / "audit-policy.yaml").write_text(AUDIT_POLICY)
        if self.options.audit_log is not None:
            self.options.audit_log.parent.mkdir(parents=True, exist_ok=True)
        self._link_kubectl()

    def _link_kubectl(self) -> None:
        self.kubectl.parent.mkdir(parents=True, exist_ok=True)
        if not (self.kubectl.is_symlink() and self.kubectl.readlink() == self.assets.kubectl):
            self.kubectl.unlink(missing_ok=True)
            self.kubectl.symlink_to(self.assets.kubectl)

    def _ensure_running(self, name: str, argv: tuple[str, ...]) -> None:
        pid_file = self._pid_file(name)
        pid = processes.alive_pid(pid_file)
        if pid is not None and processes.command_line(pid) == argv:
            return
        if pid is not None:
            self._say(f"{name} runs with other arguments: restarted")
            processes.stop(pid_file, timeout_s=15.0)
        processes.start(
            processes.Daemon(
                name=name,
                argv=argv,
                pid_file=pid_file,
                log_file=self._log_file(name),
                directory=data_directory(self.root),
                environment=_environment(),
            )
        )

    def _wait_until_ready(self, layout: Layout) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not is_ready(layout):
            for name in ("etcd", "kube-apiserver"):
                if processes.alive_pid(self._pid_file(name)) is None:
                    raise SandboxError(f"{name} ended at once:\n{processes.log_tail(self._log_file(name))}")
            if time.monotonic() > deadline:
                log = processes.log_tail(self._log_file("kube-apiserver"))
                raise SandboxError(f"kube-apiserver is not ready after {_READY_TIMEOUT_S:.0f} s:\n{log}")
            time.sleep(0.05)


def is_ready(layout: Layout) -> bool:
    """Ask the API server whether it is ready; False also when it cannot be reached."""
    context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt")) if layout.pki.exists() else None
    if context is None:
        return False
    connection = http.client.HTTPSConnection("127.0.0.1", layout.api_port, timeout=5, context=context)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _environment() -> dict[str, str]:
    # A proxy of the caller's must not stand between the programs, and ETCD_* variables would change etcd's flags.
    kept = ("HOME", "LANG", "PATH", "TMPDIR")
    return {name: value for name, value in os.environ.items() if name in kept}

"""The programs of the control plane: found, or built from their Go modules into a cache.

It must never leave a cache entry that is not whole: a finished build is there entirely or not at all.
Only the standard library is used here, so that the programs can be built before any environment is installed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.go import Build, find_go, run_build

MODULE = Path(__file__).resolve().parent.parent / "control-plane"
PROGRAMS: Mapping[str, str] = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
# Without these kubectl cannot parse the server's version, and client-go's user agents say "$Format".
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """A folder that holds all programs of the control plane."""

    directory: Path

    @property
    def etcd(self) -> Path:
        """The etcd server."""
        return self.directory / "etcd"

    @property
    def kube_apiserver(self) -> Path:
        """The API server."""
        return self.directory / "kube-apiserver"

    @property
    def kube_controller_manager(self) -> Path:
        """The controllers that come with Kubernetes."""
        return self.directory / "kube-controller-manager"

    @property
    def kube_scheduler(self) -> Path:
        """The scheduler."""
        return self.directory / "kube-scheduler"

    @property
    def kubectl(self) -> Path:
        """The command line client."""
        return self.directory / "kubectl"


def cache_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder in which everything expensive is kept between runs and shared between checkouts."""
    # The XDG base directory specification: a relative path is invalid and is to be ignored.
    configured = Path(environment.get("XDG_CACHE_HOME", ""))
    base = configured if configured.is_absolute() else Path(environment.get("HOME") or Path.home()) / ".cache"
    return base / "guestlet"


def find_or_build(
    *, module: Path = MODULE, environment: Mapping[str, str] = os.environ, say: Callable[[str], None] = print
) -> Assets:
    """Give the programs from $KUBEBUILDER_ASSETS, else from the cache, else build them (minutes, once).

    Args:
        module: the folder with go.mod and go.sum.
        environment: where KUBEBUILDER_ASSETS, XDG_CACHE_HOME, HOME and PATH are looked up.
        say: told what takes long and how far it is.

    Raises: SandboxError when no Go can be had or the build fails.
    """
    given = environment.get("KUBEBUILDER_ASSETS")
    if given:
        missing = [name for name in PROGRAMS if not os.access(Path(given) / name, os.X_OK)]
        if not missing:
            return Assets(directory=Path(given).absolute())
        say(f"KUBEBUILDER_ASSETS={given} lacks {', '.join(missing)}: not used")
    ldflags = build_ldflags(module)
    entry = cache_directory(environment) / "control-plane" / build_key(module, ldflags)
    if not entry.exists():
        with _lock(entry, say) as lock:
            if not entry.exists():
                _build(module, entry, ldflags=ldflags, environment=environment, lock=lock, say=say)
    return Assets(directory=entry)


def build_ldflags(module: Path) -> str:
    """The linker flags: no debugging symbols, and the version that go.mod names.

    Raises: SandboxError when go.mod requires no k8s.io/kubernetes.
    """
    match = re.search(r"^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise SandboxError(f"{module / 'go.mod'} requires no k8s.io/kubernetes")
    values = {
        "gitVersion": match[1],
        "gitMajor": match[2],
        "gitMinor": match[3],
        "gitCommit": "go-module",
        "gitTreeState": "archive",
        # What Kubernetes itself uses for a build whose date must not change its content.
        "buildDate": "1970-01-01T00:00:00Z",
    }
    settings = (f"-X {package}.{name}={value}" for package in _VERSION_PACKAGES for name, value in values.items())
    return " ".join(("-s", "-w", *settings))


def build_key(module: Path, ldflags: str) -> str:
    """The name of the cache entry: everything that decides what the programs are."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((module / name).read_bytes() + b"\0")
    digest.update(json.dumps([ldflags, sorted(PROGRAMS.items()), platform.machine()]).encode())
    return digest.hexdigest()[:20]


@contextlib.contextmanager
def _lock(entry: Path, say: Callable[[str], None]) -> Iterator[int]:
    entry.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(entry.with_name(f"{entry.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build of the control plane is under way: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _build(
    module: Path,
    entry: Path,
    *,
    ldflags: str,
    environment: Mapping[str, str],
    lock: int,
    say: Callable[[str], None],
) -> None:
    partial = entry.with_name(f"{entry.name}.partial")
    # What a killed build left; the lock says that nobody writes there any more.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        go = find_go(module, cache=cache_directory(environment), environment=environment, say=say)
        build = Build(
            go=go,
            module=module,
            packages=tuple(PROGRAMS.values()),
            ldflags=ldflags,
            out=partial,
            environment=environment,
            lock=lock,
        )
        run_build(build, say)
        # Go names a program by the last element of its path that is no version.
        (partial / "server").rename(partial / "etcd")
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)

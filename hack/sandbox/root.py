"""Where a sandbox keeps what it makes: one folder, and a short one elsewhere when sockets or QEMU's uid need it.

It must never place anything where another sandbox could find it, nor remove a folder that it did not make.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError

# A Unix socket's path has at most 107 bytes; below a node's runtime folder come a uuid and the socket's name.
_LONGEST_RUNTIME = 50
_ELSEWHERE = Path("/var/tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The folder of one sandbox; several may live side by side on one machine."""

    path: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.path / "kubeconfig"

    @property
    def kubectl(self) -> Path:
        """kubectl, for the user's PATH."""
        return self.path / "bin" / "kubectl"

    @property
    def log(self) -> Path:
        """One log for each program."""
        return self.path / "log"

    @property
    def run(self) -> Path:
        """Pid files, remembered ports, locks."""
        return self.path / "run"

    @property
    def nodes(self) -> Path:
        """One folder for each node."""
        return self.path / "nodes"

    @property
    def foreign(self) -> Path:
        """Exists when the cluster is somebody else's (``--kubeconfig``)."""
        return self.run / "foreign-cluster"

    def node_names(self) -> tuple[str, ...]:
        """The nodes that were made here."""
        return tuple(sorted(file.parent.name for file in self.nodes.glob("*/node.yaml")))

    def runtime(self, node: str) -> Path:
        """The folder of a node's sockets, never a link."""
        return (self.nodes / node / "run").resolve()

    def prepare(self) -> None:
        """Makes the folder; nodes lie elsewhere when QEMU's unprivileged uid could not reach them here.

        Raises:
            SandboxError: the folder cannot be made.
        """
        try:
            for folder in (self.log, self.run, self.kubectl.parent):
                folder.mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0 and not reachable_by_others(self.path):
                self._link(self.nodes)
            self.nodes.mkdir(exist_ok=True)
        except OSError as error:
            raise SandboxError(f"cannot use {self.path}: {error}") from error

    def prepare_runtime(self, node: str) -> Path:
        """Makes the folder of a node's sockets, elsewhere when its path would be too long, and returns it."""
        folder = self.nodes / node / "run"
        if not folder.is_symlink() and len(os.fsencode(folder.resolve())) > _LONGEST_RUNTIME:
            self._link(folder)
        folder.resolve().mkdir(parents=True, exist_ok=True)
        return folder.resolve()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Holds off every other ``up`` and ``down`` of this folder."""
        self.run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.run / "sandbox.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def purge(self) -> None:
        """Removes the folder and what of it lies elsewhere."""
        elsewhere = self._remembered()
        if elsewhere is not None:
            shutil.rmtree(elsewhere, ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)
        if self.path.exists():
            raise SandboxError(f"{self.path} could not be removed")

    def _link(self, folder: Path) -> None:
        if folder.is_symlink() and folder.exists():
            return
        if folder.exists() and any(folder.iterdir()):
            raise SandboxError(f"{folder} cannot be moved while it holds something: hack/down --purge first")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            folder.unlink() if folder.is_symlink() else folder.rmdir()
        target = self._elsewhere() / "-".join(folder.relative_to(self.path).parts[-2:])
        target.mkdir(exist_ok=True)
        folder.symlink_to(target)

    def _elsewhere(self) -> Path:
        remembered = self._remembered()
        if remembered is not None:
            return remembered
        made = Path(tempfile.mkdtemp(prefix="guestlet-", dir=_ELSEWHERE))
        # Others may pass through to what is theirs (QEMU's uid), and may list nothing.
        made.chmod(0o711)
        (self.run / "elsewhere").write_text(f"{made}\n")
        return made

    def _remembered(self) -> Path | None:
        try:
            folder = Path((self.run / "elsewhere").read_text().strip())
            owner = folder.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        # Somebody else may have taken the name after a reboot emptied the place.
        ours = stat.S_ISDIR(owner.st_mode) and owner.st_uid == os.geteuid() and folder.parent == _ELSEWHERE
        return folder if ours else None


def reachable_by_others(folder: Path) -> bool:
    """Whether any user may pass through all folders down to this one."""
    every = (folder.resolve(), *folder.resolve().parents)
    return all(place.stat().st_mode & stat.S_IXOTH for place in every if place.exists())

"""Snapshots of a control plane's data: put an API server back to before something happened, on the same ports.

It must never copy etcd's files while an etcd writes them.
"""

import shutil
from pathlib import Path

from sandbox.components import etcd_directory
from sandbox.control_plane import ControlPlane
from sandbox.errors import SandboxError


def back_up(control_plane: ControlPlane, snapshot: Path) -> None:
    """Copy etcd's data into a new folder; the control plane is down meanwhile and up again afterwards.

    Raises: SandboxError when the folder is there, or the control plane does not come up again.
    """
    if snapshot.exists():
        raise SandboxError(f"{snapshot} exists already")
    control_plane.stop()
    shutil.copytree(etcd_directory(control_plane.root), snapshot)
    control_plane.start()


def restore(control_plane: ControlPlane, snapshot: Path) -> None:
    """Put etcd's data back as it was; what was written since is gone, and resource versions are issued again.

    The other programs of the control plane are restarted too, as the Kubernetes documentation asks after a restore:
    their caches hold a future that no longer is.

    Raises: SandboxError when there is no such snapshot, or the control plane does not come up again.
    """
    if not (snapshot / "member").is_dir():
        raise SandboxError(f"{snapshot} holds no data of etcd")
    control_plane.stop()
    data = etcd_directory(control_plane.root)
    shutil.rmtree(data)
    shutil.copytree(snapshot, data)
    control_plane.start()

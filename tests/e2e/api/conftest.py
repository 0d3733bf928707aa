"""A real API server that serves our kinds, and nobody who acts on them: an object holds only what a test wrote."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.stage import eventually
from guestlet.api.crd import crd_documents
from sandbox.assets import find_or_build
from sandbox.control_plane import ControlPlane
from sandbox.kubectl import Kubectl


@pytest.fixture(scope="session")
def api() -> Iterator[Kubectl]:
    """The administrator's kubectl; the definitions were posted with strict validation."""
    root = Path(tempfile.mkdtemp(prefix="gt-api-"))
    control_plane = ControlPlane(root, find_or_build())
    try:
        control_plane.start()
        kubectl = Kubectl(program=control_plane.kubectl, kubeconfig=control_plane.kubeconfig)
        for text in crd_documents().values():
            kubectl("create", "--validate=strict", "-f", "-", stdin=text)
        kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        # what kubectl explain and field validation read follows a little later
        eventually(lambda: kubectl.attempt("explain", "vg.status.pci").code == 0, what="the published schema")
        yield kubectl
    finally:
        control_plane.stop()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def empty(api: Kubectl) -> Iterator[Kubectl]:
    """The same, with no guests before and after."""
    api("delete", "virtualguests", "--all", "--all-namespaces")
    yield api
    api("delete", "virtualguests", "--all", "--all-namespaces")

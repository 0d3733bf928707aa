"""The same tests on the API server in memory and on a real one."""

import itertools
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.kube import EventList, FakeApiServer
from guestlet.api.guest import API_VERSION, KIND, VirtualGuest
from guestlet.kube.client import MERGE_PATCH, KubeApi, KubeClient, Request
from guestlet.kube.credentials import load_credentials
from guestlet.kube.guests import KubeGuests
from guestlet.kube.resources import GUESTS
from sandbox.assets import find_or_build
from sandbox.control_plane import ControlPlane

_CRD_FILE = Path(__file__).parents[3] / "crds" / "guestlet.io_virtualguests.yaml"
_names = itertools.count(1)


class World:
    """An API server, the program's view of it, and what users do to it."""

    def __init__(self, api: KubeApi) -> None:
        self.api = api
        self.events = EventList(FakeApiServer())
        self.now = 1_700_000_000.0
        self.guests = KubeGuests(api, recorder=self.events, clock=lambda: self.now)
        self.name = f"guest-{next(_names)}"

    async def create(self, **spec: Any) -> VirtualGuest:
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": {"memory": {"size": "64Mi"}, **spec},
        }
        await self.api.send(Request(verb="create", resource=GUESTS, namespace="default", body=body))
        return await self.read()

    async def merge(self, body: dict[str, Any], *, subresource: str | None = None) -> None:
        await self.api.send(
            Request(
                verb="patch",
                resource=GUESTS,
                namespace="default",
                name=self.name,
                subresource=subresource,
                body=body,
                content_type=MERGE_PATCH,
            )
        )

    async def delete(self) -> None:
        await self.api.send(Request(verb="delete", resource=GUESTS, namespace="default", name=self.name))

    async def read(self) -> VirtualGuest:
        guest = await self.guests.read("default", self.name)
        assert guest is not None
        return guest

    async def is_gone(self) -> bool:
        return await self.guests.read("default", self.name) is None


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    root = Path(tempfile.mkdtemp(prefix="gk-", dir="/tmp"))
    plane = ControlPlane(root, find_or_build(), say=lambda _text: None)
    try:
        plane.start()
        kubectl(plane, "create", "--validate=strict", "-f", str(_CRD_FILE))
        kubectl(plane, "wait", "--for=condition=Established", "--timeout=30s", "-f", str(_CRD_FILE))
        kubectl(plane, "wait", "--for=jsonpath={.status.phase}=Active", "--timeout=30s", "namespace/default")
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(root, ignore_errors=True)


def kubectl(plane: ControlPlane, *words: str) -> str:
    command = (str(plane.kubectl), "--kubeconfig", str(plane.kubeconfig), *words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.e2e)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield World(FakeApiServer())
        return
    plane: ControlPlane = request.getfixturevalue("control_plane")
    client = KubeClient(load_credentials(plane.kubeconfig))
    yield World(client)
    await client.close()

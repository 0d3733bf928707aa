"""One read of one guest, for commands that only look. It must never write."""

from pathlib import Path

from guestlet.api.guest import VirtualGuest, parse_guest
from guestlet.kube.client import KubeClient
from guestlet.kube.credentials import load_credentials
from guestlet.kube.resources import GUESTS


async def read_guest(kubeconfig: Path | None, namespace: str, name: str) -> VirtualGuest | None:
    """The object, read live, or ``None`` when the server says NotFound.

    Raises:
        NotNow: ApiUnavailable. Refused: Forbidden, InvalidSpec.
    """
    client = KubeClient(load_credentials(kubeconfig))
    try:
        body = await client.get(GUESTS, namespace=namespace, name=name)
    finally:
        await client.close()
    return None if body is None else parse_guest(body)

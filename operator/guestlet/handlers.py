"""Every kopf decorator of the program: what changed in the cluster becomes a call of a sink, nothing else.

Only ``on.event``: kopf then writes nothing, keeps no state on users' objects, and cannot starve or leak (measured, see
ARCHITECTURE.md). No handler may decide, wait, or trust the event: the turn it causes reads the object live.
"""

from collections.abc import Callable

import kopf

from guestlet.api.guest import GROUP, PLURAL, VERSION
from guestlet.kube.credentials import Credentials
from guestlet.kube.facts import GuestSighting, parse_sighting

Sink = Callable[[str | None, GuestSighting], None]
"""Is given the watch event's type (``None``: listed, not changed) and a glance at the object."""


def build_registry(*, login: Callable[[], Credentials], changed: Sink) -> kopf.OperatorRegistry:
    """The handlers of one program; ``login`` is asked again whenever the API server does not accept us."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**_: object) -> kopf.ConnectionInfo:
        found = login()
        return kopf.ConnectionInfo(
            server=found.server,
            ca_data=found.ca_pem,
            insecure=not found.verify,
            token=found.bearer_token(),
            certificate_data=found.certificate_pem,
            private_key_data=found.key_pem,
        )

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def guest_changed(type: str | None, body: kopf.Body, **_: object) -> None:
        changed(type, parse_sighting(body))

    return registry

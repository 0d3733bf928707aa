"""The API server's audit log as values: who asked for what, and what was written.

It must never count a request twice: a watch leaves two lines, one as it starts and one as it ends.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

WRITE_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as the API server saw it; what does not apply is an empty string."""

    audit_id: str
    received: str
    user: str
    user_agent: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    allowed: bool

    @property
    def is_write(self) -> bool:
        """Whether it asked to change something (dry runs and refused requests too: see `code`)."""
        return self.verb in WRITE_VERBS

    @property
    def right(self) -> tuple[str, str, str]:
        """What a ClusterRole has to grant for it: API group, resource with subresource, verb."""
        return self.group, "/".join(filter(None, (self.resource, self.subresource))), self.verb


def read_audit_log(log: Path, *, user: str | None = None) -> tuple[Request, ...]:
    """Read the requests for resources, in the order in which they were answered.

    Args:
        log: what `Options.audit_log` named; a log that is not there yet is empty.
        user: only this user's, for instance `system:serviceaccount:guestlet-system:guestlet-agent`.
    """
    try:
        lines = log.read_bytes().split(b"\n")
    except FileNotFoundError:
        return ()
    requests: dict[str, Request] = {}
    # What follows the last newline is still being written.
    for line in lines[:-1]:
        request = _parse(line)
        if request is not None and (user is None or request.user == user):
            requests.setdefault(request.audit_id, request)
    return tuple(requests.values())


def service_account_user(namespace: str, name: str) -> str:
    """The user name of a service account."""
    return f"system:serviceaccount:{namespace}:{name}"


def _parse(line: bytes) -> Request | None:
    event = cast(dict[str, object], json.loads(line))
    target = _mapping(event, "objectRef")
    if not target:
        return None
    code = _mapping(event, "responseStatus").get("code")
    return Request(
        audit_id=_text(event, "auditID"),
        received=_text(event, "requestReceivedTimestamp"),
        user=_text(_mapping(event, "user"), "username"),
        user_agent=_text(event, "userAgent"),
        verb=_text(event, "verb"),
        group=_text(target, "apiGroup"),
        resource=_text(target, "resource"),
        subresource=_text(target, "subresource"),
        namespace=_text(target, "namespace"),
        name=_text(target, "name"),
        code=code if isinstance(code, int) else 0,
        allowed=_text(_mapping(event, "annotations"), "authorization.k8s.io/decision") == "allow",
    )


def _mapping(parent: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = parent.get(key)
    return cast(dict[str, object], value) if isinstance(value, dict) else {}


def _text(parent: Mapping[str, object], key: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) else ""

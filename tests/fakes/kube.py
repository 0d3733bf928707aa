"""An API server in memory: resourceVersions, conflicts, finalizers, generations, status as a subresource, and
server-side apply's set semantics. The contract tests of tests/contracts/kube hold it to the real one.

    server = FakeApiServer()
    guests = FakeGuests(server)          # the program's own KubeGuests on it, and Events as a list
    server.create_guest("default", "a", {"memory": {"size": "64Mi"}})
"""

import copy
import itertools
import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

import jsonpatch

from guestlet.api.guest import API_VERSION, KIND, VirtualGuest, parse_guest
from guestlet.errors import Broken, GuestletError, NotNow, Refused
from guestlet.kube.client import APPLY, JSON_PATCH, Body, KubeApi, Request, Resource
from guestlet.kube.guests import KubeGuests, rfc3339
from guestlet.kube.recorder import Recorder, Regarding
from guestlet.kube.resources import GUESTS

Key = tuple[str, str, str]
Object = dict[str, Any]
Watcher = Callable[[str, Body], None]


class FakeApiServer(KubeApi):
    """Objects of any kind. ``requests`` remembers every request; ``watchers`` are told ADDED, MODIFIED, DELETED.

    ``fault_before`` and ``fault_after`` may give the error that a request meets before or after its effect.
    """

    def __init__(self, *, clock: Callable[[], float] = lambda: 1_700_000_000.0) -> None:
        self.clock = clock
        self.objects: dict[Key, Object] = {}
        self.requests: list[Request] = []
        self.watchers: list[Watcher] = []
        self.fault_before: Callable[[Request], GuestletError | None] = lambda _request: None
        self.fault_after: Callable[[Request], GuestletError | None] = lambda _request: None
        self._version = itertools.count(1)
        self._uid = itertools.count(1)
        self._applied: dict[str, Object] = {}

    # What people do: kubectl, and backups.

    def create_guest(self, namespace: str, name: str, spec: Mapping[str, Any]) -> VirtualGuest:
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name, "namespace": namespace}}
        return parse_guest(self._create(_key(GUESTS, namespace, name), {**body, "spec": dict(spec)}))

    def edit_guest(self, namespace: str, name: str, change: Callable[[Object], None]) -> VirtualGuest:
        """``change`` may alter the spec it is given (``kubectl edit``)."""
        key = _key(GUESTS, namespace, name)
        after = copy.deepcopy(self.objects[key])
        change(after["spec"])
        self._store(key, after, subresource=None)
        return self.guest(namespace, name)

    def delete_guest(self, namespace: str, name: str) -> None:
        self._delete(_key(GUESTS, namespace, name))

    def drop_guest(self, namespace: str, name: str) -> None:
        """The object is gone at once, finalizers or not: forced off, or an etcd restored from an older backup."""
        self._gone(_key(GUESTS, namespace, name))

    def bind_guest(self, namespace: str, name: str, node: str, *, epoch: int = 1) -> VirtualGuest:
        """What the controller does, without it."""
        key = _key(GUESTS, namespace, name)
        after = copy.deepcopy(self.objects[key])
        after.setdefault("status", {}).update(nodeName=node, placementEpoch=epoch)
        self._store(key, after, subresource="status")
        return self.guest(namespace, name)

    def lose_status(self, namespace: str, name: str) -> None:
        """Only the status of before is gone: what a careless restore leaves."""
        key = _key(GUESTS, namespace, name)
        after = copy.deepcopy(self.objects[key])
        after["status"] = {"observedGeneration": after["metadata"]["generation"]}
        self._applied.pop(after["metadata"]["uid"], None)
        self._store(key, after, subresource="status")

    def guest(self, namespace: str, name: str) -> VirtualGuest:
        return parse_guest(self.objects[_key(GUESTS, namespace, name)])

    def snapshot(self) -> Mapping[Key, Object]:
        return copy.deepcopy(self.objects)

    def restore(self, snapshot: Mapping[Key, Object]) -> None:
        """Etcd as it was when the snapshot was taken."""
        self.objects = copy.deepcopy(dict(snapshot))

    def writes(self, target: str | None = None) -> list[Request]:
        """Every write so far, of one resource (``virtualguests/status``) or of all."""
        return [
            request
            for request in self.requests
            if request.verb not in ("get", "list") and target in (None, request.target)
        ]

    # What the program does.

    async def send(self, request: Request) -> Body | None:
        self.requests.append(request)
        if (error := self.fault_before(request)) is not None:
            raise error
        answer = copy.deepcopy(self._answer(request))
        if (error := self.fault_after(request)) is not None:
            raise error
        return answer

    def _answer(self, request: Request) -> Body | None:
        key = _key(request.resource, request.namespace or "", request.name or "")
        match request.verb:
            case "list":
                return {"items": self._listed(request)}
            case "create":
                body = cast(Object, copy.deepcopy(request.body))
                return self._create(_key(request.resource, request.namespace or "", body["metadata"]["name"]), body)
            case _ if key not in self.objects:
                return None
            case "get":
                return self.objects[key]
            case "delete":
                return self._delete(key)
            case "update":
                return self._store(key, cast(Object, copy.deepcopy(request.body)), subresource=request.subresource)
            case "patch":
                return self._store(key, self._patched(key, request), subresource=request.subresource)
            case _:
                raise Broken("ApiAnswer", f"no such verb: {request.verb}")

    def _listed(self, request: Request) -> list[Object]:
        selector = (request.params or {}).get("fieldSelector", "")
        wanted = [term.split("=", 1) for term in selector.split(",") if term]
        return [
            body
            for (plural, namespace, _), body in sorted(self.objects.items())
            if plural == request.resource.plural
            and request.namespace in (None, namespace)
            and all(_field(body, path) == value for path, value in wanted)
        ]

    def _patched(self, key: Key, request: Request) -> Object:
        before = self.objects[key]
        match request.content_type:
            case _ if request.content_type == JSON_PATCH:
                try:
                    return cast(Object, jsonpatch.apply_patch(before, cast(list[Object], request.body)))
                except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
                    raise NotNow("Conflict", f"{request}: {error}") from error
            case _ if request.content_type == APPLY:
                return self._apply(before, cast(Object, request.body))
            case _:
                return _merged(copy.deepcopy(before), cast(Object, request.body))

    def _apply(self, before: Object, body: Object) -> Object:
        """The set that one manager applied before is replaced by the new one; what others wrote stays."""
        version = body["metadata"].get("resourceVersion")
        if version is not None and version != before["metadata"]["resourceVersion"]:
            raise NotNow("Conflict", "the object has been modified")
        uid = before["metadata"]["uid"]
        after = copy.deepcopy(before)
        status = after.setdefault("status", {})
        owned = self._applied.get(uid, {})
        new = copy.deepcopy(body.get("status", {}))
        for field in owned.keys() - new.keys():
            if field == "conditions":
                _without(status, owned)
            else:
                status.pop(field, None)
        for field, value in new.items():
            status[field] = _conditions(status, owned, value) if field == "conditions" else value
        self._applied[uid] = new
        return after

    def _create(self, key: Key, body: Object) -> Object:
        if key in self.objects:
            raise NotNow("Conflict", f"{key[2]} already exists")
        body["metadata"] |= {"uid": str(uuid.UUID(int=next(self._uid))), "generation": 1}
        body["metadata"]["creationTimestamp"] = rfc3339(self.clock())
        if key[0] == GUESTS.plural:
            body["status"] = {"observedGeneration": -1}
        body["metadata"]["resourceVersion"] = str(next(self._version))
        self.objects[key] = body
        self._tell("ADDED", body)
        return body

    def _store(self, key: Key, after: Object, *, subresource: str | None) -> Object:
        before = self.objects[key]
        version = after["metadata"].get("resourceVersion")
        if version is not None and version != before["metadata"]["resourceVersion"]:
            raise NotNow("Conflict", "the object has been modified")
        after = _allowed(before, after, subresource)
        if after == before:
            return before
        if after.get("spec") != before.get("spec") and key[0] == GUESTS.plural:
            after["metadata"]["generation"] += 1
        return self._commit(key, after)

    def _commit(self, key: Key, after: Object) -> Object:
        after["metadata"]["resourceVersion"] = str(next(self._version))
        self.objects[key] = after
        if after["metadata"].get("deletionTimestamp") and not after["metadata"].get("finalizers"):
            self._gone(key)
        else:
            self._tell("MODIFIED", after)
        return after

    def _delete(self, key: Key) -> Object | None:
        body = self.objects.get(key)
        if body is None or not body["metadata"].get("finalizers"):
            self._gone(key)
            return body
        if "deletionTimestamp" not in body["metadata"]:
            after = copy.deepcopy(body)
            after["metadata"]["deletionTimestamp"] = rfc3339(self.clock())
            after["metadata"]["generation"] += 1
            return self._commit(key, after)
        return body

    def _gone(self, key: Key) -> None:
        body = self.objects.pop(key, None)
        if body is not None:
            self._tell("DELETED", body)

    def _tell(self, change: str, body: Object) -> None:
        for watcher in tuple(self.watchers):
            watcher(change, copy.deepcopy(body))


class FakeGuests(KubeGuests):
    """The program's ``KubeGuests`` on a ``FakeApiServer``; Events are kept in a list instead of being posted."""

    def __init__(self, server: FakeApiServer) -> None:
        self.server = server
        self.events = EventList(server)
        super().__init__(server, recorder=self.events, clock=server.clock)


class EventList(Recorder):
    """``seen`` holds (kind, name, reason, message) in order."""

    def __init__(self, server: FakeApiServer) -> None:
        super().__init__(server, controller="guestlet.io/test", instance="test", clock=server.clock)
        self.seen: list[tuple[str, str, str, str]] = []

    def record(self, about: Regarding, *, reason: str, message: str, warning: bool) -> None:
        self.seen.append((about.kind, about.name, reason, message))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, _, reason, _ in self.seen]


def _key(resource: Resource, namespace: str, name: str) -> Key:
    return (resource.plural, namespace, name)


def _field(body: Object, path: str) -> Any:
    value: Any = body
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return value


def _merged(target: Object, patch: Object) -> Object:
    for field, value in patch.items():
        if value is None:
            target.pop(field, None)
        elif isinstance(value, dict) and isinstance(target.get(field), dict):
            _merged(target[field], value)
        else:
            target[field] = value
    return target


def _allowed(before: Object, after: Object, subresource: str | None) -> Object:
    """Of a write, what this endpoint lets through; the rest is ignored silently, as the real server does."""
    fixed = ("uid", "generation", "creationTimestamp", "deletionTimestamp", "resourceVersion")
    if after["metadata"].get("uid", before["metadata"]["uid"]) != before["metadata"]["uid"]:
        raise NotNow("Conflict", "the UID in the precondition does not match")
    if subresource == "status":
        kept = copy.deepcopy(before)
        kept["status"] = copy.deepcopy(after.get("status", {}))
        return kept
    result = copy.deepcopy(after)
    if "generation" not in before["metadata"]:
        raise Refused("Invalid", "not an object of this server")
    for field in fixed:
        if field in before["metadata"]:
            result["metadata"][field] = before["metadata"][field]
        else:
            result["metadata"].pop(field, None)
    if not result["metadata"].get("finalizers", True):
        del result["metadata"]["finalizers"]
    if "status" in before and before.get("kind") == KIND:
        result["status"] = copy.deepcopy(before["status"])
    return result


def _owned_types(owned: Object) -> set[str]:
    return {condition["type"] for condition in owned.get("conditions", ())}


def _without(status: Object, owned: Object) -> None:
    status["conditions"] = [one for one in status.get("conditions", ()) if one["type"] not in _owned_types(owned)]


def _conditions(status: Object, owned: Object, new: list[Object]) -> list[Object]:
    gone = _owned_types(owned) | {condition["type"] for condition in new}
    return [*new, *(one for one in status.get("conditions", ()) if one["type"] not in gone)]

"""The rights that the manifests grant, as values that requests can be compared with."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml

from sandbox.audit import Request

Manifest = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One verb on one resource (``virtualguests/status``); ``namespace`` is empty for everywhere."""

    group: str
    resource: str
    verb: str
    namespace: str

    def covers(self, request: Request) -> bool:
        """Whether this right alone allows the request."""
        return request.right == (self.group, self.resource, self.verb) and self.namespace in ("", request.namespace)

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group}{where}"


def read_manifests(*files: Path) -> tuple[Manifest, ...]:
    """Every object of these files."""
    return tuple(each for file in files for each in yaml.safe_load_all(file.read_text()))


def rights_of(account: str, manifests: Iterable[Manifest]) -> frozenset[Right]:
    """What the bindings among these manifests grant to a service account."""
    objects = tuple(manifests)
    rules = {
        (str(each["kind"]), _namespace(each), str(_meta(each)["name"])): cast(
            "list[dict[str, list[str]]]", each["rules"]
        )
        for each in objects
        if each["kind"] in ("ClusterRole", "Role")
    }
    found: set[Right] = set()
    for binding in objects:
        if binding["kind"] not in ("ClusterRoleBinding", "RoleBinding") or account not in _subjects(binding):
            continue
        role = cast("dict[str, str]", binding["roleRef"])
        scope = _namespace(binding)
        found |= set(_granted(rules[role["kind"], scope if role["kind"] == "Role" else "", role["name"]], scope))
    return frozenset(found)


def _granted(rules: list[dict[str, list[str]]], namespace: str) -> Iterator[Right]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield Right(group=group, resource=resource, verb=verb, namespace=namespace)


def _subjects(binding: Manifest) -> frozenset[str]:
    return frozenset(subject["name"] for subject in cast("list[dict[str, str]]", binding["subjects"]))


def _namespace(manifest: Manifest) -> str:
    return str(_meta(manifest).get("namespace", ""))


def _meta(manifest: Manifest) -> Mapping[str, object]:
    return cast("Mapping[str, object]", manifest["metadata"])

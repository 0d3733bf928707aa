"""Kubeconfig files: for the control plane's own users, and for service accounts by token.

It must never write one that skips the verification of TLS, nor one that others can read.
"""

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import yaml

from sandbox.certificates import KeyPair, write_private
from sandbox.errors import SandboxError

TOKEN_LIFE_S = 365 * 24 * 3600


def certificate_kubeconfig(out: Path, *, server: str, authority: Path, user: KeyPair, name: str = "sandbox") -> None:
    """Write a kubeconfig for a user known by certificate; everything is embedded, so the file may be moved."""
    cluster = {"server": server, "certificate-authority-data": _embedded(authority)}
    credentials = {
        "client-certificate-data": _embedded(user.certificate),
        "client-key-data": _embedded(user.key),
    }
    _write(out, name=name, cluster=cluster, credentials=credentials, namespace=None)


def service_account_kubeconfig(
    admin_kubeconfig: Path, namespace: str, name: str, *, out: Path, node: str | None = None, server: str | None = None
) -> None:
    """Write a kubeconfig (mode 0600) with a token of that service account, valid for a year.

    Args:
        admin_kubeconfig: whose rights make the token, and whose cluster the new file names.
        namespace: of the service account.
        name: of the service account.
        out: the file to write.
        node: bind the token to this Node object: it ends with the object, and says its name to admission policies.
        server: another URL for the same cluster (a proxy in front of it).

    Raises: SandboxError when the cluster makes no such token, with its message.
    """
    token = service_account_token(admin_kubeconfig, namespace, name, node=node)
    cluster = _cluster_of(admin_kubeconfig)
    if server is not None:
        cluster["server"] = server
    _write(out, name=name, cluster=cluster, credentials={"token": token}, namespace=namespace)


def service_account_token(admin_kubeconfig: Path, namespace: str, name: str, *, node: str | None = None) -> str:
    """Ask the cluster for a token of that service account (TokenRequest), valid for a year.

    Raises: SandboxError when the cluster makes no such token, with its message.
    """
    # Imported here: it takes most of a second, and the control plane itself needs only the files above.
    from kubernetes import client, config

    bound = client.V1BoundObjectReference(api_version="v1", kind="Node", name=node) if node is not None else None
    spec = client.V1TokenRequestSpec(audiences=[], expiration_seconds=TOKEN_LIFE_S, bound_object_ref=bound)
    body = client.AuthenticationV1TokenRequest(spec=spec)
    new_client = cast(Callable[..., client.ApiClient], config.new_client_from_config)
    with new_client(config_file=str(admin_kubeconfig)) as connection:
        core = client.CoreV1Api(connection)
        try:
            answer = core.create_namespaced_service_account_token(name, namespace, body, _request_timeout=30)
        except client.ApiException as error:
            raise SandboxError(f"no token for service account {namespace}/{name}: {error.body}") from error
    if answer.status is None:
        raise SandboxError(f"no token for service account {namespace}/{name}: the answer has no status")
    return str(answer.status.token)


def server_of(kubeconfig: Path) -> str:
    """Give the URL of the API server that the current context of this kubeconfig names."""
    return str(_cluster_of(kubeconfig)["server"])


def _cluster_of(kubeconfig: Path) -> dict[str, object]:
    content = _mapping(yaml.safe_load(kubeconfig.read_text()), kubeconfig)
    context = _named(content, "contexts", str(content.get("current-context")), kubeconfig)["context"]
    cluster_name = str(_mapping(context, kubeconfig).get("cluster"))
    cluster = dict(_mapping(_named(content, "clusters", cluster_name, kubeconfig)["cluster"], kubeconfig))
    # A path is relative to the kubeconfig that names it: embedded, the new file may lie anywhere.
    authority = cluster.pop("certificate-authority", None)
    if isinstance(authority, str):
        cluster["certificate-authority-data"] = _embedded(kubeconfig.parent / authority)
    return cluster


def _named(content: Mapping[str, object], kind: str, name: str, kubeconfig: Path) -> Mapping[str, object]:
    entries = content.get(kind)
    for entry in entries if isinstance(entries, list) else ():
        if _mapping(entry, kubeconfig).get("name") == name:
            return _mapping(entry, kubeconfig)
    raise SandboxError(f"{kubeconfig}: no {name!r} among its {kind}")


def _mapping(value: object, kubeconfig: Path) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise SandboxError(f"{kubeconfig} is no kubeconfig")
    return cast(dict[str, object], value)


def _embedded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _write(
    out: Path,
    *,
    name: str,
    cluster: Mapping[str, object],
    credentials: Mapping[str, str],
    namespace: str | None,
) -> None:
    context = {"cluster": "sandbox", "user": name} | ({"namespace": namespace} if namespace else {})
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox",
        "clusters": [{"name": "sandbox", "cluster": dict(cluster)}],
        "users": [{"name": name, "user": dict(credentials)}],
        "contexts": [{"name": "sandbox", "context": context}],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_private(out, yaml.safe_dump(content, sort_keys=False).encode())

"""Where the API server is and who we are: from a kubeconfig, or from the Pod's service account.

It must never run another program for a token (exec plugins belong to people's kubeconfigs; an agent has a service
account's), and never print a credential.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from guestlet.errors import Refused

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_UNSUPPORTED = ("exec", "auth-provider")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """One user of one API server. ``*_pem`` are PEM texts; ``token_file`` is read anew for its current content."""

    server: str
    ca_pem: str | None = None
    verify: bool = True
    token: str | None = None
    token_file: Path | None = None
    certificate_pem: str | None = None
    key_pem: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(server={self.server!r})"

    def bearer_token(self) -> str | None:
        """The token to send now.

        Raises:
            OSError: the token file cannot be read.
        """
        if self.token_file is not None:
            return self.token_file.read_text().strip()
        return self.token

    def ssl_context(self) -> ssl.SSLContext | None:
        """How to verify the server and show our certificate; ``None`` for plain HTTP (tests on loopback)."""
        if not self.server.startswith("https://"):
            return None
        context = ssl.create_default_context(cadata=self.ca_pem)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_pem and self.key_pem:
            # The ssl module loads certificates from files only; this one lives for a moment, mode 0600.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(f"{self.certificate_pem}\n{self.key_pem}\n")
                file.flush()
                context.load_cert_chain(file.name)
        return context


def load_credentials(kubeconfig: Path | None) -> Credentials:
    """The credentials of a kubeconfig's current context, or the Pod's when no file is named.

    Raises:
        Refused: CredentialsMissing, CredentialsUnsupported; the message names the file and the entry.
    """
    return _of_pod() if kubeconfig is None else _of_kubeconfig(kubeconfig)


def _of_pod() -> Credentials:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token_file, ca_file = _SERVICE_ACCOUNT / "token", _SERVICE_ACCOUNT / "ca.crt"
    if not host or not token_file.exists():
        raise Refused(
            "CredentialsMissing", "no kubeconfig is set and this is no Pod with a service account: set kubeconfig"
        )
    address = f"[{host}]" if ":" in host else host
    return Credentials(
        server=f"https://{address}:{port}",
        ca_pem=ca_file.read_text() if ca_file.exists() else None,
        token_file=token_file,
    )


def _of_kubeconfig(file: Path) -> Credentials:
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise Refused("CredentialsMissing", f"kubeconfig {file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise Refused("CredentialsMissing", f"{file} is not a kubeconfig")
    context = _entry(file, content, "contexts", content.get("current-context"))
    cluster = _entry(file, content, "clusters", context.get("cluster"))
    user = _entry(file, content, "users", context.get("user"))
    unsupported = [key for key in _UNSUPPORTED if key in user]
    if unsupported or cluster.get("proxy-url"):
        raise Refused(
            "CredentialsUnsupported",
            f"{file}: {', '.join(unsupported) or 'proxy-url'} is not supported: use a token, a tokenFile or a client "
            "certificate (kubectl create token makes one)",
        )
    return Credentials(
        server=str(cluster.get("server", "")).rstrip("/"),
        ca_pem=_pem(file, cluster, "certificate-authority"),
        verify=not cluster.get("insecure-skip-tls-verify", False),
        token=user.get("token"),
        token_file=file.parent / user["tokenFile"] if user.get("tokenFile") else None,
        certificate_pem=_pem(file, user, "client-certificate"),
        key_pem=_pem(file, user, "client-key"),
    )


def _entry(file: Path, content: Mapping[str, Any], kind: str, name: object) -> Mapping[str, Any]:
    for entry in content.get(kind) or ():
        if isinstance(entry, dict) and entry.get("name") == name:
            value = entry.get(kind.removesuffix("s"))
            return value if isinstance(value, dict) else {}
    raise Refused("CredentialsMissing", f"{file}: no {name!r} among its {kind}")


def _pem(file: Path, entry: Mapping[str, Any], key: str) -> str | None:
    try:
        if data := entry.get(f"{key}-data"):
            return base64.b64decode(str(data), validate=True).decode()
        if path := entry.get(key):
            return (file.parent / str(path)).read_text()
    except (binascii.Error, UnicodeDecodeError, OSError) as error:
        raise Refused("CredentialsMissing", f"{file}: {key} cannot be read: {error}") from error
    return None

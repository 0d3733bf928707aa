"""Kubeconfigs that are written verify TLS, may be moved, and are the owner's alone."""

import base64
import stat
from pathlib import Path

import pytest
import yaml

from sandbox.certificates import KeyPair
from sandbox.errors import SandboxError
from sandbox.kubeconfigs import certificate_kubeconfig, server_of


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    for name in ("ca.crt", "me.crt", "me.key"):
        (tmp_path / name).write_text(name)
    out = tmp_path / "out" / "kubeconfig"
    user = KeyPair(certificate=tmp_path / "me.crt", key=tmp_path / "me.key")
    certificate_kubeconfig(out, server="https://127.0.0.1:1", authority=tmp_path / "ca.crt", user=user)
    return out


def test_everything_is_embedded(kubeconfig: Path) -> None:
    content = yaml.safe_load(kubeconfig.read_text())
    cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
    assert base64.b64decode(cluster["certificate-authority-data"]) == b"ca.crt"
    assert base64.b64decode(user["client-key-data"]) == b"me.key"
    assert "insecure-skip-tls-verify" not in cluster


def test_only_the_owner_reads_it(kubeconfig: Path) -> None:
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600


def test_its_server_is_read_from_the_current_context(kubeconfig: Path) -> None:
    assert server_of(kubeconfig) == "https://127.0.0.1:1"


@pytest.mark.parametrize("content", ["[]", "text", "current-context: x", "current-context: x\ncontexts: [1]"])
def test_another_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other"
    file.write_text(content)
    with pytest.raises(SandboxError, match="other"):
        server_of(file)

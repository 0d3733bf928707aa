import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from guestlet.errors import Refused
from guestlet.kube.credentials import load_credentials


def kubeconfig(tmp_path: Path, *, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> Path:
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}, {"name": "there", "context": {}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(content))
    return file


def test_a_token_and_an_embedded_authority(tmp_path: Path) -> None:
    data = base64.b64encode(b"PEM").decode()
    found = load_credentials(kubeconfig(tmp_path, user={"token": "t"}, cluster={"certificate-authority-data": data}))
    assert (found.server, found.bearer_token(), found.ca_pem) == ("https://127.0.0.1:6443", "t", "PEM")


def test_files_are_relative_to_the_kubeconfig_and_the_token_file_is_read_each_time(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("CA")
    (tmp_path / "token").write_text("one\n")
    found = load_credentials(
        kubeconfig(tmp_path, user={"tokenFile": "token"}, cluster={"certificate-authority": "ca.crt"})
    )
    assert (found.bearer_token(), found.ca_pem) == ("one", "CA")
    (tmp_path / "token").write_text("two\n")
    assert found.bearer_token() == "two"


def test_a_client_certificate(tmp_path: Path) -> None:
    data = {key: base64.b64encode(key.encode()).decode() for key in ("client-certificate", "client-key")}
    found = load_credentials(kubeconfig(tmp_path, user={f"{key}-data": value for key, value in data.items()}))
    assert (found.certificate_pem, found.key_pem, found.bearer_token()) == ("client-certificate", "client-key", None)


@pytest.mark.parametrize("user", [{"exec": {"command": "aws"}}, {"auth-provider": {"name": "oidc"}}])
def test_a_program_for_a_token_is_refused_with_the_remedy(tmp_path: Path, user: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="use a token"):
        load_credentials(kubeconfig(tmp_path, user=user))


def test_a_missing_file_and_a_missing_entry_are_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="nowhere"):
        load_credentials(tmp_path / "nowhere")
    file = kubeconfig(tmp_path, user={})
    file.write_text(file.read_text().replace("name: u\n", "name: x\n"))
    with pytest.raises(Refused, match="no 'u' among its users"):
        load_credentials(file)
    file.write_text("just text")
    with pytest.raises(Refused, match="not a kubeconfig"):
        load_credentials(file)


def test_outside_a_pod_a_kubeconfig_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Refused, match="set kubeconfig"):
        load_credentials(None)


def test_credentials_are_never_printed(tmp_path: Path) -> None:
    assert "hidden" not in repr(load_credentials(kubeconfig(tmp_path, user={"token": "hidden"})))

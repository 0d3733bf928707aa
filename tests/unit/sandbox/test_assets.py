"""Where the control plane's programs come from, and that a build is whole or absent. A script stands in for Go."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sandbox.assets import MODULE, PROGRAMS, Assets, build_key, build_ldflags, cache_directory, find_or_build
from sandbox.errors import SandboxError

FAKE_GO = """\
#!/bin/sh
case $1 in
env) echo go1.26.8 ;;
list) echo true ;;
build)
    while [ "$1" != -o ]; do shift; done
    echo built >>"$FAKE/builds"
    # Whoever made the pipe wants to see a build under way, and ends it by writing.
    if [ -p "$FAKE/gate" ]; then touch "$2/etcd.half"; read -r _ <"$FAKE/gate"; rm "$2/etcd.half"; fi
    if [ -e "$FAKE/broken" ]; then echo "kubectl.go:1: undefined: life" >&2; exit 1; fi
    for name in server kube-apiserver kube-controller-manager kube-scheduler kubectl; do
        echo program >"$2/$name"; chmod +x "$2/$name"
    done ;;
esac
"""
BUILDER = """\
from sandbox.assets import find_or_build
print(find_or_build(say=lambda line: print(line, flush=True)).directory, flush=True)
"""


class Workplace:
    """A cache, a PATH on which the only Go is the fake one, and what that one counted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        go = root / "bin" / "go"
        go.write_text(FAKE_GO)
        go.chmod(0o755)
        self.environment: Mapping[str, str] = {
            "PATH": f"{root / 'bin'}:/usr/bin:/bin",
            "HOME": str(root),
            "XDG_CACHE_HOME": str(root / "cache"),
            "FAKE": str(root),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    @property
    def builds(self) -> int:
        counted = self.root / "builds"
        return len(counted.read_text().splitlines()) if counted.exists() else 0

    @property
    def finished(self) -> list[str]:
        entries = self.root / "cache" / "guestlet" / "control-plane"
        return sorted(entry.name for entry in entries.iterdir() if entry.is_dir()) if entries.exists() else []

    def find_or_build(self, **variables: str) -> Assets:
        return find_or_build(environment={**self.environment, **variables}, say=lambda _: None)

    def hold_builds(self) -> Path:
        gate = self.root / "gate"
        os.mkfifo(gate)
        return gate

    def builder(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", BUILDER]
        return subprocess.Popen(command, env=dict(self.environment), stdout=subprocess.PIPE, text=True)


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def test_a_build_puts_every_program_into_the_cache(workplace: Workplace) -> None:
    assets = workplace.find_or_build()
    assert assets.directory.parent == workplace.root / "cache" / "guestlet" / "control-plane"
    assert sorted(path.name for path in assets.directory.iterdir()) == sorted(PROGRAMS)


def test_a_second_call_builds_nothing(workplace: Workplace) -> None:
    assert workplace.find_or_build() == workplace.find_or_build()
    assert workplace.builds == 1


def test_given_programs_are_used_when_they_are_all_there(workplace: Workplace, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for name in PROGRAMS:
        (given / name).touch(mode=0o755)
    assert workplace.find_or_build(KUBEBUILDER_ASSETS=str(given)).directory == given
    assert workplace.builds == 0


def test_given_programs_that_lack_one_are_named_and_not_used(workplace: Workplace, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (given / name).touch(mode=0o755)
    said: list[str] = []
    find_or_build(environment={**workplace.environment, "KUBEBUILDER_ASSETS": str(given)}, say=said.append)
    assert said[0].endswith("lacks kube-controller-manager, kube-scheduler: not used")
    assert workplace.builds == 1


def test_a_failed_build_says_why_and_leaves_nothing(workplace: Workplace) -> None:
    (workplace.root / "broken").touch()
    with pytest.raises(SandboxError, match="undefined: life"):
        workplace.find_or_build()
    assert workplace.finished == []


def test_an_interrupted_build_leaves_nothing_and_ends_its_compiler(workplace: Workplace) -> None:
    def interrupt(line: str) -> None:
        if "packages to compile" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_or_build(environment=workplace.environment, say=interrupt)
    assert workplace.finished == []
    assert workplace.find_or_build().etcd.exists()


@pytest.mark.slow
def test_after_a_killed_builder_the_next_waits_for_its_compiler_and_builds_anew(workplace: Workplace) -> None:
    gate = workplace.hold_builds()
    killed = workplace.builder()
    assert killed.stdout is not None
    with killed.stdout, gate.open("w") as release:
        # Opening the pipe for writing returns once the compiler reads from it: the build is under way.
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert workplace.finished[0].endswith(".partial")
        successor = workplace.builder()
        assert successor.stdout is not None
        with successor.stdout as lines:
            assert "another build" in lines.readline()
            gate.unlink()
            release.write("go on\n")
            release.flush()
            directory = Path(lines.read().splitlines()[-1])
        assert successor.wait() == 0
    assert workplace.finished == [directory.name]
    assert sorted(path.name for path in directory.iterdir()) == sorted(PROGRAMS)
    assert workplace.builds == 2


@pytest.mark.slow
def test_two_builders_at_once_build_once(workplace: Workplace) -> None:
    gate = workplace.hold_builds()
    first = workplace.builder()
    assert first.stdout is not None
    with first.stdout as first_lines, gate.open("w") as release:
        second = workplace.builder()
        assert second.stdout is not None
        with second.stdout as second_lines:
            assert "another build" in second_lines.readline()
            release.write("go on\n")
            release.flush()
            assert first_lines.read().splitlines()[-1] == second_lines.read().splitlines()[-1]
    assert (first.wait(), second.wait()) == (0, 0)
    assert workplace.builds == 1


def test_the_key_changes_with_modules_and_flags(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("a")
    (tmp_path / "go.sum").write_text("b")
    first = build_key(tmp_path, "-s")
    assert build_key(tmp_path, "-s -w") != first
    (tmp_path / "go.sum").write_text("c")
    assert build_key(tmp_path, "-s") != first


def test_the_linked_version_is_the_one_of_go_mod() -> None:
    flags = build_ldflags(MODULE)
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in flags
    assert "-X k8s.io/component-base/version.gitMinor=36" in flags


def test_a_go_mod_without_kubernetes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module x\n")
    with pytest.raises(SandboxError, match="requires no k8s"):
        build_ldflags(tmp_path)


def test_every_staging_module_is_replaced_with_the_release_of_kubernetes() -> None:
    replaced = [line.split()[-1] for line in (MODULE / "go.mod").read_text().splitlines() if " => " in line]
    assert len(replaced) == 33
    assert set(replaced) == {"v0.36.3"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/guestlet"),
        ({"HOME": "/h"}, "/h/.cache/guestlet"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/guestlet"),
    ],
)
def test_the_cache_lies_where_the_xdg_specification_says(environment: dict[str, str], expected: str) -> None:
    assert cache_directory(environment) == Path(expected)

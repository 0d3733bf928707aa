"""The folder of a sandbox: what lies where when its path is long or closed to others."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.root import Root, reachable_by_others

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's guests run as a user of their own")


@pytest.fixture
def open_folder(short_folder: Path) -> Path:
    folder = short_folder / "root"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def make(open_folder: Path) -> Iterator[list[Root]]:
    made: list[Root] = []
    yield made
    for root in made:
        root.purge()


def test_an_ordinary_root_holds_its_nodes_and_sockets(open_folder: Path, make: list[Root]) -> None:
    root = Root(path=open_folder / "r")
    make.append(root)
    root.prepare()

    assert root.prepare_runtime("node-a") == root.nodes / "node-a" / "run"
    assert not root.nodes.is_symlink()


def test_a_long_root_keeps_only_its_sockets_elsewhere(open_folder: Path, make: list[Root]) -> None:
    root = Root(path=open_folder / "a-rather-long-name-of-a-folder-for-a-sandbox")
    make.append(root)
    root.prepare()
    runtime = root.prepare_runtime("node-a")

    assert len(os.fsencode(runtime)) <= 50
    assert (root.nodes / "node-a" / "run").resolve() == runtime == root.runtime("node-a")
    assert runtime.parent.stat().st_mode & 0o777 == 0o711
    assert not root.nodes.is_symlink()
    assert root.prepare_runtime("node-a") == runtime, "a second call finds it again"


@needs_root
def test_a_root_that_is_closed_to_others_keeps_its_nodes_where_qemu_can_reach_them(
    open_folder: Path, make: list[Root]
) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    root = Root(path=closed / "r")
    make.append(root)
    root.prepare()

    assert not reachable_by_others(root.path)
    assert reachable_by_others(root.nodes.resolve())


def test_purge_removes_what_lies_elsewhere_too(open_folder: Path) -> None:
    root = Root(path=open_folder / "another-rather-long-name-of-a-folder-for-a-sandbox")
    root.prepare()
    runtime = root.prepare_runtime("node-a")
    root.purge()

    assert not runtime.exists()
    assert not runtime.parent.exists()
    assert not root.path.exists()


def test_a_folder_that_somebody_else_put_in_its_place_is_not_touched(open_folder: Path, make: list[Root]) -> None:
    root = Root(path=open_folder / "one-more-rather-long-name-of-a-folder-for-a-sandbox")
    make.append(root)
    root.prepare()
    (root.run / "elsewhere").write_text("/usr\n")

    assert root.prepare_runtime("node-a").is_relative_to("/var/tmp")
    root.purge()
    assert Path("/usr/bin").is_dir()

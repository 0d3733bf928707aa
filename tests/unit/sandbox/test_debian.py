"""Folders of the cache are there as a whole or not at all, whoever makes them."""

import threading
from pathlib import Path

import pytest

from sandbox.debian import cache_entry


def test_what_was_filled_becomes_the_entry(tmp_path: Path) -> None:
    with cache_entry(tmp_path / "entry") as partial:
        assert partial is not None
        (partial / "file").write_text("whole")
        assert not (tmp_path / "entry").exists()
    assert (tmp_path / "entry" / "file").read_text() == "whole"


def test_an_entry_that_is_there_is_not_filled_again(tmp_path: Path) -> None:
    (tmp_path / "entry").mkdir()
    with cache_entry(tmp_path / "entry") as partial:
        assert partial is None


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with cache_entry(tmp_path / "entry") as partial:
            assert partial is not None
            (partial / "file").write_text("half")
            raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        fill()
    assert [path.name for path in tmp_path.iterdir()] == ["entry.lock"]


def test_what_a_killed_process_left_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "entry.partial").mkdir()
    (tmp_path / "entry.partial" / "half").touch()
    with cache_entry(tmp_path / "entry") as partial:
        assert partial is not None
        assert list(partial.iterdir()) == []


def test_a_second_one_waits_for_the_first(tmp_path: Path) -> None:
    waits = threading.Event()
    outcome: list[Path | None] = []

    def second() -> None:
        with cache_entry(tmp_path / "entry", lambda _: waits.set()) as partial:
            outcome.append(partial)

    with cache_entry(tmp_path / "entry"):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(5)
        assert outcome == []
    thread.join(5)
    assert outcome == [None]

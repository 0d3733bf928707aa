import os
from pathlib import Path

import pytest

from guestlet.errors import Refused
from guestlet.host.files import DirectoryLock, read_if_there, tail_text, trim_by_copy, write_atomically


def test_a_written_file_has_its_content_and_is_private(tmp_path: Path) -> None:
    write_atomically(tmp_path / "record.json", b"content")

    assert (tmp_path / "record.json").read_bytes() == b"content"
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "record.json", b"old")
    (tmp_path / ".record.json.new").mkdir()

    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "record.json", b"new")

    assert (tmp_path / "record.json").read_bytes() == b"old"


def test_a_write_left_half_done_by_a_dead_agent_does_not_stop_the_next(tmp_path: Path) -> None:
    (tmp_path / ".record.json.new").write_bytes(b"half a rec")

    write_atomically(tmp_path / "record.json", b"whole")

    assert (tmp_path / "record.json").read_bytes() == b"whole"


def test_a_write_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / ".record.json.new").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic link"):
        write_atomically(tmp_path / "record.json", b"new")

    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    assert read_if_there(tmp_path / "nothing") is None


def test_a_tail_is_the_bounded_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"first\nsecond\nlast \xff\n")

    assert tail_text(tmp_path / "log", limit_bytes=14) == "second\nlast \ufffd"
    assert tail_text(tmp_path / "nothing", limit_bytes=14) == ""


def test_a_long_log_is_cut_and_its_writer_goes_on(tmp_path: Path) -> None:
    writer = os.open(tmp_path / "serial.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(writer, b"a" * 300_000)

    assert trim_by_copy(tmp_path / "serial.log", limit_bytes=200_000)

    os.write(writer, b"after")
    os.close(writer)
    assert (tmp_path / "serial.log").read_bytes() == b"after"
    assert (tmp_path / "serial.log.1").stat().st_size == 200_000


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "serial.log").write_bytes(b"short")

    assert not trim_by_copy(tmp_path / "serial.log", limit_bytes=5)
    assert not trim_by_copy(tmp_path / "nothing", limit_bytes=5)
    assert not (tmp_path / "serial.log.1").exists()


def test_the_second_holder_is_told_who_the_first_is_and_may_come_after_it(tmp_path: Path) -> None:
    first = DirectoryLock(tmp_path / "agent.lock", holder="agent node-a (pid 4711)")
    first.acquire()
    second = DirectoryLock(tmp_path / "agent.lock", holder="agent node-b (pid 1)")

    with pytest.raises(Refused, match=r"belongs to agent node-a \(pid 4711\); stop that agent"):
        second.acquire()

    first.release()
    first.release()
    second.acquire()
    assert (tmp_path / "agent.lock").read_text() == "agent node-b (pid 1)"
    second.release()

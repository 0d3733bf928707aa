"""Asking a program that calls itself QEMU: it answers, or ends, or says nothing, or talks nonsense."""

import os
from pathlib import Path

import pytest

from guestlet.errors import Broken
from guestlet.host.capabilities import ask_qemu, read_capabilities
from guestlet.host.trial import QemuProgram
from guestlet.qemu.capabilities import load_capabilities


def program(folder: Path, script: str) -> QemuProgram:
    binary = folder / "qemu"
    binary.write_text(f"#!/bin/sh\necho $$ >{folder}/pid\n{script}\n")
    binary.chmod(0o755)
    return QemuProgram(binary=binary)


def assert_gone(folder: Path) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)


async def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(Broken, match=r"QemuMissing.*no QEMU at .*/nowhere"):
        await read_capabilities(QemuProgram(binary=tmp_path / "nowhere"), cache_dir=tmp_path)


async def test_a_program_that_ends_leaves_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(Broken, match=r"QemuExited.*libfoo.so: no such file"):
        await ask_qemu(program(tmp_path, "echo libfoo.so: no such file >&2; exit 1"))


async def test_a_program_that_ends_in_the_middle_has_ended(tmp_path: Path) -> None:
    with pytest.raises(Broken, match=r"QemuExited.*Assertion failed"):
        await ask_qemu(
            program(tmp_path, """echo '{"QMP": {}}'; read -r _; echo '{"return": {}}'; echo Assertion failed >&2""")
        )


async def test_a_silent_program_is_given_up_and_ended(tmp_path: Path) -> None:
    with pytest.raises(Broken, match=r"QemuSilent.*in 0.2 s"):
        await ask_qemu(program(tmp_path, "exec sleep 60"), timeout_s=0.2)
    assert_gone(tmp_path)


@pytest.mark.parametrize("line", ["hello", "[1]", "7"])
async def test_a_program_that_does_not_speak_qmp_is_refused_and_ended(tmp_path: Path, line: str) -> None:
    with pytest.raises(Broken, match=r"QmpRefused.*no QMP"):
        await ask_qemu(program(tmp_path, f"echo '{line}'; exec sleep 60"))
    assert_gone(tmp_path)


async def test_a_refused_command_is_named(tmp_path: Path) -> None:
    script = """echo '{"QMP": {}}'; read -r _; echo '{"error": {"class": "CommandNotFound"}}'; exec sleep 60"""
    with pytest.raises(Broken, match=r"refused qmp_capabilities.*CommandNotFound"):
        await ask_qemu(program(tmp_path, script))
    assert_gone(tmp_path)


async def test_events_between_the_answers_do_not_matter(tmp_path: Path) -> None:
    script = """echo '{"QMP": {}}'
while read -r _; do echo '{"event": "NOISE"}'; echo '{"return": []}'; done"""
    replies = await ask_qemu(program(tmp_path, script))
    assert set(map(str, replies.values())) == {"[]"}


async def test_much_noise_on_the_standard_error_does_not_stop_the_talk(tmp_path: Path) -> None:
    script = """head -c 300000 /dev/zero >&2; echo '{"QMP": {}}'
while read -r _; do echo '{"return": []}'; done"""
    assert await ask_qemu(program(tmp_path, script))


async def test_a_program_is_asked_once_as_long_as_it_stays_the_same(tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    answers.write_text(_ANSWERS)
    asked = program(tmp_path, f"echo asked >>{tmp_path}/times; cat {answers}; exec sleep 60")
    first = await read_capabilities(asked, cache_dir=tmp_path / "cache")
    assert await read_capabilities(asked, cache_dir=tmp_path / "cache") == first
    assert (tmp_path / "times").read_text() == "asked\n"
    os.utime(asked.binary, ns=(1, 1))
    assert await read_capabilities(asked, cache_dir=tmp_path / "cache") == first
    assert (tmp_path / "times").read_text() == "asked\nasked\n"


async def test_a_damaged_cache_is_asked_again_and_repaired(tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    answers.write_text(_ANSWERS)
    asked = program(tmp_path, f"cat {answers}; exec sleep 60")
    first = await read_capabilities(asked, cache_dir=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(b"\xff{half")
    assert await read_capabilities(asked, cache_dir=tmp_path / "cache") == first
    assert load_capabilities(kept.read_text()) == first


_ANSWERS = """{"QMP": {}}
{"return": {}}
{"return": {"qemu": {"major": 7, "minor": 2, "micro": 22}}}
{"return": [{"name": "pc-q35-7.2", "alias": "q35"}]}
{"return": [{"name": "max"}]}
{"return": []}
{"return": []}
{"return": []}
{"return": []}
{"return": []}
"""

import asyncio
import os
import time
from pathlib import Path

import pytest

from guestlet.errors import Refused
from guestlet.host.facts import ScriptRun
from guestlet.host.process import identity_of, open_pidfd, wait_readable
from guestlet.host.scripts import Scripts


def add(directory: Path, name: str, text: str, *, mode: int = 0o755) -> None:
    (directory / name).write_text(text)
    (directory / name).chmod(mode)


def run(script: str, **environment: str) -> ScriptRun:
    return ScriptRun(script=script, environment=tuple(environment.items()))


async def test_a_script_sees_exactly_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    add(tmp_path, "up", "#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/environ\n")

    outcome = await Scripts(tmp_path, timeout_s=5).run(run("up", GUESTLET_TAP="tap0"))

    names = {line.partition("=")[0] for line in outcome.output.splitlines()}
    assert outcome.code == 0
    assert names == {"PATH", "GUESTLET_TAP"}


async def test_a_script_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    add(tmp_path, "up", f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/child\necho started\nwait\n")
    before = time.monotonic()

    outcome = await Scripts(tmp_path, timeout_s=0.2).run(run("up"))

    assert (outcome.code, outcome.output) == (None, "started")
    assert time.monotonic() - before < 5
    child = identity_of(int((tmp_path / "child").read_text()))
    pidfd = open_pidfd(child) if child is not None else None
    if pidfd is not None:  # killed, and about to be gone
        await asyncio.wait_for(wait_readable(pidfd), 5)
        os.close(pidfd)


async def test_only_the_end_of_a_long_output_is_kept(tmp_path: Path) -> None:
    add(tmp_path, "up", "#!/bin/sh\nyes | head -c 100000\necho end\n")

    outcome = await Scripts(tmp_path, timeout_s=5).run(run("up"))

    assert len(outcome.output) <= 4096
    assert outcome.output.endswith("end")


async def test_a_script_without_an_interpreter_is_refused(tmp_path: Path) -> None:
    add(tmp_path, "up", "#!/nowhere\n")

    with pytest.raises(Refused, match="ScriptFailed"):
        await Scripts(tmp_path, timeout_s=5).run(run("up"))


def test_only_executables_right_in_the_directory_are_scripts(tmp_path: Path) -> None:
    scripts = Scripts(tmp_path / "scripts", timeout_s=5)
    (tmp_path / "scripts").mkdir()
    add(tmp_path, "outside", "")
    add(tmp_path / "scripts", "good", "")
    add(tmp_path / "scripts", "plain", "", mode=0o644)
    os.symlink(tmp_path / "outside", tmp_path / "scripts" / "link")
    (tmp_path / "scripts" / "folder").mkdir()

    names = ["good", "plain", "link", "folder", "nothing", "../outside", str(tmp_path / "outside"), "", "a\0b"]
    assert [name for name in names if scripts.exists(name)] == ["good"]


def test_a_node_without_a_directory_has_no_scripts() -> None:
    assert not Scripts(None, timeout_s=5).exists("up")

"""QEMU runs with nothing that it does not need: no rights, no descriptors, no environment of the agent's."""

import os
import stat
from pathlib import Path

import pytest

from e2e.life.witness import TINY, disk
from e2e.stage import Guest, Stage
from guestlet.settings import load_agent_settings

ROOT = os.geteuid() == 0


@pytest.fixture
def guest(stage: Stage) -> Guest:
    guest = stage.guest(spec={**TINY, "disks": [disk("root", "private.qcow2")]}, boot=False)
    guest.wait()
    return guest


def process_of(guest: Guest) -> Path:
    return Path(f"/proc/{guest.pid()}")


def test_qemu_has_no_rights(guest: Guest) -> None:
    lines = (process_of(guest) / "status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    settings = load_agent_settings(guest.node.config)
    uid, gid = (str(settings.qemu_uid), str(settings.qemu_gid)) if ROOT else (str(os.getuid()), str(os.getgid()))

    assert status["Uid"] == [uid] * 4
    assert status["Gid"] == [gid] * 4
    assert {int(status[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == ["1"]
    assert status["Seccomp"] == ["2"] if guest.field(".status.qemu.sandbox") == "true" else ["0"]
    if ROOT:
        assert status["Groups"] == []
        assert int(status["CapBnd"][0], 16) == 0


def test_qemu_inherits_nothing(guest: Guest) -> None:
    process = process_of(guest)
    pid = guest.pid()
    assert pid is not None

    environment = dict(word.split("=", 1) for word in (process / "environ").read_bytes().decode().split("\0") if word)
    assert environment.keys() <= {"PATH", "LANG", "QEMU_MODULE_DIR"}
    assert os.getsid(pid) == pid
    assert (process / "cwd").readlink() == Path("/")
    held = {entry.name: os.readlink(entry) for entry in (process / "fd").iterdir()}
    assert held["0"] == "/dev/null"
    files = {target for target in held.values() if target.startswith("/") and not target.startswith("/dev/")}
    assert all(str(guest.node.folder) in target for target in files), files


def test_what_it_was_given_is_nobody_elses(guest: Guest) -> None:
    settings = load_agent_settings(guest.node.config)
    runtime = guest.node.runtime / guest.field(".status.uuid")
    uid = settings.qemu_uid if ROOT else os.getuid()

    for name in ("qmp", "observer", "console"):
        socket = (runtime / name).stat()
        assert (stat.S_IMODE(socket.st_mode), socket.st_uid) == (0o600, uid)
    image = (guest.node.pool() / "private.qcow2").stat()
    assert not stat.S_IMODE(image.st_mode) & 0o007
    record = (guest.state / "record.json").stat()
    assert (stat.S_IMODE(record.st_mode), record.st_uid) == (0o600, os.geteuid())

"""What is asked of the real QEMUs of the sandbox, with the rights that guests have."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from golden_files import GOLDEN
from guestlet.errors import Refused
from guestlet.host.accelerator import KVM_DEVICE, probe_accelerator
from guestlet.host.access import QemuUser
from guestlet.host.capabilities import ask_qemu, read_capabilities
from guestlet.host.trial import QemuProgram
from guestlet.qemu.capabilities import parse_capabilities
from guestlet.qemu.machine import Accelerator
from sandbox.qemu import ensure_qemu, ensure_system_qemu, link_build
from sandbox.recorded import trim

# Only root can start a program as somebody else; anybody else's guests run as the agent itself.
USER = QemuUser(uid=64055, gid=64055) if os.geteuid() == 0 else None


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gq-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture(params=["system", "10"])
def program(request: pytest.FixtureRequest, open_folder: Path) -> QemuProgram:
    build = ensure_system_qemu() if request.param == "system" else link_build(ensure_qemu(10), open_folder)
    return QemuProgram(binary=build.binary, module_dir=build.module_dir, data_dirs=build.data_dirs, user=USER)


async def test_it_describes_itself_and_is_not_asked_twice(program: QemuProgram, tmp_path: Path) -> None:
    capabilities = await read_capabilities(program, cache_dir=tmp_path)
    assert {"q35", "pc"} <= capabilities.machine_types.keys()
    assert capabilities.versioned_model("Nehalem") == "Nehalem-v1"
    assert capabilities.sandbox
    silent = replace(program, data_dirs=(Path("/nonexistent"),))
    assert await read_capabilities(silent, cache_dir=tmp_path, timeout_s=0) == capabilities


async def test_the_parser_needs_no_more_than_what_is_recorded(program: QemuProgram) -> None:
    replies = await ask_qemu(program)
    assert parse_capabilities(trim(replies)) == parse_capabilities(replies)


async def test_the_recording_of_version_10_is_what_version_10_says(open_folder: Path) -> None:
    build = ensure_qemu(10)
    program = QemuProgram(binary=build.binary, module_dir=build.module_dir, data_dirs=build.data_dirs)
    recorded = json.loads((GOLDEN / "capabilities" / "10.json").read_text())
    said = trim(await ask_qemu(program))
    if said["query-version"] == recorded["query-version"]:
        assert json.loads(json.dumps(said)) == recorded
    else:
        assert parse_capabilities(said).commands >= parse_capabilities(recorded).commands


async def test_the_loop_runs_under_tcg_and_the_figures_decide(program: QemuProgram, tmp_path: Path) -> None:
    probe = await probe_accelerator(program, state_dir=tmp_path)
    assert probe.tcg_seconds is not None
    assert 0 < probe.tcg_seconds < 1
    faster = probe.kvm_seconds is not None and probe.kvm_seconds < probe.tcg_seconds
    assert probe.accelerator is (Accelerator.KVM if faster else Accelerator.TCG)
    assert f"TCG {probe.tcg_seconds:.4f} s" in probe.detail
    assert ("no KVM device" in probe.detail) is not KVM_DEVICE.exists()
    assert await probe_accelerator(program, state_dir=tmp_path) == probe


async def test_a_program_where_guests_cannot_get_is_refused(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    program = QemuProgram(binary=closed / "qemu", user=QemuUser(uid=64055, gid=64055))
    with pytest.raises(Refused, match=rf"cannot enter {closed}"):
        await ask_qemu(program)

"""The commands of the program on a live guest, and a host forward that leads into it."""

import shlex
import subprocess
import time
import urllib.request

import pytest

from e2e.life.witness import TINY
from e2e.stage import Guest, Stage
from sandbox.nodes import guestlet_argv, program_environment, run_guestlet
from sandbox.ports import free_port
from sandbox.processes import command_line


def name_of(guest: Guest) -> str:
    return f"{guest.namespace}/{guest.name}"


def commanded(guest: Guest, *arguments: str) -> str:
    return run_guestlet(*arguments, name_of(guest), "--config", str(guest.node.config))


def test_the_console_takes_lines_and_a_host_forward_leads_into_the_guest(stage: Stage) -> None:
    port = free_port()
    forward = {"hostPort": port, "guestPort": 80}
    guest = stage.guest(spec={"networks": [{"name": "lan", "user": {"hostForwards": [forward]}}]})
    guest.wait()
    guest.wait_for_console("guest# ")

    console = subprocess.Popen(
        guestlet_argv("console", name_of(guest), "--config", str(guest.node.config)),
        env=program_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with console:
        assert console.stdin is not None
        assert console.stdout is not None
        console.stdin.write("report\n")
        console.stdin.flush()
        shown: list[str] = []
        while not shown or "GUEST-REPORT-END" not in shown[-1]:
            shown.append(console.stdout.readline())
            assert shown[-1], "the console ended"
        console.stdin.write("\x1d")
    assert console.returncode == 0
    assert any(line.startswith("pci 0000:00:00.0") for line in shown)
    assert guest.pid() is not None

    deadline = time.monotonic() + 60
    page = ""
    while "GUEST-REPORT-END" not in page:
        assert time.monotonic() < deadline, "the host forward does not answer"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                page = answer.read().decode()
        except OSError:
            time.sleep(0.2)
    assert guest.field(".status.networks[0].macAddress") in page


def test_script_replays_the_launch_and_next_tells_of_the_coming_one(stage: Stage) -> None:
    guest = stage.guest(spec=TINY, boot=False)
    guest.wait()
    pid = guest.pid()
    assert pid is not None

    now = commanded(guest, "script")
    assert tuple(shlex.split(now.replace("\\\n", " "), comments=True)[-len(command_line(pid)) :]) == command_line(pid)
    subprocess.run(["sh", "-n"], input=now, text=True, check=True, timeout=10)

    guest.edit({"memory": {"size": "48Mi"}})
    guest.wait("RestartRequired")
    coming = commanded(guest, "script", "--next")
    assert "size=50331648" in coming
    assert "size=33554432" in commanded(guest, "script")


@pytest.mark.parametrize("named", [True, False], ids=["guest", "file"])
def test_plan_tells_what_would_be_done_and_does_nothing(stage: Stage, named: bool, tmp_path: object) -> None:
    guest = stage.guest(spec=TINY, boot=False)
    guest.wait()
    pid, version = guest.pid(), guest.field(".metadata.resourceVersion")
    if named:
        assert "nothing to do now" in commanded(guest, "plan")
    else:
        file = stage.sandbox.root.path / "planned.json"
        file.write_text(stage.sandbox.kubectl("get", "vg", guest.name, "-n", stage.namespace, "-o", "json"))
        told = run_guestlet("plan", str(file), "--config", str(guest.node.config))
        assert "nothing to do now" in told
        file.unlink()
    guest.edit({"runStrategy": "Halted", "paused": True})
    guest.wait_for(".status.phase", "Stopped")
    assert "Stopped (Halted)" in commanded(guest, "plan")
    assert guest.field(".metadata.resourceVersion") != version
    assert pid is not None

"""A node has one agent: the second one says whose the node is, and ends."""

import subprocess
from pathlib import Path

import pytest
import yaml

from e2e.stage import Stage
from sandbox.nodes import guestlet_argv, program_environment


def run_agent(settings: dict[str, object], folder: Path) -> subprocess.CompletedProcess[str]:
    config = folder / "second.yaml"
    config.write_text(yaml.safe_dump({**settings, "httpPort": 0}))
    return subprocess.run(
        guestlet_argv("agent", "--config", str(config)),
        env=program_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("apart", [False, True], ids=["same-directories", "other-directories"])
def test_a_second_agent_of_a_node_refuses_and_names_the_first(stage: Stage, short_folder: Path, apart: bool) -> None:
    node = stage.sandbox.node("node-a")
    settings = yaml.safe_load(node.config.read_text())
    folder = short_folder / f"second-{apart}"
    folder.mkdir()
    if apart:
        settings |= {"stateDir": str(folder / "state"), "runtimeDir": str(folder / "run")}

    second = run_agent(settings, folder)

    assert second.returncode != 0
    told = second.stdout + second.stderr
    first = f"pid {node.agent.pid}" if not apart else str(node.state)
    assert first in told
    assert "Traceback" not in told
    assert node.agent.is_ready()

"""The two programs, started: settings in, exit code out. Everything else stands in ``agent`` and ``leader``."""

import asyncio

from guestlet.reconcile.program import run_until_signal
from guestlet.settings import AgentSettings, ControllerSettings
from guestlet.telemetry.logging import configure_logging


def run_agent(settings: AgentSettings) -> int:
    """Runs the agent of a node until SIGTERM; its guests run on. The exit code: 1 when the node cannot be had."""
    from guestlet.reconcile.agent import Agent

    configure_logging(settings.log_format, settings.log_level, node=settings.node_name)
    return asyncio.run(run_until_signal(lambda stop: Agent(settings).run(stop)))


def run_controller(settings: ControllerSettings) -> int:
    """Runs the controller until SIGTERM. The exit code: 1 when it cannot start."""
    from guestlet.reconcile.leader import Leader

    configure_logging(settings.log_format, settings.log_level)
    return asyncio.run(run_until_signal(lambda stop: Leader(settings).run(stop)))

"""The node that contract tests talk to: the fake, and the real one with real QEMUs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from contracts.host.nodes import launcher_has_gone, settings_in, short_directory
from guestlet.host.node import NodeHost
from guestlet.host.process import is_alive
from guestlet.settings import AgentSettings


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as made:
        yield made


@pytest.fixture(scope="session")
def learned() -> Iterator[Path]:
    """What a node finds out about its QEMU, found out once: it takes two seconds."""
    with short_directory() as made:

        async def learn() -> None:
            host = NodeHost(settings_in(made))
            await host.start()
            await host.close()

        asyncio.run(learn())
        yield made / "state"


@pytest.fixture
def settings(directory: Path, learned: Path) -> AgentSettings:
    return settings_in(directory, learned=learned)


@pytest.fixture
async def node(settings: AgentSettings) -> AsyncIterator[NodeHost]:
    """A started node; whatever still runs at the end is ended, the launcher too."""
    host = NodeHost(settings)
    await host.start()
    try:
        yield host
    finally:
        await sweep(host, settings)


async def sweep(host: NodeHost, settings: AgentSettings) -> None:
    for guest in await host.guests():
        running = (await host.process(guest)).running
        if running is not None:
            await host.kill(guest, running)
            assert not is_alive(running)
    await host.stop_launcher()
    await host.close()
    if (settings.state_dir / "launcher.lock").exists():
        launcher_has_gone(settings.state_dir.parent)

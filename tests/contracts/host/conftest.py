"""The node that contract tests talk to: the fake, and the real one with real QEMUs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from contracts.host.nodes import launcher_has_gone, settings_in, short_directory
from contracts.host.stage import Stage
from fakes.host import FakeHost
from guestlet.host.node import NodeHost
from guestlet.host.process import is_alive
from guestlet.settings import AgentSettings
from sandbox.qemu import QemuBuild, ensure_qemu, link_build
from unit.guest.guest_samples import CAPABILITIES, NODE, TCG


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as made:
        yield made


@pytest.fixture(scope="session")
def learned() -> Iterator[Path]:
    """What a node finds out about its QEMU, found out once: it takes two seconds."""
    with short_directory() as made:
        learn(settings_in(made))
        yield made / "state"


@pytest.fixture(scope="session")
def qemu_10() -> Iterator[tuple[QemuBuild, Path]]:
    """A second version, where QEMU's uid can get at it, and what a node finds out about it."""
    with short_directory() as made:
        build = link_build(ensure_qemu(10), made)
        learn(settings_in(made, build=build))
        yield build, made / "state"


def learn(settings: AgentSettings) -> None:
    async def start() -> None:
        host = NodeHost(settings)
        await host.start()
        await host.close()

    asyncio.run(start())


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


REAL = pytest.param("real", marks=[pytest.mark.qemu, pytest.mark.slow])
REAL_10 = pytest.param("real 10", marks=[pytest.mark.qemu, pytest.mark.slow])


@pytest.fixture(params=["fake", REAL])
def real_node(request: pytest.FixtureRequest, directory: Path) -> AgentSettings | None:
    """``None``: the fake. A real node has the system's QEMU or, where a test asks for it, another version's."""
    match request.param:
        case "fake":
            return None
        case "real":
            return settings_in(directory, learned=request.getfixturevalue("learned"))
        case _:
            build, known = request.getfixturevalue("qemu_10")
            return settings_in(directory, learned=known, build=build)


@pytest.fixture
async def stage(real_node: AgentSettings | None, directory: Path) -> AsyncIterator[Stage]:
    woken = asyncio.Event()
    if real_node is None:
        fake = FakeHost(facts=NODE, capabilities=CAPABILITIES, probe=TCG, clock=lambda: 0.0)
        fake.add_pool("default")
        fake.on_exit = lambda _guest: woken.set()
        yield Stage(host=fake, directory=directory, fake=fake, woken=woken)
        return
    node = NodeHost(real_node, on_event=lambda _guest, _event: woken.set(), on_exit=lambda _guest: woken.set())
    await node.start()
    try:
        yield Stage(host=node, directory=directory, fake=None, woken=woken)
    finally:
        await sweep(node, real_node)


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

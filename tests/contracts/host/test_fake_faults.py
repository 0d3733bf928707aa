"""The fake node's faults strike where a scenario asked: between, before and after effects."""

import pytest

from contracts.host.nodes import GUEST, small_machine, source
from fakes.host import AgentCrashed, FakeHost, Fault, LaunchFate, Moment
from guestlet.errors import NotNow, Refused, Unknown
from guestlet.qemu import commands
from guestlet.qemu.commandline import build_argv
from unit.guest.guest_samples import CAPABILITIES, NODE, TCG


@pytest.fixture
def host() -> FakeHost:
    made = FakeHost(facts=NODE, capabilities=CAPABILITIES, probe=TCG, clock=lambda: 7.0)
    made.add_pool("default")
    return made


async def launch(host: FakeHost) -> None:
    await host.prepare_launch(GUEST, small_machine())
    await host.launch(GUEST, build_argv(small_machine(), host.paths(GUEST, small_machine())), timeout_s=1)


async def test_an_agent_that_dies_before_an_effect_has_not_done_it(host: FakeHost) -> None:
    host.faults = (Fault(effect=1, moment=Moment.BEFORE),)
    await host.write_file(GUEST, "record.json", b"one")

    with pytest.raises(AgentCrashed):
        await host.create_image(source("root"), 1)

    assert await host.image("default", "root") is None
    assert await host.read_file(GUEST, "record.json") == b"one"


async def test_an_agent_that_dies_after_an_effect_has_done_it(host: FakeHost) -> None:
    host.faults = (Fault(effect=0, moment=Moment.AFTER),)

    with pytest.raises(AgentCrashed):
        await host.create_image(source("root"), 1)

    assert await host.image("default", "root") is not None


async def test_an_error_can_strike_instead(host: FakeHost) -> None:
    host.faults = (Fault(effect=0, moment=Moment.AFTER, error=NotNow("Busy", "later")),)

    with pytest.raises(NotNow):
        await host.write_file(GUEST, "record.json", b"one")

    assert await host.read_file(GUEST, "record.json") == b"one"
    assert [str(each) for each in host.journal] == [f"write_file {GUEST} record.json"]


async def test_qemus_outlive_the_agent_and_not_a_reboot(host: FakeHost) -> None:
    await launch(host)
    host.restart_agent()
    assert (await host.process(GUEST)).running is not None

    host.reboot()

    facts = await host.process(GUEST)
    assert facts.running is None
    assert facts.last_exit is not None
    assert (facts.last_exit.code, facts.last_exit.signal, facts.last_exit.at) == (None, None, 7.0)


@pytest.mark.parametrize(("fate", "error"), [(LaunchFate.EXITS, Refused), (LaunchFate.SILENT, Unknown)])
async def test_launches_fail_as_told(host: FakeHost, fate: LaunchFate, error: type[Exception]) -> None:
    host.fates[GUEST] = fate

    with pytest.raises(error):
        await launch(host)

    assert ((await host.process(GUEST)).running is not None) == (fate is LaunchFate.SILENT)


async def test_a_guest_obeys_the_power_button_unless_told_otherwise(host: FakeHost) -> None:
    await launch(host)
    await host.execute(GUEST, commands.cont())
    host.qemus[GUEST].switches.obeys_power_button = False
    await host.execute(GUEST, commands.system_powerdown())
    assert (await host.process(GUEST)).running is not None

    host.qemus[GUEST].switches.obeys_power_button = True
    await host.execute(GUEST, commands.system_powerdown())

    facts = await host.process(GUEST)
    assert facts.running is None
    assert facts.last_exit is not None
    assert facts.last_exit.code == 0
    assert host.exit_note(GUEST) == "guest-shutdown"

"""QMP commands as values."""

from guestlet.qemu import commands


def test_commands_have_qemus_names_and_arguments() -> None:
    assert commands.cont().name == "cont"
    assert commands.quit_qemu().name == "quit"
    link = commands.set_link("lan", up=False)
    assert (link.name, dict(link.arguments)) == ("set_link", {"name": "nic-lan", "up": False})
    address = commands.device_address("disk-root")
    assert (address.name, dict(address.arguments)) == (
        "qom-get",
        {"path": "/machine/peripheral/disk-root", "property": "legacy-addr"},
    )


def test_every_command_has_a_deadline() -> None:
    assert commands.query_status().deadline_s < commands.system_powerdown().deadline_s < 60

"""Stories of disks and networks that come to, change in and leave a running guest."""

from typing import Any

import pytest

from guestlet.errors import Broken
from guestlet.host.facts import ScriptOutcome
from guestlet.qemu.machine import ImageFormat
from guestlet.qemu.replies import RunState
from scenarios.stage import Stage, disk

LAN: dict[str, Any] = {"name": "lan", "isolated": {}}
GIB = 1 << 30


def cdrom(image: str | None = None) -> dict[str, Any]:
    source = {"source": {"file": {"pool": "default", "image": image, "format": "Raw"}}} if image else {}
    return {"name": "cd", "bus": "SCSI", "cdrom": True, "readOnly": True, **source}


def told(stage: Stage) -> list[str]:
    """The commands that changed QEMU, in order."""
    return [each.detail.split()[0] for each in stage.host.journal if each.name == "execute"]


def places(stage: Stage) -> dict[str, str]:
    pci = stage.status().pci
    return {each.id: f"{each.bus}:{each.address}" for each in pci.devices} if pci else {}


def ports(stage: Stage) -> tuple[int, int]:
    pci = stage.status().pci
    assert pci is not None
    assert pci.hotplug_ports is not None
    return pci.hotplug_ports.total, pci.hotplug_ports.free


async def test_a_disk_is_plugged_into_the_running_guest(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    qemu, before = stage.qemu(), stage.writes
    await stage.edit(disks=[disk(), disk("data", ioThread=True, throttle={"iops": 100})])

    assert stage.qemu() is qemu
    assert stage.ready()
    assert stage.says("RestartRequired") == ("False", "UpToDate")
    assert stage.says("Reconciling")[0] == "False"
    assert [each.name for each in stage.status().disks] == ["root", "data"]
    assert stage.addresses
    assert None not in stage.addresses
    assert "Plugged" in stage.reasons
    assert told(stage)[-5:] == ["object-add", "blockdev-add", "blockdev-add", "device_add", "block_set_io_throttle"]
    assert stage.writes - before <= 2


async def test_a_disk_that_is_taken_out_of_the_spec_leaves_with_everything_of_it(stage: Stage) -> None:
    await stage.create(disks=[disk(), disk("data", ioThread=True)])
    total, free = ports(stage)
    await stage.edit(disks=[disk()])
    await stage.passes(1)

    assert [each.name for each in stage.status().disks] == ["root"]
    assert told(stage)[-4:] == ["device_del", "blockdev-del", "blockdev-del", "object-del"]
    assert ports(stage) == (total, free + 1)
    assert not stage.record().pending
    assert ("default", "data.qcow2") in stage.host.images
    assert "Unplugged" in stage.reasons


async def test_a_device_comes_back_at_the_same_address_at_the_next_cold_start(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.edit(disks=[disk(), disk("data")], networks=[LAN])
    plugged = places(stage)
    await stage.edit(restart={"token": "cold"})
    await stage.passes(1)

    assert stage.launches == 2
    assert places(stage) == plugged


async def test_an_address_that_was_given_back_is_not_used_while_another_is_free(stage: Stage) -> None:
    await stage.create(disks=[disk(), disk("a")])
    left = places(stage)["disk-a"]
    await stage.edit(disks=[disk()])
    await stage.passes(1)
    await stage.edit(disks=[disk(), disk("b")])

    assert places(stage)["disk-b"] != left


async def test_a_controller_comes_with_the_first_scsi_disk_and_stays_when_it_goes(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.edit(disks=[disk(), disk("data", bus="SCSI")])
    assert "scsi" in places(stage)
    await stage.edit(disks=[disk()])
    await stage.passes(1)

    assert "scsi" in places(stage)
    assert [each.name for each in stage.status().disks] == ["root"]
    await stage.edit(restart={"token": "cold"})
    await stage.passes(1)
    assert "scsi" not in places(stage)


async def test_a_sata_disk_waits_for_the_next_start(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.edit(disks=[disk(), disk("old", bus="SATA")])

    assert stage.says("RestartRequired") == ("True", "FieldsWaiting")
    assert "disks[old]" in stage.condition("RestartRequired").message
    assert "only at a cold start" in stage.condition("RestartRequired").message
    assert stage.ready()


async def test_a_disk_at_a_chosen_address_of_the_root_bus_waits_for_the_next_start(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.edit(disks=[disk(), disk("data", pciAddress="pcie.0:10.0")])

    assert "pcie.0 takes devices only at a cold start" in stage.condition("RestartRequired").message
    await stage.edit(restart={"token": "cold"})
    await stage.passes(1)
    assert places(stage)["disk-data"] == "pcie.0:10.0"


@pytest.mark.parametrize(
    ("address", "reason"),
    [("port-0:00.0", "PciAddressTaken"), ("port-9:00.0", "PciAddressRefused"), ("port-3:01.0", "PciAddressRefused")],
)
async def test_a_chosen_address_that_cannot_be_had_is_refused_and_the_guest_stays_ready(
    stage: Stage, address: str, reason: str
) -> None:
    await stage.create(disks=[disk()])
    await stage.edit(disks=[disk(), disk("data", pciAddress=address)])

    assert stage.says("Stalled") == ("True", reason)
    assert "disks[data].pciAddress" in stage.condition("Stalled").message
    assert stage.ready()
    assert not stage.record().pending


async def test_more_devices_than_places_are_refused_by_name_and_come_after_a_restart(stage: Stage) -> None:
    await stage.create(disks=[disk()], pci={"hotplugPorts": 1})
    await stage.edit(disks=[disk(), disk("a"), disk("b")])

    assert stage.says("Stalled") == ("True", "PciExhausted")
    assert "hotplugPorts" in stage.condition("Stalled").message
    assert [each.name for each in stage.status().disks] == ["root", "a"]
    await stage.edit(restart={"token": "cold"})
    await stage.passes(1)
    assert [each.name for each in stage.status().disks] == ["root", "a", "b"]
    assert stage.says("Stalled")[0] == "False"


async def test_one_change_that_fails_does_not_block_the_others(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    nowhere = {"name": "nowhere", "bridge": {"name": "br9"}}
    await stage.edit(disks=[disk(), disk("data")], networks=[nowhere, LAN])

    assert [each.name for each in stage.status().disks] == ["root", "data"]
    assert [each.name for each in stage.status().networks] == ["lan"]
    assert stage.says("Stalled") == ("True", "NoSuchBridge")
    assert "networks[nowhere]" in stage.condition("Stalled").message
    assert stage.ready()


async def test_what_qemu_refuses_leaves_nothing_behind_and_is_tried_again(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    before, qemu = places(stage), stage.qemu()
    stage.refuse_command("device_add", Broken("QmpRefused", "device_add: GenericError: no"))
    await stage.edit(disks=[disk(), disk("data", ioThread=True)])

    assert stage.says("Stalled") == ("True", "PlugFailed")
    assert "no" in stage.condition("Stalled").message
    assert places(stage) == before
    assert told(stage)[-3:] == ["blockdev-del", "blockdev-del", "object-del"]
    assert not stage.record().pending
    stage.accept_command("device_add")
    await stage.passes(40)
    assert stage.qemu() is qemu
    assert [each.name for each in stage.status().disks] == ["root", "data"]
    assert stage.says("Stalled")[0] == "False"


async def test_a_second_look_at_a_refused_change_writes_nothing(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.edit(disks=[disk(), disk("data", source={"file": {"pool": "nope", "image": "x"}})])
    before = stage.writes
    await stage.passes(300)

    assert stage.says("Stalled") == ("True", "NoSuchPool")
    assert stage.writes == before


async def test_an_image_that_another_guest_writes_is_not_plugged(stage: Stage) -> None:
    await stage.create("other", disks=[disk("shared")])
    await stage.create(disks=[disk()])
    await stage.edit(disks=[disk(), disk("shared")])

    assert stage.says("Stalled") == ("True", "ImageInUse")
    assert "default/other" in stage.condition("Stalled").message


async def test_two_disks_of_one_serial_are_refused_while_both_are_there(stage: Stage) -> None:
    await stage.create(disks=[disk(), disk("a", serial="s1")])
    stage.qemu().switches.lets_go = False
    await stage.edit(disks=[disk(), disk("b", serial="s1")])

    assert "serial" in stage.condition("Stalled").message
    stage.qemu().switches.lets_go = True
    await stage.passes(120)
    assert [each.name for each in stage.status().disks] == ["root", "b"]


async def test_removing_the_boot_disk_is_done_and_said(stage: Stage) -> None:
    await stage.create(disks=[disk(), disk("data")])
    await stage.edit(disks=[disk("data")])
    await stage.passes(1)

    assert [each.name for each in stage.status().disks] == ["data"]
    (message,) = (text for _, _, reason, text in stage.api.events.seen if reason == "Unplugged")
    assert "root is the disk that the guest boots from" in message


async def test_a_disk_grows_under_the_running_guest_and_never_shrinks(stage: Stage) -> None:
    await stage.create(disks=[disk(size="1Gi")])
    await stage.edit(disks=[disk(size="3Gi")])
    assert stage.status().disks[0].size == "3Gi"
    assert told(stage)[-1] == "block_resize"
    await stage.edit(disks=[disk(size="2Gi")])

    assert stage.says("Stalled") == ("True", "ImageSizeMismatch")
    assert "never shrunk" in stage.condition("Stalled").message
    assert stage.status().disks[0].size == "3Gi"
    assert told(stage).count("block_resize") == 1


async def test_a_disk_does_not_grow_while_a_block_job_uses_it(stage: Stage) -> None:
    await stage.create(disks=[disk(size="1Gi")])
    stage.qemu().blocks.jobs["mirror-0"] = ("disk-root",)
    await stage.edit(disks=[disk(size="3Gi")])
    assert stage.says("Reconciling") == ("True", "ImageBusy")
    stage.qemu().blocks.jobs.clear()
    await stage.passes(10)

    assert stage.status().disks[0].size == "3Gi"


async def test_limits_are_set_changed_and_taken_away(stage: Stage) -> None:
    await stage.create(disks=[disk(throttle={"iops": 100, "iopsBurst": 200})])
    assert told(stage).index("block_set_io_throttle") < told(stage).index("cont")
    await stage.edit(disks=[disk(throttle={"bandwidth": "1Mi", "bandwidthBurst": "2Mi"})])
    throttle = stage.status().disks[0].throttle
    assert throttle is not None
    assert (throttle.bandwidth, throttle.iops) == ("1Mi", None)
    await stage.edit(disks=[disk()])

    assert stage.status().disks[0].throttle is None
    assert told(stage).count("block_set_io_throttle") == 3


async def test_a_medium_is_put_in_exchanged_and_taken_out(stage: Stage) -> None:
    for name in ("a.iso", "b.iso"):
        stage.add_image(name, format=ImageFormat.RAW)
    await stage.create(disks=[disk(), cdrom()])

    def medium() -> str | None:
        source = stage.status().disks[1].source
        return source.file.image if source and source.file else None

    assert medium() is None
    for image in ("a.iso", "b.iso", None):
        await stage.edit(disks=[disk(), cdrom(image)])
        assert medium() == image
        assert stage.ready()
        assert stage.says("RestartRequired")[0] == "False"
    assert not stage.record().pending


async def test_a_network_comes_with_tap_and_script_and_leaves_with_them(stage: Stage) -> None:
    outcome = ScriptOutcome(code=0, output="")
    stage.host.scripts = {"up.sh": outcome, "down.sh": outcome}
    tap = {"name": "wan", "tap": {"upScript": "up.sh", "downScript": "down.sh"}, "linkUp": False}
    await stage.create(disks=[disk()])
    await stage.edit(networks=[{**tap, "bandwidth": {"inbound": "1Mi"}}])
    effects = stage.effects
    assert effects.index("open_tap") < effects.index("shape_tap") < effects.index("run_script")
    assert "hand_over_tap" in effects
    assert [each.name for each in stage.status().networks] == ["wan"]
    assert stage.qemu().links["wan"] is False
    await stage.edit(networks=[])
    await stage.passes(1)

    assert stage.effects[-4:].count("close_tap") == 1
    assert [dict(each.environment)["GUESTLET_EVENT"] for each in stage.host.script_runs] == ["up", "down"]
    assert stage.status().networks == ()


async def test_a_script_that_fails_refuses_the_network_and_leaves_no_tap(stage: Stage) -> None:
    stage.host.scripts = {"up.sh": ScriptOutcome(code=3, output="no vlan")}
    await stage.create(disks=[disk()])
    await stage.edit(networks=[{"name": "wan", "tap": {"upScript": "up.sh"}}])

    assert stage.says("Stalled") == ("True", "ScriptFailed")
    assert "no vlan" in stage.condition("Stalled").message
    assert stage.status().networks == ()
    assert not stage.host.taps
    assert stage.ready()


async def test_an_unknown_script_refuses_the_network(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.edit(networks=[{"name": "wan", "tap": {"upScript": "nope.sh"}}])

    assert stage.says("Stalled") == ("True", "NoSuchScript")
    assert "nope.sh" in stage.condition("Stalled").message


async def test_a_link_goes_down_and_up_and_a_tap_moves_to_another_bridge(stage: Stage) -> None:
    first, second = stage.host.facts.bridges
    lan = {"name": "lan", "bridge": {"name": first}}
    await stage.create(disks=[disk()], networks=[lan])
    mac = stage.status().networks[0].mac_address
    await stage.edit(networks=[{**lan, "linkUp": False}])
    assert stage.qemu().links["lan"] is False
    await stage.edit(networks=[{**lan, "bridge": {"name": second}, "bandwidth": {"inbound": "1Mi"}}])

    network = stage.status().networks[0]
    assert stage.qemu().links["lan"] is True
    assert network.bridge is not None
    assert network.bridge.name == second
    assert network.mac_address == mac
    assert {"move_tap", "shape_tap"} <= set(stage.effects)
    assert stage.launches == 1


async def test_a_device_that_the_guest_lets_go_by_itself_is_plugged_again(stage: Stage) -> None:
    await stage.create(disks=[disk(), disk("data")])
    stage.qemu().guest_ejects("disk-data")
    await stage.passes(2)

    assert [each.name for each in stage.status().disks] == ["root", "data"]
    assert stage.ready()
    assert told(stage).count("device_add") == 1


async def test_changes_wait_while_qemu_migrates(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    stage.qemu().switches.migrating = True
    await stage.edit(disks=[disk(), disk("data")])
    assert stage.says("Reconciling") == ("True", "Migrating")
    stage.qemu().switches.migrating = False
    await stage.passes(5)

    assert [each.name for each in stage.status().disks] == ["root", "data"]


async def test_devices_come_to_a_paused_guest_and_leave_it_when_it_runs_again(stage: Stage) -> None:
    await stage.create(disks=[disk(), disk("a")])
    await stage.edit(paused=True)
    await stage.edit(disks=[disk(), disk("b")])
    assert [each.name for each in stage.status().disks] == ["root", "a", "b"]
    assert stage.says("Reconciling") == ("True", "Unplugging")
    await stage.edit(paused=False)
    await stage.passes(1)

    assert [each.name for each in stage.status().disks] == ["root", "b"]


async def test_a_guest_that_never_ran_can_be_changed_too(stage: Stage) -> None:
    await stage.create(disks=[disk()], paused=True)
    await stage.edit(disks=[disk(), disk("data")])

    assert stage.qemu().run_state is RunState.PRELAUNCH
    assert [each.name for each in stage.status().disks] == ["root", "data"]
    await stage.edit(paused=False)
    assert stage.ready()


async def test_changes_are_told_as_held_while_the_guest_stands_still_by_itself(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.qemu_stops(RunState.IO_ERROR)
    await stage.edit(disks=[disk(), disk("data")])

    assert [each.name for each in stage.status().disks] == ["root"]
    assert stage.says("RestartRequired")[0] == "False"
    assert stage.says("Stalled") == ("True", "IOError")


async def test_a_qemu_that_does_not_tell_what_it_has_is_not_changed(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    stage.refuse_command("query-named-block-nodes", Broken("QmpRefused", "CommandNotFound"))
    await stage.edit(disks=[disk(), disk("data")])

    assert stage.ready()
    assert stage.says("Stalled") == ("True", "HostFailure")
    assert [each.name for each in stage.status().disks] == ["root"]

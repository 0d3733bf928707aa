"""Stories of images and pools: made once, never over another, never again blank."""

from dataclasses import replace

import pytest

from guestlet.qemu.machine import ImageFormat
from scenarios.stage import Stage, disk
from unit.guest.guest_samples import GIB

KEY = ("default", "root.qcow2")


async def test_an_image_is_made_once_and_its_time_is_published(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    created = stage.status().disks[0].created_at
    for token in ("one", "two"):
        await stage.passes(100)
        await stage.edit(restart={"token": token})

    assert stage.effects.count("create_image") == 1
    assert created is not None
    assert stage.status().disks[0].created_at == created
    assert stage.status().disks[0].size == "1Gi"


async def test_an_image_that_was_made_and_is_gone_is_never_made_again(stage: Stage) -> None:
    await stage.create(disks=[disk()], runStrategy="Always")
    await stage.edit(runStrategy="Halted")
    del stage.host.images[KEY]
    await stage.edit(runStrategy="Always")

    assert stage.says("Stalled") == ("True", "ImageMissing")
    assert "never made again blank" in stage.condition("Stalled").message
    assert "spec.disks[root].source.file.image" in stage.condition("Stalled").message
    before = stage.writes
    await stage.passes(300)
    assert stage.writes == before

    stage.add_image("root.qcow2")
    await stage.passes(31)
    assert stage.ready()
    assert stage.effects.count("create_image") == 1


async def test_it_is_not_made_again_even_when_the_nodes_record_is_lost(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    await stage.edit(runStrategy="Halted")
    stage.agent_dies()
    stage.host.files.clear()
    del stage.host.images[KEY]

    await stage.edit(runStrategy="Always")

    assert stage.says("Stalled") == ("True", "ImageMissing")
    assert stage.effects.count("create_image") == 1


async def test_an_image_without_size_must_be_there(stage: Stage) -> None:
    await stage.create(disks=[disk(size=None)])
    assert stage.says("Stalled") == ("True", "ImageMissing")
    assert "or give spec.disks[root].size" in stage.condition("Stalled").message

    stage.add_image("root.qcow2")
    await stage.passes(31)
    assert stage.ready()
    assert stage.status().disks[0].created_at is None


async def test_a_pool_that_is_not_mounted_gets_no_blank_disk(stage: Stage) -> None:
    stage.pool_goes()
    await stage.create(disks=[disk()])

    assert stage.says("Stalled") == ("True", "PoolNotReady")
    assert stage.says("Ready")[0] == "False"
    assert stage.effects == []

    stage.pool_comes_back()
    await stage.passes(31)
    assert stage.ready()


async def test_a_pool_that_goes_while_the_guest_runs_disturbs_nothing(stage: Stage) -> None:
    await stage.create(disks=[disk()])
    stage.pool_goes()
    stage.wake()
    await stage.passes(60)

    assert stage.ready()


async def test_an_image_grows_before_the_next_start_and_never_shrinks(stage: Stage) -> None:
    await stage.create(disks=[disk(size="1Gi", bus="NVMe")])
    await stage.edit(disks=[disk(size="2Gi", bus="NVMe")])
    assert stage.says("RestartRequired") == ("True", "FieldsWaiting")
    assert "disks[root].size" in stage.condition("RestartRequired").message
    assert "NVMe" in stage.condition("RestartRequired").message

    await stage.edit(restart={"token": "one"})
    await stage.passes(1)
    assert stage.host.images[KEY].virtual_size_bytes == 2 * GIB
    assert stage.status().disks[0].size == "2Gi"
    assert stage.says("RestartRequired") == ("False", "UpToDate")

    await stage.edit(disks=[disk(size="1Gi", bus="NVMe")])
    assert stage.says("Stalled") == ("True", "ImageSizeMismatch")
    assert "never shrunk" in stage.condition("Stalled").message


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"format": ImageFormat.RAW}, "ImageFormatMismatch"),
        ({"virtual_size_bytes": 4 * GIB}, "ImageSizeMismatch"),
        ({"backing_image": "base.qcow2"}, "BackingImageMismatch"),
        ({"locked": True}, "ImageInUse"),
    ],
)
async def test_an_image_that_is_not_as_declared_stalls_the_guest(
    stage: Stage, facts: dict[str, object], reason: str
) -> None:
    stage.add_image("root.qcow2", **facts)
    await stage.create(disks=[disk()])

    assert stage.says("Stalled") == ("True", reason)
    assert stage.launches == 0


async def test_an_image_of_another_guest_is_refused_by_that_guests_name(stage: Stage) -> None:
    await stage.create("first", disks=[disk()])
    await stage.create("second", disks=[disk()])

    assert stage.says("Stalled", "second") == ("True", "ImageInUse")
    assert "default/first" in stage.condition("Stalled", "second").message


async def test_so_it_is_after_the_agent_was_restarted(stage: Stage) -> None:
    await stage.create("first", disks=[disk()])
    await stage.agent_restarts()
    await stage.create("second", disks=[disk()])

    assert stage.says("Stalled", "second") == ("True", "ImageInUse")


async def test_many_may_read_one_cdrom(stage: Stage) -> None:
    stage.add_image("install.iso", format=ImageFormat.RAW)
    drive = {
        "name": "cd",
        "bus": "SCSI",
        "cdrom": True,
        "readOnly": True,
        "source": {"file": {"pool": "default", "image": "install.iso", "format": "Raw"}},
    }
    await stage.create("first", disks=[drive])
    await stage.create("second", disks=[drive])

    assert stage.ready("first")
    assert stage.ready("second")


async def test_an_overlay_is_made_with_the_size_of_its_base(stage: Stage) -> None:
    stage.add_image("base.qcow2", virtual_size_bytes=3 * GIB)
    overlay = {"pool": "default", "image": "root.qcow2", "backingImage": "base.qcow2"}
    await stage.create(disks=[disk(size=None, source={"file": overlay})])

    assert stage.ready()
    assert stage.host.images[KEY].virtual_size_bytes == 3 * GIB
    assert stage.host.images[KEY].backing_image == "base.qcow2"


async def test_a_base_that_is_not_there_stalls_the_guest(stage: Stage) -> None:
    overlay = {"pool": "default", "image": "root.qcow2", "backingImage": "base.qcow2"}
    await stage.create(disks=[disk(size=None, source={"file": overlay})])

    assert stage.says("Stalled") == ("True", "BackingImageMissing")


async def test_a_full_pool_is_said_and_tried_again(stage: Stage) -> None:
    stage.host.add_pool("default", free_bytes=0)
    await stage.create(disks=[disk()])
    assert stage.says("Stalled") == ("True", "NoSpace")
    assert stage.launches == 0

    stage.pool_comes_back()
    await stage.passes(31)
    assert stage.ready()


async def test_a_disk_that_is_given_up_keeps_its_image(stage: Stage) -> None:
    await stage.create(disks=[disk("root"), disk("data")])
    await stage.edit(disks=[disk("root")], restart={"token": "one"})
    await stage.passes(1)

    assert [each.name for each in stage.status().disks] == ["root"]
    assert ("default", "data.qcow2") in stage.host.images


async def test_a_disk_that_comes_back_is_the_one_that_was(stage: Stage) -> None:
    await stage.create(disks=[disk("root"), disk("data")])
    await stage.edit(disks=[disk("root")], restart={"token": "one"})
    await stage.passes(1)
    await stage.edit(disks=[disk("root"), disk("data")], restart={"token": "two"})
    await stage.passes(1)

    assert stage.ready()
    assert stage.effects.count("create_image") == 2
    assert stage.status().disks[1].created_at is not None


async def test_a_guest_may_write_another_formats_header_into_its_raw_disk(stage: Stage) -> None:
    raw = {"pool": "default", "image": "root.img", "format": "Raw"}
    await stage.create(disks=[disk(source={"file": raw})])
    stage.host.images["default", "root.img"] = replace(
        stage.host.images["default", "root.img"], format=ImageFormat.QCOW2, virtual_size_bytes=7
    )
    await stage.edit(restart={"token": "one"})
    await stage.passes(1)

    assert stage.ready()
    source = stage.status().disks[0].source
    assert source is not None
    assert source.file is not None
    assert source.file.format is ImageFormat.RAW
    assert stage.status().disks[0].size == "1Gi"

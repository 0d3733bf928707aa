"""Storage that went away is never replaced by something blank."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.life.witness import TINY, disk, life_of, qemus_of
from e2e.stage import Stage


@contextmanager
def moved_away(file: Path) -> Iterator[None]:
    elsewhere = file.with_name(f"{file.name}.away")
    file.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(file)


def with_disk(image: str) -> Mapping[str, object]:
    return {**TINY, "disks": [disk("data", image, size="8Mi")]}


def test_a_pool_without_its_identity_gets_no_image_and_no_guest(stage: Stage) -> None:
    pool = stage.sandbox.node("node-a").pool()
    theirs, ours = (f"{stage.namespace}-{name}.qcow2" for name in ("theirs", "ours"))
    stage.image(theirs, nodes=("node-a",))
    running = stage.guest("running", with_disk(theirs), boot=False)
    running.wait()
    life = life_of(running)

    with moved_away(pool / ".guestlet-pool"):
        new = stage.guest("new", with_disk(ours), boot=False)
        told = new.wait_for_reason("Stalled", "PoolNotReady")
        assert told["status"] == "True"
        assert "default" in told["message"]
        assert not (pool / ours).exists()
        assert new.pid() is None

        assert life_of(running) == life
        running.edit({"restart": {"token": "1"}})
        running.wait_for_reason("Stalled", "PoolNotReady")
        assert qemus_of(running.field(".status.uuid")) == ()
        with moved_away(pool / theirs):
            running.edit({"restart": {"token": "2"}})
            running.wait_until_observed()
            assert not (pool / theirs).exists()

    # The word of a person that it is to be tried again, instead of waiting for the next look.
    for guest in (new, running):
        guest.edit({"restart": {"token": "3"}})
        guest.wait()
    assert (pool / ours).exists()


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_an_image_that_is_gone_is_missed_and_not_made_again(stage: Stage, whose: str) -> None:
    image = stage.sandbox.node("node-a").pool() / f"{stage.namespace}.qcow2"
    if whose == "theirs":
        stage.image(image.name, nodes=("node-a",))
    guest = stage.guest(spec=with_disk(image.name), boot=False)
    guest.wait()
    guest.edit({"runStrategy": "Halted"})
    guest.wait_for(".status.phase", "Stopped")

    with moved_away(image):
        guest.edit({"runStrategy": "Always"})
        told = guest.wait_for_reason("Stalled", "ImageMissing")
        assert ".source.file.image" in told["message"]
        # Status alone remembers that there was one, too.
        stage.kill_agent("node-a")
        (guest.state / "record.json").unlink()
        stage.start_agent("node-a")
        guest.edit({"restart": {"token": "again"}})
        guest.wait_until_observed()
        assert guest.condition("Stalled")["reason"] == "ImageMissing"
        assert not image.exists()

    guest.edit({"restart": {"token": "it-is-back"}})
    guest.wait()

"""What a QEMU is asked of which nothing is known, and how its answers are read."""

import pytest

from guestlet.errors import Broken
from guestlet.qemu.found import parse_found
from guestlet.qemu.questions import RECOVERY_QUERIES, follow_up, plain_driver
from unit.qemu.shapes.recorded import MAJORS, recorded


def test_every_question_only_reads() -> None:
    reading = ("query-", "qom-list", "qom-get")
    commands = {each.name for each in RECOVERY_QUERIES.values()}

    assert {each for each in commands if not each.startswith(reading)} == {"human-monitor-command"}
    assert all(
        str(each.arguments["command-line"]).startswith("info ")
        for each in RECOVERY_QUERIES.values()
        if each.name == "human-monitor-command"
    )


def test_the_second_round_asks_what_the_first_one_shows() -> None:
    asked = follow_up(recorded("ours-q35", "10").replies)

    assert {"/machine/peripheral/disk-root iothread", "/machine/peripheral/nic-lan bootindex"} <= set(asked)
    assert asked["user network"].arguments == {"command-line": "info usernet"}
    assert follow_up({}) == {}


def test_devices_without_an_id_are_asked_for_their_place_but_not_the_chipsets() -> None:
    asked = follow_up(recorded("plain-pc", "10").replies)
    places = [key for key in asked if key.endswith(" legacy-addr")]

    assert len(places) == 1
    assert parse_found(recorded("plain-pc", "10").replies).paths != {}


@pytest.mark.parametrize("major", MAJORS)
def test_cards_are_found_with_their_backends_behind_hubs_and_without(major: str) -> None:
    plain, ours = (parse_found(recorded(name, major).replies) for name in ("plain-pc", "ours-q35"))

    assert plain.cards == {"e1000.0": "52:54:00:12:34:56"}
    assert plain.backends["e1000.0"].type == "user"
    assert (ours.backends["nic-lab"].type, ours.backends["nic-lan"].name) == ("hub", "net-lan")
    assert [each.guest_port for each in ours.forwards["net-lan"]] == [22]


def test_a_card_with_two_queues_has_one_backend() -> None:
    text = (
        "nic-a: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:01\n"
        " \\ net-a: index=0,type=tap,fd=30\n"
        "nic-a: index=1,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:01\n"
        " \\ net-a: index=1,type=tap,fd=31\n"
    )
    found = parse_found({**recorded("ours-q35", "10").replies, "network": text})

    assert (found.backends["nic-a"].queues, found.backends["nic-a"].detail) == (2, "fd=31")
    assert found.cards == {"nic-a": "52:54:00:00:00:01"}


def test_a_hub_with_several_others_is_no_network_of_ours() -> None:
    text = (
        "hub 0\n"
        " \\ hub0port2: n3: index=0,type=socket,\n"
        " \\ hub0port1: u0: index=0,type=user,net=10.0.2.0,restrict=off\n"
        " \\ hub0port0: e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\n"
    )
    found = parse_found({**recorded("plain-pc", "10").replies, "network": text})

    assert found.backends["e1000.0"].type == "several"


def test_generations_of_virtio_are_one_driver() -> None:
    assert plain_driver("virtio-blk-pci-non-transitional") == "virtio-blk-pci"
    assert plain_driver("virtio-net-pci-transitional") == "virtio-net-pci"
    assert plain_driver("e1000") == "e1000"


def test_a_reply_that_is_missing_is_no_answer() -> None:
    replies = {key: value for key, value in recorded("ours-q35", "10").replies.items() if key != "block"}

    with pytest.raises(Broken, match="cannot be read"):
        parse_found(replies)

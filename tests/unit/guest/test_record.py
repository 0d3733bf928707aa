"""The host record as bytes: what is written is read back, what cannot be read is said and never guessed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestlet.errors import Broken
from guestlet.guest.record import (
    NO_ALIASES,
    VERSION,
    Aliases,
    CreatedImage,
    ExitReason,
    LastExit,
    Pending,
    PendingKind,
    Record,
    Run,
    StopCause,
    StopIntent,
    dump_record,
    parse_record,
)
from guestlet.guest.record_versions import UPGRADERS
from guestlet.host.facts import ProcessIdentity
from guestlet.pci.layout import Family
from guestlet.qemu.commandline import build_argv
from guestlet.qemu.machine import Memory
from unit.guest.guest_samples import MIB, record, running_record
from unit.guest.machines import machines, words
from unit.qemu.sample_machines import PATHS

KEPT = Path(__file__).parent / "records"
OF_VERSION_1 = sorted(KEPT.glob("v1-*.json"))

times = st.floats(0, 2**33, allow_nan=False)
identities = st.none() | st.builds(ProcessIdentity, pid=st.integers(1, 2**22), start_ticks=st.integers(0, 2**60))
codes = st.none() | st.integers(0, 255)
texts = st.text(max_size=20)
names = st.dictionaries(words, texts, max_size=2)
runs = st.builds(
    Run,
    identity=identities,
    started_at=times,
    resumed=st.booleans(),
    argv=st.lists(texts, max_size=4).map(tuple),
    qemu_version=texts,
    foreign=st.booleans(),
    aliases=st.builds(Aliases, devices=names, nodes=names, netdevs=names),
)
pendings = st.builds(
    Pending, part=words, kind=st.sampled_from(PendingKind), since=times, asked=st.integers(0, 9), asked_at=times
)
stops = st.builds(
    StopIntent, cause=st.sampled_from(StopCause), since=times, grace_s=times, token=st.none() | texts, pressed_at=times
)
exits = st.builds(
    LastExit,
    identity=identities,
    reason=st.sampled_from(ExitReason),
    code=codes,
    signal=codes,
    at=times,
    log_tail=texts,
)
created = st.builds(CreatedImage, disk=words, pool=words, image=words, created_at=times)
records = st.builds(
    Record,
    uuid=words,
    object_uid=words,
    namespace=words,
    name=words,
    epoch=st.integers(0, 99),
    given_away_epoch=st.none() | st.integers(0, 99),
    generation=st.integers(-1, 99),
    source=texts,
    machine=st.none() | machines(),
    run=st.none() | runs,
    pending=st.lists(pendings, max_size=3).map(tuple),
    paused=st.booleans(),
    stop=st.none() | stops,
    restart_token=st.none() | texts,
    strategy=words,
    ended=st.booleans(),
    restarts=st.integers(0, 99),
    failures=st.integers(0, 99),
    last_exit=st.none() | exits,
    created_images=st.lists(created, max_size=3).map(tuple),
)


@given(records)
def test_what_is_written_is_read_back(remembered: Record) -> None:
    assert parse_record(dump_record(remembered)) == remembered


def test_equal_records_are_equal_bytes() -> None:
    assert dump_record(running_record()) == dump_record(running_record())


def changed(**fields: object) -> bytes:
    return json.dumps({**json.loads(dump_record(record())), **fields}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        dump_record(running_record())[:-7],
        b"\xff\xfe",
        changed(version="one"),
        changed(record={"uuid": "only"}),
        changed(record=[]),
    ],
    ids=lambda data: repr(data[:30]),
)
def test_a_damaged_record_is_said_to_be_unreadable(data: bytes) -> None:
    with pytest.raises(Broken) as error:
        parse_record(data)

    assert error.value.reason == "RecordUnreadable"


def test_a_record_of_a_newer_version_is_left_alone() -> None:
    with pytest.raises(Broken, match=f"version {VERSION + 1}, this program reads up to {VERSION}"):
        parse_record(changed(version=VERSION + 1))


def test_every_past_version_has_an_upgrader() -> None:
    assert set(UPGRADERS) == set(range(1, VERSION))


def kept(name: str) -> Record:
    return parse_record((KEPT / f"v1-{name}.json").read_bytes())


@pytest.mark.parametrize("path", OF_VERSION_1, ids=lambda path: path.stem)
def test_a_record_of_version_1_is_read_and_is_then_one_of_this_version(path: Path) -> None:
    found = parse_record(path.read_bytes())

    assert found.pending == ()
    assert parse_record(dump_record(found)) == found


@pytest.mark.parametrize("path", sorted(KEPT.glob("v1-*.argv.txt")), ids=lambda path: path.name)
def test_a_machine_of_version_1_keeps_its_command_line(path: Path) -> None:
    """Apart from the numbers of hubs, which no guest sees: they came from a network's place in the list."""
    machine = kept(path.name.removeprefix("v1-").removesuffix(".argv.txt")).machine
    assert machine is not None

    argv = build_argv(machine, replace(PATHS, tap_fds={"lan": (10, 11)}))

    assert [without_hub(each) for each in argv] == [without_hub(each) for each in path.read_text().splitlines()]


def without_hub(argument: str) -> str:
    return re.sub(r'"hubid":[0-9]+', '"hubid":…', argument)


def test_what_version_1_did_not_know_it_did_not_have() -> None:
    found = kept("running")

    assert found.machine is not None
    assert found.machine.memory == Memory(boot_bytes=512 * MIB, max_bytes=512 * MIB, virtio_mem=None, dimms=())
    assert found.machine.cpu.max_count == found.machine.cpu.count == 1
    assert [each.throttle for each in found.machine.disks] == [None]
    assert [each.bandwidth for each in found.machine.networks] == [None]
    assert found.machine.pci.anonymous == ()
    assert found.run is not None
    assert (found.run.foreign, found.run.aliases) == (False, NO_ALIASES)


@pytest.mark.parametrize(("name", "family"), [("largest-q35", Family.Q35), ("largest-pc", Family.PC)])
def test_the_chipset_of_a_version_1_machine_is_told_by_its_bridge(name: str, family: Family) -> None:
    machine = kept(name).machine

    assert machine is not None
    assert machine.pci.family is family


def test_a_guest_of_version_1_that_never_started_has_no_machine() -> None:
    assert (kept("never-started").machine, kept("never-started").run) == (None, None)


@pytest.mark.parametrize("part", ["machine", "run", "uuid"])
def test_a_record_of_version_1_without_a_part_is_said_to_be_unreadable(part: str) -> None:
    document = json.loads((KEPT / "v1-running.json").read_bytes())
    del document["record"][part]

    with pytest.raises(Broken) as error:
        parse_record(json.dumps(document).encode())

    assert error.value.reason == "RecordUnreadable"


@pytest.mark.parametrize("part", [7, [], {}, {"cpu": 1, "memory_bytes": 1}])
def test_a_machine_of_version_1_that_is_none_is_said_to_be_unreadable(part: object) -> None:
    document = json.loads((KEPT / "v1-running.json").read_bytes())
    document["record"]["machine"] = part

    with pytest.raises(Broken) as error:
        parse_record(json.dumps(document).encode())

    assert error.value.reason == "RecordUnreadable"

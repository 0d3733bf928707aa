"""The host record as bytes: what is written is read back, what cannot be read is said and never guessed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestlet.errors import Broken
from guestlet.guest.record import (
    UPGRADERS,
    VERSION,
    CreatedImage,
    ExitReason,
    LastExit,
    Record,
    Run,
    StopCause,
    StopIntent,
    dump_record,
    parse_record,
)
from guestlet.host.facts import ProcessIdentity
from unit.guest.guest_samples import record, running_record
from unit.guest.machines import machines, words

times = st.floats(0, 2**33, allow_nan=False)
identities = st.none() | st.builds(ProcessIdentity, pid=st.integers(1, 2**22), start_ticks=st.integers(0, 2**60))
codes = st.none() | st.integers(0, 255)
texts = st.text(max_size=20)
runs = st.builds(
    Run,
    identity=identities,
    started_at=times,
    resumed=st.booleans(),
    argv=st.lists(texts, max_size=4).map(tuple),
    qemu_version=texts,
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

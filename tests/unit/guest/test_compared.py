"""Asked, made from, and live: the fields in which they differ."""

import json
from dataclasses import replace
from typing import Any

from guestlet.guest.compared import Row, compared_fields, table
from guestlet.guest.source import source_text
from guestlet.qemu.machine import CacheMode
from unit.guest.guest_samples import disk, guest, machine, record, run

SPEC: dict[str, Any] = {"disks": [disk(size="1Gi")], "memory": {"size": "1Gi"}}


def test_a_guest_that_runs_as_asked_differs_in_nothing() -> None:
    assert compared_fields(guest(SPEC).spec, record(SPEC, machine=machine(SPEC), run=run())) == ()


def test_an_edit_is_seen_against_what_it_was_made_from_and_what_runs() -> None:
    edited = {**SPEC, "disks": [disk(size="1Gi", cache="None")], "paused": True}

    rows = compared_fields(guest(edited).spec, record(SPEC, machine=machine(SPEC), run=run()))

    assert rows == (Row(field="disks[root].cache", asked="None", source="Writeback", live="Writeback"),)


def test_what_changed_behind_our_back_is_seen() -> None:
    made = machine(SPEC)
    live = replace(made, disks=(replace(made.disks[0], cache=CacheMode.UNSAFE),))

    rows = compared_fields(guest(SPEC).spec, record(SPEC, machine=live, run=run()))

    assert rows == (Row(field="disks[root].cache", asked="Writeback", source="Writeback", live="Unsafe"),)


def test_the_same_amount_in_other_words_is_the_same_to_the_machine() -> None:
    words = {**SPEC, "memory": {"size": "1024Mi"}}

    rows = compared_fields(guest(words).spec, record(words, machine=machine(SPEC), run=run()))

    assert rows == ()


def test_spare_ports_are_compared_with_what_was_asked_before() -> None:
    more = {**SPEC, "pci": {"hotplugPorts": 9}}

    rows = compared_fields(guest(more).spec, record(SPEC, machine=machine(SPEC), run=run()))

    assert rows == (Row(field="pci.hotplugPorts", asked="9", source="4", live="4"),)


def test_a_guest_that_never_ran_has_nothing_live() -> None:
    rows = compared_fields(guest(SPEC).spec, record(SPEC, source=source_text(guest(SPEC).spec)))

    assert {each.live for each in rows} == {"-"}
    assert json.loads(record(SPEC).source)["memory"]["size"] == "1Gi"


def test_a_table_has_its_columns_in_line() -> None:
    rows = (Row(field="cpu.count", asked="2", source="1", live="1"), Row(field="a", asked="long", source="-", live="x"))

    assert table(rows) == "\n".join(
        (
            "FIELD      ASKED  SOURCE  LIVE",
            "cpu.count  2      1       1",
            "a          long   -       x",
        )
    )

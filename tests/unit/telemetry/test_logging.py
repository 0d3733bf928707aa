import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from guestlet.telemetry.logging import JsonLines, OneLine, TextLines, configure_logging


@pytest.fixture
def restored() -> Iterator[None]:
    """The process' logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("kopf", "kopf._cogs", "aiohttp", "asyncio", "qemu"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def record(text: str, *, name: str = "guestlet.x", error: Exception | None = None, **facts: str) -> logging.LogRecord:
    info = (type(error), error, None) if error else None
    made = logging.LogRecord(name, logging.ERROR, "f.py", 1, text, (), info)
    made.created = 1_700_000_000.5
    made.__dict__.update(facts)
    return made


def test_a_json_line_has_the_fixed_keys_in_order() -> None:
    line = json.loads(JsonLines("node-a").format(record("started", guest="default/a", action="Launch")))
    assert list(line) == ["ts", "level", "msg", "guest", "node", "action", "reason"]
    assert line == {
        "ts": "2023-11-14T22:13:20.500Z",
        "level": "ERROR",
        "msg": "started",
        "guest": "default/a",
        "node": "node-a",
        "action": "Launch",
        "reason": None,
    }


def test_an_error_of_our_own_keeps_its_traceback_in_one_line() -> None:
    text = JsonLines("n").format(record("bug", error=ValueError("x")))
    assert "\n" not in text
    assert "ValueError: x" in json.loads(text)["error"]


def test_a_line_for_people_names_guest_and_reason() -> None:
    text = TextLines().format(record("cannot start", guest="default/a", reason="NoSpace"))
    assert text.endswith("ERROR   default/a: cannot start (reason=NoSpace)")


def test_what_libraries_say_is_one_line_and_no_error() -> None:
    foreign = record("watch failed", name="kopf.objects", error=ValueError("x"))
    assert OneLine().filter(foreign)
    assert (foreign.exc_info, foreign.levelname) == (None, "WARNING")
    own = record("bug", error=ValueError("x"))
    assert OneLine().filter(own)
    assert own.exc_info is not None


@pytest.mark.usefixtures("restored")
def test_auto_is_json_when_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("auto", "INFO", node="node-a")
    logging.getLogger("guestlet.test").info("hello", extra={"reason": "Because"})
    logging.getLogger("kopf._cogs.clients.watching").error("Request attempt #3 failed")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["reason"] == "Because"


@pytest.mark.usefixtures("restored")
def test_the_level_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("text", "WARNING")
    logging.getLogger("guestlet.test").info("quiet")
    assert stream.getvalue() == ""

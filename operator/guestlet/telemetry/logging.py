"""Log lines: JSON with fixed keys for machines, one readable line for a terminal.

It must never print a traceback for what another program does (kopf's retries): those are said in one line.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal

KEYS: Final = ("guest", "action", "reason")
_THRESHOLDS: Final = (
    ("kopf", logging.ERROR),  # below, it tells of each request: not transitions
    ("kopf._cogs", logging.CRITICAL),  # each failed attempt: our own client says once that nobody answers
    ("aiohttp", logging.WARNING),
    ("asyncio", logging.WARNING),
    ("qemu", logging.WARNING),
)
_FOREIGN: Final = ("kopf", "aiohttp", "asyncio", "qemu")


class JsonLines(logging.Formatter):
    """``ts level msg guest node action reason``, and ``error`` with the traceback when there is one."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, str | None] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "msg": record.getMessage(),
            "guest": getattr(record, "guest", None),
            "node": self._node,
            "action": getattr(record, "action", None),
            "reason": getattr(record, "reason", None),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextLines(logging.Formatter):
    """``12:00:00 INFO default/demo: message (reason=…)``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it when there is one."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        guest = getattr(record, "guest", None)
        facts = ", ".join(f"{key}={getattr(record, key)}" for key in KEYS[1:] if getattr(record, key, None))
        text = f"{time} {record.levelname:<7} {f'{guest}: ' if guest else ''}{record.getMessage()}"
        text += f" ({facts})" if facts else ""
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class OneLine(logging.Filter):
    """What libraries say loses its traceback and is not louder than a warning."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always keeps the record."""
        if record.name.split(".", 1)[0] in _FOREIGN:
            record.exc_info = None
            record.exc_text = None
            record.levelno = min(record.levelno, logging.WARNING)
            record.levelname = logging.getLevelName(record.levelno)
        return True


def configure_logging(style: Literal["auto", "json", "text"], level: str, *, node: str = "") -> None:
    """Sets up the process' only handler, on standard error; ``auto`` is text on a terminal and JSON elsewhere."""
    text = style == "text" or (style == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(TextLines() if text else JsonLines(node))
    handler.addFilter(OneLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, threshold in _THRESHOLDS:
        logging.getLogger(name).setLevel(threshold)

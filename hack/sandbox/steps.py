"""The steps of a long command, told as they happen with the time each took. It must never swallow an error."""

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console


class Steps:
    """Prints one line a step; what a step itself has to say comes before its line."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
        self._begin = time.monotonic()

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Times what happens inside and prints it under ``text``."""
        begin = time.monotonic()
        yield
        self._line(time.monotonic() - begin, text)

    def say(self, text: str) -> None:
        """A remark in the middle of a step."""
        self.console.print(f"          {text}", markup=False)

    def total(self, text: str = "in all") -> None:
        """The time since the first step."""
        self._line(time.monotonic() - self._begin, text)

    def _line(self, seconds: float, text: str) -> None:
        self.console.print(f"{seconds:6.1f} s  {text}", markup=False)

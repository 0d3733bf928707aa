"""Tells when a file appears in a directory, by inotify: QEMU's monitor is met the moment it is there, without polling.

It must never be trusted alone: the caller looks first, then waits, then looks again.
"""

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_CREATE = 0x100
_IN_MOVED_TO = 0x80
_EVENT = struct.Struct("iIII")  # struct inotify_event without its name: wd, mask, cookie, len


class Arrivals:
    """One inotify instance for all waits (a user has 128 of them by default)."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._waits: dict[int, asyncio.Event] = {}
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    @contextmanager
    def expecting(self, directory: Path) -> Iterator[asyncio.Event]:
        """An event that is set whenever something appears in the directory; one wait a directory at a time."""
        mask = _IN_CREATE | _IN_MOVED_TO
        watch = self._checked(self._libc.inotify_add_watch(self._fd, os.fsencode(directory), mask))
        self._waits[watch] = asyncio.Event()
        try:
            yield self._waits[watch]
        finally:
            del self._waits[watch]
            self._libc.inotify_rm_watch(self._fd, watch)  # gone with the directory is fine

    def close(self) -> None:
        """Ends all waiting."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        data = os.read(self._fd, 65536)
        offset = 0
        while offset < len(data):
            watch, _, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            waiting = self._waits.get(watch)
            if waiting is not None:
                waiting.set()

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"inotify: {os.strerror(error)}")
        return result

"""Where a guest's files lie on this node: names only, and the directories themselves.

It must never hold a guest's content; the state directory is the agent's, the runtime directory QEMU's.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from guestlet.errors import Refused

_SOCKET_PATH_LIMIT = 107  # sun_path has 108 bytes, the last is zero
_GUEST_KEY_LENGTH = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPlace:
    """The two directories of one guest; ``state`` outlives a boot, ``runtime`` holds sockets."""

    state: Path
    runtime: Path

    @property
    def pidfile(self) -> Path:
        """QEMU's own, locked by it for life."""
        return self.state / "qemu.pid"

    @property
    def launch_note(self) -> Path:
        """Written by the launcher's child before it becomes QEMU."""
        return self.state / "launch.json"

    @property
    def adoption_note(self) -> Path:
        """The launch note of a QEMU that somebody else started, again."""
        return self.runtime / "adopted.json"

    @property
    def exit_note(self) -> Path:
        """Written by the launcher when QEMU has ended."""
        return self.state / "exit.json"

    @property
    def log(self) -> Path:
        """What QEMU said on stdout and stderr, bounded."""
        return self.state / "qemu.log"

    @property
    def serial_log(self) -> Path:
        """What the guest wrote on its serial console."""
        return self.state / "serial.log"

    @property
    def nvram(self) -> Path:
        """The guest's own UEFI variables."""
        return self.state / "nvram.fd"

    @property
    def sockets(self) -> tuple[Path, ...]:
        """The sockets QEMU makes."""
        return tuple(self.runtime / name for name in ("qmp", "observer", "console"))


class Places:
    """All guests' directories below the node's state and runtime directories."""

    def __init__(self, *, state_dir: Path, runtime_dir: Path) -> None:
        self.state_dir = state_dir
        self.runtime_dir = runtime_dir

    def of(self, guest: str) -> GuestPlace:
        """The guest's directories, there or not.

        Raises:
            ValueError: ``guest`` is not a plain name, and would lead elsewhere.
        """
        if not guest or guest.startswith(".") or "/" in guest or "\0" in guest:
            raise ValueError(f"{guest!r} is not a guest's key")
        return GuestPlace(state=self.state_dir / "guests" / guest, runtime=self.runtime_dir / guest)

    def guests(self) -> tuple[str, ...]:
        """Keys of all guests that have a state directory, sorted."""
        try:
            with os.scandir(self.state_dir / "guests") as entries:
                return tuple(sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False)))
        except FileNotFoundError:
            return ()

    def make(self) -> None:
        """Makes the node's directories; QEMU's uid may pass through them and list nothing.

        Raises:
            Refused: RuntimeDirTooLong.
        """
        longest = len(os.fsencode(self.runtime_dir)) + len("//observer") + _GUEST_KEY_LENGTH
        if longest > _SOCKET_PATH_LIMIT:
            room = _SOCKET_PATH_LIMIT - longest + len(os.fsencode(self.runtime_dir))
            raise Refused(
                "RuntimeDirTooLong",
                f"runtimeDir {self.runtime_dir} is too long for the sockets in it: give one of at most {room} bytes",
            )
        for directory in (self.state_dir, self.state_dir / "guests", self.runtime_dir):
            make_directory(directory, mode=0o711)

    def remove(self, guest: str) -> None:
        """Removes both directories of a guest; absent is fine."""
        place = self.of(guest)
        for directory in (place.runtime, place.state):
            if directory.is_dir():
                shutil.rmtree(directory)


def make_directory(directory: Path, *, mode: int) -> None:
    """Makes a directory and its parents, and sets its mode whatever the umask."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(mode)

"""A QEMU that somebody else started becomes a guest's: found by its process, spoken to over a link to its own socket.

It must never change anything of that QEMU's own: neither its socket, nor its files, nor their rights. Idempotent, and
blocking: call it from a thread.
"""

import json
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.host import process
from guestlet.host.facts import ProcessIdentity
from guestlet.host.files import remove_if_there, write_atomically
from guestlet.host.places import GuestPlace, make_directory


def take_in(place: GuestPlace, identity: ProcessIdentity, *, monitor: Path, observer: Path | None) -> None:
    """Makes the guest's directories, links its monitors, and notes the process as the guest's QEMU.

    ``monitor`` is the QEMU's own QMP socket, ``observer`` a second one if it has one. The note comes last: a QEMU that
    is found can be spoken to. It is kept twice, as nothing of a foreign QEMU's own (its pidfile, its uuid) leads to
    the guest when the state directory is lost; and where it is kept, QEMU's user may not write.

    Raises:
        Refused: QemuExited, the process is gone.
    """
    if not process.is_alive(identity):
        raise Refused(Reason.QEMU_EXITED, f"process {identity.pid} is gone")
    make_directory(place.state, mode=0o711)
    make_directory(place.runtime, mode=0o700)
    for name, socket in (("qmp", monitor), ("observer", observer)):
        if socket is None:
            remove_if_there(place.runtime / name)
        else:
            _link(place.runtime / name, socket)
    note = {
        "pid": identity.pid,
        "startTicks": identity.start_ticks,
        "bootId": process.boot_id(),
        "foreign": True,
    }
    data = json.dumps(note).encode()
    write_atomically(place.adoption_note, data, durable=False)
    write_atomically(place.launch_note, data)


def _link(link: Path, target: Path) -> None:
    """As a whole: at no moment there is no link, nor a half one."""
    fresh = link.with_name(f".{link.name}.new")
    remove_if_there(fresh)
    fresh.symlink_to(target.absolute())
    fresh.replace(link)

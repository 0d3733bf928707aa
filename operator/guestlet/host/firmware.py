"""UEFI images of the node, and each guest's own copy of the variables. Blocking: call it from a thread.

It must never write to a firmware image, nor replace variables that a guest has already.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.host import access
from guestlet.host.files import write_atomically

# Debian's, Fedora's and Arch's names for a code image without Secure Boot, the larger flash first.
DEFAULT_CODE_IMAGES = ("OVMF_CODE_4M.fd", "OVMF_CODE.4m.fd", "OVMF_CODE.fd")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~@-]{0,127}")


class Firmware:
    """The node's firmware directories, searched in order."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = tuple(directories)

    def code(self, image: str) -> Path | None:
        """Path of a UEFI code image that has its variables' template beside it, or ``None``."""
        if _NAME.fullmatch(image) is None:
            return None
        for directory in self._directories:
            path = directory / image
            if path.is_file() and variables_of(path) is not None:
                return path
        return None

    def default(self) -> str | None:
        """Name of the code image for new guests; ``None`` when the node has none."""
        return next((name for name in DEFAULT_CODE_IMAGES if self.code(name) is not None), None)

    def give_variables(self, image: str, nvram: Path, *, user: access.QemuUser | None) -> None:
        """Makes the guest's copy of the variables, once; an existing one is only made QEMU's.

        Raises:
            Refused: FirmwareMissing.
        """
        code = self.code(image)
        template = variables_of(code) if code is not None else None
        if code is None or template is None:
            where = ", ".join(map(str, self._directories))
            raise Refused(Reason.FIRMWARE_MISSING, f"no UEFI firmware {image} in {where}: install ovmf on the node")
        if not nvram.exists():
            write_atomically(nvram, template.read_bytes())
        fd = os.open(nvram, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            access.make_own(fd, user)
        finally:
            os.close(fd)


def variables_of(code: Path) -> Path | None:
    """The template of variables that belongs to a code image: the same name with VARS for CODE.

    Debian's ``.ms`` and ``.snakeoil`` code images have templates of their own (keys enrolled), ``.secboot`` has not.
    """
    if "CODE" not in code.name:
        return None
    own = code.name.replace("CODE", "VARS")
    candidates = (code.with_name(own), code.with_name(own.replace(".secboot", "")))
    return next((each for each in candidates if each.is_file()), None)

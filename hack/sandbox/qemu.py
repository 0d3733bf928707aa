"""QEMU for the sandbox: the system's own (installed when missing), and further versions unpacked beside it.

It must never change the system beyond installing the distribution's packages, and no part of guestlet may decide on
the versions named here: they choose which build is tested, nothing else.
Only the standard library is used here, so that QEMU can be had before any environment is installed.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox.assets import cache_directory
from sandbox.debian import cache_entry, install_packages, open_archive
from sandbox.errors import SandboxError

MINIMUM = (7, 2)
_PROGRAM = "qemu-system-x86_64"
_SYSTEM_PACKAGES = ("qemu-system-x86", "qemu-utils", "ovmf")
# The libraries that the programs link are those of the system, but every module must be of their own version, wanted
# or not: one that is not in our folder is taken from the system's folder, and QEMU aborts on the second such
# (measured with 10.0.2 beside 7.2.22: `qom-list-types` loads all modules). One without its libraries is only skipped.
_UNPACKED_PACKAGES = (
    "qemu-system-x86",
    "qemu-system-common",
    "qemu-system-data",
    "qemu-system-gui",
    "qemu-system-modules-opengl",
    "qemu-system-modules-spice",
    "qemu-utils",
    "qemu-block-extra",
    "seabios",
    "ipxe-qemu",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuBuild:
    """One QEMU on this machine: its programs, and what must be told so that they find their parts.

    ``binary`` is the real program, never a wrapper: capabilities are cached by its size and time, and a guest's
    process is compared with it. ``module_dir`` goes into ``QEMU_MODULE_DIR`` of the environment, each of
    ``data_dirs`` into an ``-L``; both are empty for the system's own.
    """

    binary: Path
    img: Path
    module_dir: Path | None
    data_dirs: tuple[Path, ...]

    def environment(self) -> dict[str, str]:
        """What both programs need in their environment."""
        return {"QEMU_MODULE_DIR": str(self.module_dir)} if self.module_dir else {}

    def options(self) -> tuple[str, ...]:
        """What the emulator needs at the beginning of its command line."""
        return tuple(option for folder in self.data_dirs for option in ("-L", str(folder)))


def read_version(build: QemuBuild) -> tuple[int, ...]:
    """The version that a build tells of itself, as numbers.

    Raises: SandboxError when it does not run or tells none.
    """
    try:
        reply = subprocess.run(
            [build.binary, "--version"],
            env={**os.environ, **build.environment()},
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxError(f"{build.binary} does not run: {error}") from error
    match = re.search(r"version (\d+(?:\.\d+)+)", reply)
    if match is None:
        raise SandboxError(f"{build.binary} --version tells no version: {reply[:200]!r}")
    return tuple(int(part) for part in match[1].split("."))


def find_system_qemu() -> QemuBuild | None:
    """The QEMU in PATH with qemu-img and UEFI firmware beside it, if it is new enough."""
    binary, img = shutil.which(_PROGRAM), shutil.which("qemu-img")
    if binary is None or img is None or not any(Path("/usr/share/OVMF").glob("OVMF_CODE*.fd")):
        return None
    build = QemuBuild(binary=Path(binary).resolve(), img=Path(img).resolve(), module_dir=None, data_dirs=())
    return build if read_version(build) >= MINIMUM else None


def ensure_system_qemu(say: Callable[[str], None] = print) -> QemuBuild:
    """The system's QEMU, installed from the distribution when there is none that is new enough.

    Raises: SandboxError that names the command to run, when this user may not install it.
    """
    found = find_system_qemu()
    if found is None:
        install_packages(_SYSTEM_PACKAGES, say)
        found = find_system_qemu()
    if found is None:
        raise SandboxError(f"the distribution has no QEMU of version {_dotted(MINIMUM)} or later")
    return found


def ensure_qemu(major: int, say: Callable[[str], None] = print) -> QemuBuild:
    """A QEMU of the major version: the system's own, else one unpacked from the release's backports into the cache.

    Raises: SandboxError when the backports have another version, or cannot be reached.
    """
    system = find_system_qemu()
    if system is not None and read_version(system)[0] == major:
        return system
    folder = cache_directory() / "qemu"
    unpacked = sorted(
        (entry for entry in folder.glob(f"{major}.*") if re.fullmatch(r"[\d.]+", entry.name)),
        key=lambda entry: tuple(int(part) for part in entry.name.split(".")),
    )
    return build_in(unpacked[-1]) if unpacked else _unpack(major, folder, say)


def build_in(folder: Path) -> QemuBuild:
    """The build that lies unpacked in a folder."""
    modules = next(iter(sorted((folder / "usr/lib").glob("*-linux-gnu/qemu"))), None)
    return QemuBuild(
        binary=folder / "usr/bin" / _PROGRAM,
        img=folder / "usr/bin/qemu-img",
        module_dir=modules,
        data_dirs=(folder / "usr/share/qemu", folder / "usr/share/seabios", folder / "usr/lib/ipxe/qemu"),
    )


def link_build(build: QemuBuild, into: Path) -> QemuBuild:
    """The same build under a folder that others may enter: a cache in root's home is closed to the uid of guests.

    Hard links where the file system allows them; the system's own build needs none and is given back as it is.

    Raises: OSError when the folder cannot be written.
    """
    if build.module_dir is None:
        return build
    source = build.binary.parents[2]
    entry = into / source.name
    if not entry.exists():
        with cache_entry(entry) as partial:
            if partial is not None:
                shutil.copytree(source, partial, symlinks=True, copy_function=_link, dirs_exist_ok=True)
    return build_in(entry)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _unpack(major: int, folder: Path, say: Callable[[str], None]) -> QemuBuild:
    say(f"fetching QEMU {major} (20 MB, about 10 s)")
    started = time.monotonic()
    with open_archive("-backports") as archive:
        # An epoch before the version, Debian's revision after it: 1:10.0.2+ds-2~bpo12+1
        version = re.sub(r"^\d+:|[+~-].*$", "", archive.newest("qemu-system-x86"))
        if version.split(".")[0] != str(major):
            raise SandboxError(f"{archive.release} has QEMU {version}, not {major}")
        entry = folder / version
        with cache_entry(entry, say) as partial:
            if partial is not None:
                archive.unpack(_UNPACKED_PACKAGES, partial)
                # A missing library shows here and not in the first guest.
                read_version(build_in(partial))
    say(f"unpacked QEMU {version} in {time.monotonic() - started:.0f} s")
    return build_in(entry)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)

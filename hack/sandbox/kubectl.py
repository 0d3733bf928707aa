"""kubectl as the sandbox and the end-to-end tests call it: the real program, one cluster, every call with a deadline.

It must never read the caller's own kubeconfig or environment: the wrong cluster would be somebody's real one.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml

from sandbox.errors import SandboxError

Object = Mapping[str, object]
_FORWARDED = ("HOME", "LANG", "PATH", "TMPDIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call of kubectl ended."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """kubectl for one cluster and, by its kubeconfig, one user."""

    program: Path
    kubeconfig: Path

    def attempt(self, *arguments: str, stdin: str = "", timeout_s: float = 60) -> Outcome:
        """Runs kubectl and tells how it ended, whatever it says.

        Raises:
            SandboxError: it did not end in time, or there is no such program.
        """
        try:
            run = subprocess.run(
                self.command(*arguments),
                input=stdin,
                env=self.environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SandboxError(f"kubectl {' '.join(arguments)}: {error}") from error
        return Outcome(code=run.returncode, output=run.stdout, errors=run.stderr)

    def __call__(self, *arguments: str, stdin: str = "", timeout_s: float = 60) -> str:
        """Runs kubectl and gives what it prints.

        Raises:
            SandboxError: it failed; the message is kubectl's own.
        """
        outcome = self.attempt(*arguments, stdin=stdin, timeout_s=timeout_s)
        if outcome.code != 0:
            raise SandboxError(f"kubectl {' '.join(arguments)}: {outcome.errors.strip() or outcome.output.strip()}")
        return outcome.output

    def command(self, *arguments: str) -> tuple[str, ...]:
        """The command line for a call."""
        return (str(self.program), f"--kubeconfig={self.kubeconfig}", *arguments)

    def environment(self) -> dict[str, str]:
        """The few variables that kubectl needs."""
        return {name: value for name, value in os.environ.items() if name in _FORWARDED}

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Object | None:
        """The object, or ``None`` when the server has none of that name."""
        where = ("--namespace", namespace) if namespace else ()
        outcome = self.attempt("get", kind, name, *where, "--output=json")
        if outcome.code == 0:
            return cast(Object, json.loads(outcome.output))
        if "(NotFound)" in outcome.errors:
            return None
        raise SandboxError(f"kubectl get {kind} {name}: {outcome.errors.strip()}")

    def list(self, kind: str, *options: str) -> tuple[Object, ...]:
        """The objects of a kind that the options select."""
        answer = json.loads(self("get", kind, *options, "--output=json"))
        return tuple(cast(Sequence[Object], answer["items"]))

    def apply(self, *objects: Object, timeout_s: float = 60) -> None:
        """Applies objects as a user would."""
        self("apply", "--filename=-", stdin=yaml.safe_dump_all(objects, sort_keys=False), timeout_s=timeout_s)

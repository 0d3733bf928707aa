"""The shape of the repository: its top level, its rooms, and what no committed file may hold."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from style.sources import PACKAGE, REPOSITORY, repository_files, sources, text_files

TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "operator", "crds", "manifests", "tests", "hack"}
# Folders in which anybody's checkout may lie: their names say nothing about a machine.
ORDINARY_PLACES = {"/", "/home", "/opt", "/root", "/srv", "/tmp", "/usr/src", "/var/tmp", "/workspace"}
MARKS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")


def test_the_top_level_is_the_agreed_one() -> None:
    top = {path.relative_to(REPOSITORY).parts[0] for path in repository_files()}

    assert {name for name in top if not name.startswith(".")} == TOP_LEVEL


def test_the_source_root_holds_one_package_and_the_map() -> None:
    inside = {path.relative_to(REPOSITORY / "operator").parts[0] for path in repository_files() if under_operator(path)}

    assert inside == {"guestlet", "ARCHITECTURE.md"}


def under_operator(path: Path) -> bool:
    return path.is_relative_to(REPOSITORY / "operator")


@pytest.mark.parametrize("start", ["-c", "-Pc"])
def test_the_standard_operator_module_is_not_shadowed(start: str) -> None:
    code = "import operator; print(operator.itemgetter(1)('ab'), operator.__file__)"
    run = subprocess.run(
        [sys.executable, start, code], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=30
    )

    assert run.stdout.startswith("b "), run.stderr
    assert not Path(run.stdout.split()[1]).is_relative_to(REPOSITORY / "operator")


def test_tests_are_no_packages_and_none_is_called_operator() -> None:
    names = [source.path for source in sources() if source.path.is_relative_to(REPOSITORY / "tests")]

    assert [
        path for path in names if path.name == "__init__.py" or "operator" in path.relative_to(REPOSITORY).parts
    ] == []


def test_the_map_names_every_room_and_no_other() -> None:
    text = (REPOSITORY / "operator" / "ARCHITECTURE.md").read_text()
    rooms = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}

    assert {room for room in rooms if not re.search(rf"\b{room}/", text)} == set()
    assert {module for module in modules if module not in text} == set()


def test_no_mark_of_unfinished_work_is_left() -> None:
    marked = [f"{name}:{number}" for name, number, line in lines() if MARKS.search(line)]

    assert marked == []


def test_no_file_names_a_place_of_this_machine_or_a_registry() -> None:
    places = {str(REPOSITORY), str(REPOSITORY.parent), str(Path.home())} - ORDINARY_PLACES
    named = re.compile("|".join(rf"{re.escape(word)}(?![\w-])" for word in sorted(places | registry_hosts())))
    leaks = [f"{name}:{number} {line.strip()[:100]}" for name, number, line in lines() if named.search(line)]

    assert leaks == []


def test_every_shell_script_parses() -> None:
    scripts = [name for name, text in text_files() if text.startswith(("#!/usr/bin/env bash", "#!/bin/bash"))]
    broken = {name: error for name in scripts if (error := bash_error(name))}

    assert scripts
    assert broken == {}


def bash_error(name: str) -> str:
    parsed = subprocess.run(["bash", "-n", REPOSITORY / name], capture_output=True, text=True, check=False, timeout=30)
    return parsed.stderr


def test_every_command_may_be_executed() -> None:
    scripts = [name for name, text in text_files() if text.startswith("#!")]

    assert [name for name in scripts if not os.access(REPOSITORY / name, os.X_OK)] == []


def lines() -> list[tuple[str, int, str]]:
    return [
        (name, number, line) for name, text in text_files() for number, line in enumerate(text.splitlines(), start=1)
    ]


def registry_hosts() -> set[str]:
    """Where this machine gets its packages from: no business of the repository."""
    apt = (path for path in Path("/etc/apt").rglob("*") if path.suffix in {".list", ".sources"} and path.is_file())
    texts = [path.read_text(errors="replace") for path in apt]
    texts += [said(sys.executable, "-m", "pip", "config", "list"), os.environ.get("GOPROXY", "")]
    return set(re.findall(r"https?://(?:[^/\s,|@]+@)?([^/\s,|:'\"]+)", "\n".join(texts))) - {"localhost", "127.0.0.1"}


def said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30).stdout

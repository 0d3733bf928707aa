"""The files of the repository as the style tests see them: what git has or would have, nothing that it ignores."""

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "operator" / "guestlet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A Python file, parsed once for all tests."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return str(self.path.relative_to(REPOSITORY))

    def at(self, node: ast.stmt | ast.expr) -> str:
        return f"{self.name}:{node.lineno}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function and its length in lines, docstring and decorators not counted."""

    where: str
    lines: int


@cache
def repository_files() -> tuple[Path, ...]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return tuple(
        sorted(path for name in set(listed.stdout.split("\0")) - {""} if (path := REPOSITORY / name).is_file())
    )


@cache
def text_files() -> tuple[tuple[str, str], ...]:
    texts = []
    for path in repository_files():
        try:
            texts.append((str(path.relative_to(REPOSITORY)), path.read_text()))
        except UnicodeDecodeError:
            continue
    return tuple(texts)


@cache
def sources() -> tuple[Source, ...]:
    found = []
    for path in repository_files():
        if path.suffix == ".py":
            text = path.read_text()
            found.append(Source(path=path, text=text, tree=ast.parse(text)))
    return tuple(found)


def package_sources() -> tuple[Source, ...]:
    return tuple(source for source in sources() if source.path.is_relative_to(PACKAGE))


def functions(source: Source) -> tuple[Function, ...]:
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{source.at(node)} {node.name}"
            found.append(Function(where=where, lines=_length(node) - _docstring_length(node)))
    return tuple(found)


def _length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _docstring_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return _length(node.body[0]) if ast.get_docstring(node, clean=False) is not None else 0

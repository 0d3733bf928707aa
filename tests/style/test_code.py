"""Habits of the code that ruff, mypy and import-linter do not know (style.md, rows 4, 5, 8, 9, 11 and 19)."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from guestlet.api.reasons import Reason
from style.sources import Source, package_sources, sources

VALUE_OPTIONS = {"frozen", "slots", "kw_only"}
MUTABLE = {"list", "dict", "set", "bytearray", "List", "Dict", "Set"}
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}
# The errors that end as the reason of a condition, and the rooms in which they can.
ERRORS = {"Refused", "NotNow"}
ROOMS = ("operator/guestlet/guest/", "operator/guestlet/host/", "operator/guestlet/placement/")
SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|mypy:|ruff:|pragma:)", re.IGNORECASE)
JUSTIFIED = re.compile(r"#\s*(noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*|type: ignore\[[a-z-]+(, ?[a-z-]+)*\])\W+\w+.*\w+")


def dataclass_options(node: ast.ClassDef) -> set[str] | None:
    """The options that are on; ``None`` when the class is no dataclass."""
    for decorator in node.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        if ast.unparse(call) in {"dataclass", "dataclasses.dataclass"}:
            keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
            return {word.arg for word in keywords if word.arg and ast.unparse(word.value) == "True"}
    return None


def dataclasses_of(source: Source) -> Iterator[tuple[ast.ClassDef, set[str]]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and (options := dataclass_options(node)) is not None:
            yield node, options


def imported_modules(source: Source) -> set[str]:
    names = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_dataclasses_are_frozen_slotted_and_keyword_only() -> None:
    loose = [
        f"{source.at(node)} {node.name}: {', '.join(sorted(VALUE_OPTIONS - options))}"
        for source in sources()
        for node, options in dataclasses_of(source)
        if not options >= VALUE_OPTIONS
    ]

    assert loose == []


def test_values_hold_tuples_and_mappings_not_lists_and_dictionaries() -> None:
    mutable = [
        f"{source.at(field)} {node.name}.{ast.unparse(field.target)}"
        for source in package_sources()
        for node, _ in dataclasses_of(source)
        for field in node.body
        if isinstance(field, ast.AnnAssign)
        and {name.id for name in ast.walk(field.annotation) if isinstance(name, ast.Name)} & MUTABLE
    ]

    assert mutable == []


def test_pydantic_stays_in_the_api_and_the_settings() -> None:
    allowed = ("operator/guestlet/api/", "operator/guestlet/settings.py")
    strays = [
        source.name
        for source in package_sources()
        if imported_modules(source) & {"pydantic", "pydantic_settings"} and not source.name.startswith(allowed)
    ]

    assert strays == []


def test_untyped_values_stay_at_the_border() -> None:
    allowed = ("operator/guestlet/api/", "operator/guestlet/kube/", "operator/guestlet/qemu/replies.py")
    strays = [
        source.at(node)
        for source in package_sources()
        if not source.name.startswith(allowed)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Name) and node.id == "Any"
    ]

    assert strays == []


def test_every_module_says_its_duty() -> None:
    silent = [
        source.name
        for source in sources()
        if source.text.strip() and not source.name.startswith("tests/") and ast.get_docstring(source.tree) is None
    ]

    assert silent == []


def test_no_module_has_an_empty_name() -> None:
    empty = [
        source.name
        for source in sources()
        if EMPTY_NAMES & {source.path.stem.lower(), *(part.lower() for part in source.path.parent.parts)}
    ]

    assert empty == []


def test_suppressions_carry_a_code_and_a_reason() -> None:
    bare = [
        f"{source.name}:{token.start[0]} {token.string}"
        for source in sources()
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline)
        if token.type == tokenize.COMMENT and SUPPRESSION.search(token.string) and not JUSTIFIED.search(token.string)
    ]

    assert bare == []


def raised_reasons(source: Source) -> Iterator[tuple[ast.expr, str]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ERRORS and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first, first.value


def test_every_reason_of_a_condition_is_a_documented_one() -> None:
    known = {reason.value for reason in Reason}
    unknown = [
        f"{source.at(node)} {reason}"
        for source in package_sources()
        if source.name.startswith(ROOMS)
        for node, reason in raised_reasons(source)
        if reason not in known
    ]

    assert unknown == []

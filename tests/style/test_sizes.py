"""Sizes: the tail decides, so there is a hard limit for each and a habit for nearly all (style.md, row 1)."""

import pytest

from style.sources import Source, functions, sources

HARD_FUNCTION_LINES, HABIT_FUNCTION_LINES = 60, 40
HARD_FILE_LINES, HABIT_FILE_LINES, TEST_FILE_LINES = 500, 400, 600
TAIL = 0.05


def is_test(source: Source) -> bool:
    return source.name.startswith("tests/")


def test_no_function_is_longer_than_the_hard_limit() -> None:
    long = [(f.lines, f.where) for source in sources() for f in functions(source) if f.lines > HARD_FUNCTION_LINES]

    assert sorted(long, reverse=True) == []


def test_nearly_all_functions_keep_to_the_habit() -> None:
    every = [f for source in sources() if not is_test(source) for f in functions(source)]
    long = sorted(((f.lines, f.where) for f in every if f.lines > HABIT_FUNCTION_LINES), reverse=True)

    assert len(long) <= TAIL * len(every), long


@pytest.mark.parametrize(("tests", "limit"), [(False, HARD_FILE_LINES), (True, TEST_FILE_LINES)])
def test_no_file_is_longer_than_the_hard_limit(tests: bool, limit: int) -> None:
    sizes = ((source.text.count("\n"), source.name) for source in sources() if is_test(source) == tests)

    assert sorted((size for size in sizes if size[0] > limit), reverse=True) == []


def test_nearly_all_files_keep_to_the_habit() -> None:
    every = [source for source in sources() if not is_test(source)]
    long = [source.name for source in every if source.text.count("\n") > HABIT_FILE_LINES]

    assert len(long) <= TAIL * len(every), long

"""No sentence of the manuals without a test, and no test without a sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "manuals.rst"

NUMBERS = [
    *(f"LUV-{number}" for number in (*range(1, 35), 36)),
    *(f"MON-{number}" for number in (*range(1, 7), *range(13, 21))),
    *(f"EVO-{number}" for number in range(1, 13)),
    *(f"LUNE-{number}" for number in (*range(1, 6), *range(12, 17), 19)),
    *(f"LUAS-{number}" for number in (1, 2, 3, 6, 7, 12, 13, 15, 16, 21, 22, 27, *range(33, 37), 43, 45, 47)),
    *(f"LUAS-{number}" for number in (51, 52, 57, 59)),
]


def _rows() -> Iterator[list[str]]:
    """The rows of the page's tables: number, the manual's, ours, tests."""
    tables, _, _ = PAGE.read_text().partition("\nDeviations\n")
    for row in re.split(r"(?m)^   \* - ", tables)[1:]:
        cells = re.split(r"(?m)^     - ", row.split("\n\n")[0])
        if cells[0].strip() != "Number":
            yield [cell.strip() for cell in cells]


def _marked() -> dict[str, set[str]]:
    """For each number the tests that are marked with it."""
    found: dict[str, set[str]] = {}
    for path in HERE.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in node.decorator_list:
                    match = re.fullmatch(r"pytest\.mark\.manual\('(.*)'\)", ast.unparse(decorator))
                    if match is not None:
                        found.setdefault(match[1], set()).add(f"{path.name}::{node.name}")
    return found


def test_everyNumberStandsInTheTable() -> None:
    assert [number for number, *_ in _rows()] == NUMBERS


def test_everyRowIsWhole() -> None:
    for number, *cells in _rows():
        assert len(cells) == 3, number
        assert all(cells), number


def test_everyNumberHasTheTestsThatTheTableNames() -> None:
    marked = _marked()
    for number, *_, tests in _rows():
        assert set(re.findall(r"``(test_\w+\.py::\w+)``", tests)) == marked.get(number), number


def test_everyMarkStandsInTheTable() -> None:
    assert sorted(set(_marked()) - {number for number, *_ in _rows()}) == []


def test_everyDeviationIsOneOfASentence() -> None:
    _, _, deviations = PAGE.read_text().partition("\nDeviations\n")
    named = re.findall(r"(?m)^((?:[A-Z]{3,4}-\d+(?:, )?)+)$", deviations)
    assert named
    for numbers in named:
        assert set(numbers.split(", ")) <= set(NUMBERS)

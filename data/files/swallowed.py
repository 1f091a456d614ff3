"""Records that a wrong quotation mark has swallowed: lines inside one quoted field that are records themselves.

A mark that is opened and not closed runs on to the next one, and every record between becomes text of one field, by the
letter of the format. A line break inside a quoted field is common, so what is inside must be looked at: a line with as
many separators as a record has is a *candidate*, and it is a record if its other fields hold what their columns hold
elsewhere: a value that repeats (a label, a split), or a value of a usual shape (an id, a date). A line of a poem with
two commas passes neither. Costs nothing for fields without line breaks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

_SHAPES = 20
"""A column with at most so many shapes of values (digits as 9, words as a) has a usual shape."""


@dataclass(frozen=True)
class Candidate:
    """A record (its 0-based place among all) with lines inside a field that may be records.

    `rows`: per such line its cells, (column, text) each; `whole`: whether they are complete lines of the file.
    """

    place: int
    rows: tuple[tuple[tuple[int, str], ...], ...]
    whole: bool


def candidate(place: int, record: Sequence[str], separator: str) -> Candidate | None:
    """Return the lines inside `record`'s fields that have the separators of a record, or None."""
    width = len(record)
    for column, value in enumerate(record):
        if "\n" not in value or width < 2:
            continue
        first, *inner, last = value.split("\n")
        whole = [tuple(enumerate(line.split(separator))) for line in inner if line.count(separator) == width - 1]
        if whole:
            return Candidate(place, tuple(whole), True)
        if first.count(separator) == width - 1 - column and last.count(separator) == column:
            before = tuple(enumerate(first.split(separator)[1:], start=column + 1))
            after = tuple(enumerate(last.split(separator)[:-1]))
            return Candidate(place, tuple(cells for cells in (before, after) if cells), False)
    return None


def first_swallowing(candidates: Sequence[Candidate], columns: pl.DataFrame) -> Candidate | None:
    """Return the first of `candidates` whose lines are records by what `columns`, all records, hold; or None."""
    usual: dict[int, Callable[[str], bool | None]] = {}
    for one in candidates:
        for row in one.rows:
            known = unknown = 0
            for column, cell in row:
                if column not in usual:
                    usual[column] = _usual(columns.to_series(column))
                verdict = usual[column](cell.rstrip("\r"))
                known, unknown = known + (verdict is True), unknown + (verdict is False)
            if known and known >= unknown:
                return one
            if not known and not unknown and one.whole and (columns.width > 2 or len(one.rows) > 1):
                return one  # nothing speaks against it
    return None


def _usual(column: pl.Series) -> Callable[[str], bool | None]:
    """Return what says whether a column may hold a cell: a repeated value, else one of a usual shape; None: unsure."""
    column = column.drop_nulls()
    plain = column.filter(~column.str.contains("\n", literal=True) & (column != ""))
    counts = plain.value_counts()
    repeated = counts.filter(pl.col("count") > 1)
    if len(plain) and repeated.get_column("count").sum() >= len(plain) / 2:
        return frozenset(counts.get_column(plain.name)).__contains__
    shapes = frozenset(map(_shape, plain.head(2_000)))
    if 0 < len(shapes) <= min(_SHAPES, len(plain) / 2):
        return lambda cell: _shape(cell) in shapes
    return lambda cell: None


def _shape(value: str) -> str:
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", value))

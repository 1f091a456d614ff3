"""What every reader of a file gives: its records as columns of text, with the number of each.

Everything is text: a label ``01`` stays ``01``, and no guess about types turns a column of codes into numbers with
holes. A list is kept as the JSON text of itself. What was no text in the file is remembered per column (`kinds`), so
that a column of numbers is not taken for texts without a word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

Quotes = Literal["doubled", "backslash", "literal"]
"""How a quotation mark inside a field is written: ``""``, ``\\"``, or as it is, in files that quote nothing."""


KindName = Literal["number", "truth value", "list", "other"]
"""What a value is that is no text."""


@dataclass(frozen=True)
class FileFormat:
    """What a user says about how a file is written; None is found out from the file.

    `separator` is one character, its name (tab), or none for a file of lines. `header`: whether the first row of a CSV,
    TSV or Excel file holds column names.
    """

    separator: str | None = None
    quotes: Quotes | None = None
    encoding: str | None = None
    header: bool | None = None


@dataclass(frozen=True)
class Kind:
    """Values of a column that are no text: what they are, and the first of them with its record's number."""

    name: KindName
    number: int
    value: str


@dataclass(frozen=True)
class Records:
    """The records of one file.

    `frame`: columns of type String, null where a value is missing. `numbers`: per record the number that a reader of
    the file counts, from 1; blank lines count but are no records. `kinds`: per column the values that are no text.
    `notes`: what was found out about the file, one line each. `short`: numbers of records with fewer fields than the
    header has, whose other fields are null. `named`: whether the column names come from the file.
    """

    source: str
    frame: pl.DataFrame
    numbers: pl.Series
    kinds: Mapping[str, tuple[Kind, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    short: tuple[int, ...] = ()
    named: bool = True

    def kind_of(self, column: str, *allowed: str) -> Kind | None:
        """Return the first kind of value in `column` that is not in `allowed`, or None."""
        return next((kind for kind in self.kinds.get(column, ()) if kind.name not in allowed), None)


def unnamed(count: int) -> list[str]:
    """Return the names of `count` columns that have none: column1, column2, ..."""
    return [f"column{number}" for number in range(1, count + 1)]


def repeated(names: Sequence[str]) -> str | None:
    """Return the first name that stands twice, or None."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def is_unnamed(column: str) -> bool:
    """Whether `column` has such a name."""
    return bool(re.fullmatch(r"column\d+", column))


def mean(values: pl.Series) -> float:
    """Return the mean of numbers or truth values; 0 where there are none."""
    found = values.cast(pl.Float64).mean()
    return found if isinstance(found, float) else 0.0

"""What every reader of a file gives: its records as columns of text, with the number of each.

Everything is text: a label ``01`` stays ``01``, and no guess about types turns a column of codes into numbers with
holes. A list is kept as the JSON text of itself. What was no text in the file is remembered per column (`kinds`), so
that a column of numbers is not taken for texts without a word.

The first line of a file may hold the names of its columns or be a row already. It is a row if one of its cells is a
value that its column repeats: a name is not among the values it names. What a user says with --no-header, or names with
--text and --levels, is not doubted.

Titles, comments and ``sep=;`` above the names are no records: `lines_above` tells how many there are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import polars as pl

from data.errors import DataError, listed, quoted
from data.files.locate import suffix_of

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


def with_names(source: str, rows: pl.DataFrame, header: bool) -> pl.DataFrame:
    """Return the rows of a file under the names of its columns, which the first row holds if there is a `header`.

    :raises DataError: if a name stands twice.
    """
    names = unnamed(rows.width)
    if header:
        names = [(name or "").strip() or other for name, other in zip(rows.row(0), names, strict=True)]
        rows = rows[1:]
    if len(set(names)) < len(names):
        double, _ = Counter(names).most_common(1)[0]
        raise DataError(f"{source} has two columns {quoted(double)}", "rename or remove one")
    return rows.rename(dict(zip(rows.columns, names, strict=True)))


def spelled_as(columns: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return `names` as `columns` spell them: an accent may be a character of its own in one of the two."""
    known = {unicodedata.normalize("NFC", column): column for column in columns}
    return tuple(n if n in columns else known.get(unicodedata.normalize("NFC", n), n) for n in names)


def mean(values: pl.Series) -> float:
    """Return the mean of numbers or truth values; 0 where there are none."""
    found = values.cast(pl.Float64).mean()
    return found if isinstance(found, float) else 0.0


_MOST_ABOVE = 20
_COMMENTS = ("#", "%", "//")
_TABLES = {".csv", ".tsv", ".tab", ".psv", ".txt"}


def without_header(records: Records, meant: Sequence[str] = ()) -> Records:
    """Return `records`, with the first line as a row where it is one; a note says so. What is `meant` is a name."""
    names = [one for one in meant if one in records.frame.columns and not re.fullmatch(r"column\d+", one)]
    if names or not has_no_header(records):
        return records
    made = first_line_as_row(records)
    note = f"the first line is a row, not names: columns are {', '.join(made.frame.columns)} (--header: it holds names)"
    return replace(made, notes=(*made.notes, note))


def without_repeated_names(records: Records) -> Records:
    """Return `records` without rows that repeat the names of all columns, as files put together have; a note says so.

    They are names, and no values, where none of them stands in any other row.
    """
    names = records.frame.columns
    if not records.named or len(names) < 2:
        return records
    bare = [pl.col(name).str.strip_chars("\ufeff \t") == name.strip() for name in names]
    repeats = records.frame.select(pl.all_horizontal(bare).fill_null(False)).to_series()
    if not repeats.any() or records.frame.filter(~repeats).select(pl.any_horizontal(bare).any()).item():
        return records
    places = listed(records.numbers.filter(repeats).head(10), int(repeats.sum()))
    note = f"{records.source}, row {places}: the names of the columns once more, as of files put together; left out"
    return replace(
        records, frame=records.frame.filter(~repeats), numbers=records.numbers.filter(~repeats),
        notes=(*records.notes, note),
    )  # fmt: skip


def has_no_header(records: Records) -> bool:
    """Whether the names of the columns of a text file are values of them."""
    names = records.frame.columns
    if not records.named or suffix_of(records.source) not in _TABLES or not records.frame.height:
        return False
    numbered = names == [str(number) for number in range(len(names))]
    return not numbered and any(_is_value(records, name) for name in names)


def lines_above(records: Sequence[Sequence[str | None]]) -> int:
    """Return how many of the first records of a file stand above its names, as titles and comments do.

    All of them have one value at most, or start as a comment does; then comes a record with three values or more, all
    different (two under a comment), as wide as nine in ten of those below, none of which repeats one of its values.
    """
    filled = [[(value or "").strip() for value in record] for record in records]
    comments = [bool(one) and one[0].startswith(_COMMENTS) for one in filled]
    for above, names in enumerate(filled[: _MOST_ABOVE + 1]):
        values = [value for value in names if value]
        if len(values) < 2:
            continue
        if comments[above] and any(len(one) != len(names) for one in filled[above + 1 :]):
            continue
        if not above or len(set(values)) < len(values) or len(values) < (2 if any(comments[:above]) else 3):
            return 0
        below = [one for one in filled[above + 1 :] if any(one)]
        alike = sum(len(one) == len(names) for one in below)
        repeated = any(len(one) > i and value and one[i] == value for one in below for i, value in enumerate(names))
        return 0 if repeated or not below or alike < 0.9 * len(below) else above
    return 0


def first_line_as_row(records: Records, kept: str | None = None) -> Records:
    """Return `records` with the names of its columns as a row, but for the column `kept`, whose first value it has."""
    names = [name for name in records.frame.columns if name != kept]
    new = unnamed(len(names))
    frame = records.frame.rename(dict(zip(names, new, strict=True)))
    first = frame.head(1).with_columns(pl.lit(name).alias(one) for one, name in zip(new, names, strict=True))
    numbers = pl.concat([pl.Series([0], dtype=pl.Int64), records.numbers.cast(pl.Int64)]) + 1
    short = tuple(number + 1 for number in records.short)
    return replace(records, frame=pl.concat([first, frame]), numbers=numbers, short=short, named=False)


def _is_value(records: Records, name: str) -> bool:
    column = records.frame.get_column(name).drop_nulls()
    return len(column) > 1 and column.n_unique() <= len(column) / 2 and bool((column == name).any())

"""Whether the first line of a file holds the names of its columns or is a row already.

It is a row if one of its cells is a value that its column repeats: a name is not among the values it names. What a user
says with --no-header, or names with --text and --levels, is not doubted.

Titles, comments and ``sep=;`` above the names are no records: `lines_above` tells how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from data.files.locate import suffix_of
from data.files.records import Records, unnamed

_MOST_ABOVE = 20
_COMMENTS = ("#", "%", "//")
_TABLES = {".csv", ".tsv", ".tab", ".psv", ".txt"}


def without_header(records: Records) -> Records:
    """Return `records`, with the first line as a row where it is one; a note says so."""
    if not has_no_header(records):
        return records
    made = first_line_as_row(records)
    note = f"the first line is a row, not names: columns are {', '.join(made.frame.columns)} (--header: it holds names)"
    return replace(made, notes=(*made.notes, note))


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

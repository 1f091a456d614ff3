"""Whether the first line of a file holds the names of its columns or is a row already.

It is a row if one of its cells is a value that its column repeats: a name is not among the values it names. What a user
says with --no-header, or names with --text and --levels, is not doubted.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from data.files.locate import suffix_of
from data.files.records import Records, unnamed

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

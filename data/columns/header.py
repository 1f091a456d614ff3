"""Whether the first line of a file holds the names of its columns or is a row already.

It is a row if one of its cells is a value that its column repeats: a name is not among the values it names. What a user
says with --no-header, or names with --text and --levels, is not doubted.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from data.description import Description
from data.files.locate import suffix_of
from data.files.records import Records, unnamed

_TABLES = {".csv", ".tsv", ".tab", ".psv", ".txt"}


def without_header(records: Records, known: Description) -> Records:
    """Return `records`, with the first line as a row where it is one; a note says so."""
    names = records.frame.columns
    said = known.header is not None or known.levels or known.text or known.code
    if said or not records.named or suffix_of(records.source) not in _TABLES or not records.frame.height:
        return records
    if names == [str(number) for number in range(len(names))] or not any(_is_value(records, name) for name in names):
        return records
    new = unnamed(len(names))
    first = pl.DataFrame({one: [name] for one, name in zip(new, names, strict=True)})
    frame = pl.concat([first, records.frame.rename(dict(zip(names, new, strict=True)))])
    numbers = pl.concat([pl.Series([0], dtype=pl.Int64), records.numbers.cast(pl.Int64)]) + 1
    note = f"the first line is a row, not names: columns are {', '.join(new)} (--header: it holds names)"
    short = tuple(number + 1 for number in records.short)
    return replace(records, frame=frame, numbers=numbers, notes=(*records.notes, note), short=short, named=False)


def _is_value(records: Records, name: str) -> bool:
    column = records.frame.get_column(name).drop_nulls()
    return len(column) > 1 and column.n_unique() <= len(column) / 2 and bool((column == name).any())

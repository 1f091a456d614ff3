"""A user's own file into rows to be checked: which columns are levels, labels made unique, splits made if missing.

Levels are the columns ``level0``, ``level1``, ... or those that are named, coarsest first; nothing else is guessed from
the columns, because a wrong guess at a hierarchy would be believed by every later figure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from data.checks import Rows, level_fault
from data.errors import DataError, counted, listed, quoted
from data.files.locate import stem
from data.files.read import Opened, Role, missing_columns, open_source, other_separator
from data.hierarchy import qualified
from data.splits import assign_splits, read_splits

_LEVEL = re.compile(r"level(\d+)")


def read_table(
    source: str,
    levels: Sequence[str] | None = None,
    text: str = "text",
    *,
    qualify_labels: bool = False,
    drop_incomplete: bool = False,
) -> Rows:
    """Return the rows of `source` with columns text, the levels and split, yet to be checked.

    `levels`: the columns of labels, coarsest first; None takes ``level0``, ``level1``, ... Labels of white space alone
    count as missing. `drop_incomplete` leaves out rows that lack a label, `qualify_labels` renames labels parent/label.
    Without a column ``split``, splits are made (see `data.splits`).

    :raises DataError: if the source cannot be read or lacks a column.
    """
    opened = open_source(source)
    names = tuple(levels) if levels is not None else _numbered_levels(source, opened)
    if text in (*names, "split"):
        raise DataError(f"{source}: column {text} is named for two things", "name each column once")
    if fault := level_fault(source, names) or missing_columns(source, opened, [text, *names]):
        raise fault
    has_split = "split" in opened.columns
    roles: dict[str, Role] = {text: "text", **dict.fromkeys(names, "label")}
    if has_split:
        roles["split"] = "split"
    frame = opened.read(roles).rename({text: "text"})
    frame = frame.with_columns(_blank_as_missing(name) for name in names)
    frame, numbers, notes = _complete(frame, names, opened.numbers) if drop_incomplete else (frame, opened.numbers, ())
    if qualify_labels:
        frame = qualified(frame, names)
    if has_split:
        frame = frame.with_columns(read_splits(frame.get_column("split")))
    else:
        made = assign_splits(value or "" for value in frame.get_column("text"))
        frame = frame.with_columns(pl.Series("split", made, dtype=pl.String))
        notes += ("no column split: 80/10/10 by a seeded hash of each text",)
    return Rows(stem(source), frame, names, source, numbers, made_splits=not has_split, notes=notes)


def read_texts(source: str, text: str = "text") -> list[str]:
    """Return the texts of `source` alone, whatever other columns it has, in its order.

    :raises DataError: if it cannot be read, lacks the column, has no rows, or a text is empty.
    """
    opened = open_source(source)
    if fault := missing_columns(source, opened, [text]):
        raise fault
    column = opened.read({text: "text"}).get_column(text)
    empty = (column.str.strip_chars().fill_null("") == "").arg_true()
    if len(empty):
        places = listed(opened.numbers.gather(empty.head(10)), len(empty))
        raise DataError(f"{source}, row {places}: the text is empty", "fill or remove it")
    if not len(column):
        raise DataError(f"{source} has no rows", "give at least one text")
    return column.to_list()


def _numbered_levels(source: str, opened: Opened) -> tuple[str, ...]:
    found = sorted((int(match[1]), column) for column in opened.columns if (match := _LEVEL.fullmatch(column)))
    names = tuple(column for _, column in found)
    if not names:
        if fault := other_separator(source, opened):
            raise fault
        columns = listed((quoted(column) for column in opened.columns), len(opened.columns))
        raise DataError(
            f"{source} has no columns level0, level1, ...; it has {columns}",
            "name the columns of labels, coarsest first: --levels COARSE,FINE",
        )
    if [number for number, _ in found] != list(range(len(found))):
        raise DataError(
            f"{source} has levels {listed(names)}: one is missing",
            "number them level0, level1, ... without a gap, or name them with --levels",
        )
    return names


def _blank_as_missing(name: str) -> pl.Expr:
    return pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name)).alias(name)


def _complete(
    frame: pl.DataFrame, names: Sequence[str], numbers: pl.Series
) -> tuple[pl.DataFrame, pl.Series, tuple[str, ...]]:
    """Leave out the rows that lack a label; say which."""
    whole = frame.select(pl.all_horizontal(pl.col(list(names)).is_not_null())).to_series()
    left_out = int((~whole).sum())
    which = listed(numbers.filter(~whole).head(10), left_out)
    notes = (f"{counted(left_out, 'row')} without a label left out: {which}",) if left_out else ()
    return frame.filter(whole), numbers.filter(whole), notes

"""A user's own file into rows to be checked: which columns are levels, labels made unique, splits made if missing.

Levels are the columns ``level0``, ``level1``, ... or those that are named, coarsest first; nothing else is guessed from
the columns, because a wrong guess at a hierarchy would be believed by every later figure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from data.checks import Rows, level_fault
from data.errors import DataError, counted, listed, quoted
from data.files.locate import expanded, stem, suffix_of
from data.files.read import missing_columns, open_source
from data.files.records import FileFormat, Kind, Records
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
    records = read_files([source])
    names = tuple(levels) if levels is not None else _numbered_levels(source, records)
    if text in (*names, "split"):
        raise DataError(f"{source}: column {text} is named for two things", "name each column once")
    if fault := level_fault(source, names) or missing_columns(records, [text, *names]):
        raise fault
    has_split = "split" in records.frame.columns
    refuse_kinds(records, text, names)
    frame = records.frame.select(pl.col(text).alias("text"), *names, *(["split"] if has_split else []))
    frame = frame.with_columns(_blank_as_missing(name) for name in names)
    frame, numbers, notes = (
        _complete(frame, names, records.numbers) if drop_incomplete else (frame, records.numbers, ())
    )
    if qualify_labels:
        frame = qualified(frame, names)
    if has_split:
        frame = frame.with_columns(read_splits(frame.get_column("split")))
    else:
        made = assign_splits(value or "" for value in frame.get_column("text"))
        frame = frame.with_columns(pl.Series("split", made, dtype=pl.String))
        notes += ("no column split: 80/10/10 by a seeded hash of each text",)
    return Rows(stem(source), frame, names, source, numbers, made_splits=not has_split, notes=records.notes + notes)


def read_texts(source: str, text: str = "text", format: FileFormat | None = None) -> list[str]:
    """Return the texts of `source` alone, whatever other columns it has, in its order.

    The lines of a ``.txt`` file are its texts.

    :raises DataError: if it cannot be read, lacks the column, has no rows, a text is empty, or a row has fewer fields
        than columns.
    """
    format = format or FileFormat()
    if suffix_of(source) == ".txt" and format.separator is None:
        format = replace(format, separator="none")
    records = read_files([source], format)
    if not records.named and records.frame.width == 1:
        text = records.frame.columns[0]
    if fault := missing_columns(records, [text]):
        raise fault
    refuse_kinds(records, text, ())
    column = records.frame.get_column(text)
    empty = (column.str.strip_chars().fill_null("") == "").arg_true()
    if len(empty):
        places = listed(records.numbers.gather(empty.head(10)), len(empty))
        raise DataError(f"{source}, row {places}: the text is empty", "fill or remove it")
    if records.short:
        places = listed(records.short, len(records.short))
        raise DataError(f"{source}, row {places}: fewer fields than columns", "complete it, or quote its line breaks")
    if not len(column):
        raise DataError(f"{source} has no rows", "give at least one text")
    return column.to_list()


def read_files(sources: Sequence[str], format: FileFormat | None = None) -> Records:
    """Return the records of one or several files with the same columns, one after the other.

    :raises DataError: if a file cannot be read, or their columns differ.
    """
    places = [place for source in sources for place in expanded(source)]
    parts = [open_source(place, format) for place in places]
    if len(parts) == 1:
        return parts[0]
    for part in parts[1:]:
        if set(part.frame.columns) != set(parts[0].frame.columns):
            raise DataError(
                f"{parts[0].source} has the columns {listed(parts[0].frame.columns)}, "
                f"{part.source} has {listed(part.frame.columns)}",
                "give the files the same columns",
            )
    kinds: dict[str, tuple[Kind, ...]] = {}
    for part in parts:
        for column, found in part.kinds.items():
            kinds[column] = kinds.get(column, ()) + found
    return Records(
        listed(sources),
        pl.concat([part.frame.select(parts[0].frame.columns) for part in parts]),
        pl.concat([pl.select(pl.format("{} of {}", part.numbers, pl.lit(part.source))).to_series() for part in parts]),
        kinds,
        tuple(note for part in parts for note in part.notes),
        tuple(number for part in parts for number in part.short),
        all(part.named for part in parts),
    )


def refuse_kinds(records: Records, text: str, labels: Sequence[str]) -> None:
    """Refuse texts that are no strings, and labels that are lists.

    :raises DataError: for the first such value, with its row.
    """
    if kind := records.kind_of(text):
        raise DataError(
            f"{records.source}, row {kind.number:,}: {text} is {quoted(kind.value)}, a {kind.name}, not a text",
            "name the column of texts with --text, and write one string per record",
        )
    for label in labels:
        if kind := records.kind_of(label, "number", "truth value"):
            raise DataError(
                f"{records.source}, row {kind.number:,}: {label} is {quoted(kind.value)}, not a label",
                "write one string or number per label",
            )


def _numbered_levels(source: str, records: Records) -> tuple[str, ...]:
    columns = records.frame.columns
    found = sorted((int(match[1]), column) for column in columns if (match := _LEVEL.fullmatch(column)))
    names = tuple(column for _, column in found)
    if not names:
        raise DataError(
            f"{source} has no columns level0, level1, ...; it has {listed(map(quoted, columns), len(columns))}",
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

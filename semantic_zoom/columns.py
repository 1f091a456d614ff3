"""Texts and labels in the forms that people have them in: lists, arrays, Series, frames of polars or pandas.

Neither library is asked for by type: what has columns is a frame, what can be iterated is a column. Everything ends as
a list of texts and a polars frame of labels, one column per level, coarsest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from data import DataError
from data.checks import SEEN, Rows, similar_labels
from data.columns.level_columns import MISSING
from data.errors import counted, listed, quoted


def text_list(texts: Any, what: str = "texts") -> list[str]:
    """Read a column of texts, once.

    :param texts: any iterable of strings; a frame of one column.
    :raises DataError: if it is a single string, or a row is no text, by its position.
    """
    texts = _column(texts, what, "pass a list of strings: [text]", no_column=Set | Mapping)
    if (names := _column_names(texts)) is not None:
        if len(names) != 1:
            raise DataError(f"{what} is a frame with {len(names)} columns", "pass one column: frame['text']")
        texts = texts[names[0]]
    elif isinstance(texts, np.ndarray) and texts.ndim == 2 and texts.shape[1] == 1:
        texts = texts[:, 0]
    found = [_plain(text) for text in texts]
    # numpy's own strings become plain ones; half a surrogate, which polars does not take, is told where it is hashed
    words = [text.encode(errors="replace").decode() if isinstance(text, str) else None for text in found]
    seen = pl.Series(words, dtype=pl.String).str.contains(SEEN).fill_null(False)
    if not seen.all():
        row = int((~seen).arg_true()[0])
        raise DataError(f"row {row} of {what} is {found[row]!r}, not a text", "drop the row, or give it a text")
    return [str(text) for text in found]


def label_frame(labels: Any, rows: int, names: Sequence[str] | None = None) -> pl.DataFrame:
    """Read labels into one column of strings per level, coarsest first; a missing finer label is null.

    :param labels: per text a label, or a sequence of labels from coarse to fine; or columns with names: a frame, a
        dictionary of columns, a dictionary per text.
    :param rows: how many texts there are.
    :param names: names of the levels, by which named columns are taken, whatever their order; columns of other names
        are taken in their order. By default the columns' own, else level0, level1, ...
    :raises DataError: if numbers of rows or of names do not fit, a named column is missing, or a row has no label at
        all.
    """
    columns, own = _columns(labels)
    names = [names] if isinstance(names, str) else names
    if own and len(set(own)) < len(own):
        raise DataError(f"columns are named {own}", "give each level its own name")
    if names and own and set(names) & set(own):
        if missing := [name for name in names if name not in own]:
            raise DataError(f"the labels have no column {missing[0]!r}, only {own}", "pass a column for each level")
        columns = [columns[own.index(name)] for name in names]
    names = list(names or own or [f"level{level}" for level in range(len(columns))])
    if len(set(names)) < len(names):
        raise DataError(f"levels are named {names}", "give each level its own name")
    if len(names) != len(columns):
        given = counted(len(columns), "level")
        raise DataError(f"labels of {given} for the levels {names}", "pass a label of each level, coarsest first")
    for name, column in zip(names, columns, strict=True):
        if len(column) != rows:
            raise DataError(f"{len(column)} labels {name} for {rows} texts", "give each text its labels")
    if not rows or not columns:
        raise DataError("there are no labelled texts", "give at least two texts of one class")
    frame = pl.DataFrame([_strings(name, column) for name, column in zip(names, columns, strict=True)])
    empty = frame[names[0]].is_null().arg_true()
    if len(empty):
        raise DataError(f"row {empty[0]} has no label {names[0]}", "drop the row, or label it")
    return frame


def label_doubts(frame: pl.DataFrame) -> list[str]:
    """Say of a frame of labels which classes are written nearly alike, and which may stand for a missing label."""
    alike = similar_labels(Rows("labels", frame, tuple(frame.columns)))
    said = [f"{finding.problem}: {finding.remedy}" for finding in alike]
    for level in frame:
        words = level.unique().sort()
        words = words.filter(words.str.strip_chars().str.to_lowercase().is_in(MISSING))
        if len(words):
            names = listed(map(quoted, words))
            said.append(f"{names} of level {level.name} counts as a class: pass None where a label is missing")
    return said


def _strings(name: str, labels: list[str | None]) -> pl.Series:
    try:
        return pl.Series(name, labels, dtype=pl.String)
    except UnicodeEncodeError as error:
        raise DataError(f"label {error.object!r} holds half a surrogate pair", "write the whole character") from error


def _columns(labels: Any) -> tuple[list[list[str | None]], list[str] | None]:
    """Labels level by level, and the names of the levels where they have any."""
    if labels is None:
        raise DataError("there are no labels (None)", "pass a label per text")
    labels = _column(labels, "labels", "pass a list with a label per text", no_column=Set)
    named = list(labels) if isinstance(labels, Mapping) else _column_names(labels)
    if named is not None:
        return [[_label(value) for value in labels[name]] for name in named], [str(name) for name in named]
    rows: list[Any] = [_plain(row) for row in labels]
    if rows and all(isinstance(row, Mapping) for row in rows):
        keys = list(dict.fromkeys(key for row in rows for key in row))
        return [[_label(row.get(key)) for row in rows] for key in keys], [str(key) for key in keys]
    if not rows or not any(_is_path(row) for row in rows):
        name = getattr(labels, "name", None)  # of a Series
        return [[_label(value) for value in rows]], [name] if isinstance(name, str) and name else None
    paths = [list(row) if _is_path(row) else [row] for row in rows]
    depth = max(len(path) for path in paths)
    return [[_label(path[level]) if level < len(path) else None for path in paths] for level in range(depth)], None


def _column(value: Any, what: str, remedy: str, no_column: Any) -> Any:
    """Something that gives values one by one, in an order; a lazy frame is read."""
    if isinstance(value, str | bytes):
        raise DataError(f"{what} is one string ({value[:40]!r})", remedy)
    if isinstance(value, no_column) or not (isinstance(value, Iterable) or hasattr(value, "__getitem__")):
        raise DataError(f"{what} is a {type(value).__name__}, not a column in order", remedy)
    return value.collect() if isinstance(value, pl.LazyFrame) else value


def _column_names(frame: Any) -> list[Any] | None:
    """Names of a frame's columns; None of what is no frame."""
    names = getattr(frame, "column_names", None)  # of Arrow, where `columns` are the columns themselves
    if names is None:
        names = getattr(frame, "columns", None)
    return None if names is None or callable(names) else list(names)


def _is_path(value: Any) -> bool:
    if isinstance(value, Set | Mapping):
        raise DataError(f"a text's labels are {value!r}, without an order", "pass a list from coarse to fine")
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def _plain(value: Any) -> Any:
    """A value of Arrow, or an array or tensor of no dimension, as Python's own."""
    if hasattr(value, "as_py"):
        return value.as_py()
    return value.item() if getattr(value, "shape", None) == () and not isinstance(value, np.generic) else value


def _label(value: Any) -> str | None:
    """A label as a string. 1.0 is 1: whole numbers become floats wherever a value of their column is missing."""
    value = _plain(value)
    if isinstance(value, bytes):
        raise DataError(f"a label is {value[:40]!r}, bytes", "decode it: label.decode()")
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, float | np.generic | Decimal) and value != value:  # NaN, NaT
        return None
    if str(value) == object.__repr__(value):
        raise DataError(f"a label is {value!r}, an object without a name", "pass strings or numbers")
    if isinstance(value, float | np.floating):
        value = int(value) if float(value).is_integer() else value
    text = str(value)
    return text if text.strip() else None

"""Texts and labels in the forms that people have them in: lists, arrays, Series, frames of polars or pandas.

Neither library is asked for by type: what has columns is a frame, what can be iterated is a column. Everything ends as
a list of texts and a polars frame of labels, one column per level, coarsest first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from data import DataError


def text_list(texts: Any, what: str = "texts") -> list[str]:
    """Read a column of texts, once.

    :param texts: any iterable of strings; a frame of one column.
    :raises DataError: if it is a single string, or a row is no text, by its position.
    """
    if isinstance(texts, str | bytes):
        raise DataError(f"{what} is one string ({texts[:40]!r})", "pass a list of strings: [text]")
    if hasattr(texts, "columns") and not callable(texts.columns):
        names = list(texts.columns)
        if len(names) != 1:
            raise DataError(f"{what} is a frame with {len(names)} columns", "pass one column: frame['text']")
        texts = texts[names[0]]
    elif isinstance(texts, np.ndarray) and texts.ndim == 2 and texts.shape[1] == 1:
        texts = texts[:, 0]
    found = list(texts)
    for row, text in enumerate(found):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"row {row} of {what} is {text!r}, not a text", "drop the row, or give it a text")
    return [str(text) for text in found]  # numpy's own strings become plain ones


def label_frame(labels: Any, rows: int, names: Sequence[str] | None = None) -> pl.DataFrame:
    """Read labels into one column of strings per level, coarsest first; a missing finer label is null.

    :param labels: per text a label, or a sequence of labels from coarse to fine; or a frame with a column per level.
    :param rows: how many texts there are.
    :param names: names of the levels; by default the frame's columns, else level0, level1, ...
    :raises DataError: if numbers of rows or of names do not fit, or a row has no label at all.
    """
    columns, own = _columns(labels)
    names = list(names or own or [f"level{level}" for level in range(len(columns))])
    if len(names) != len(columns) or len(set(names)) != len(names):
        raise DataError(f"{len(columns)} levels are named {names}", "give each level its own name")
    for name, column in zip(names, columns, strict=True):
        if len(column) != rows:
            raise DataError(f"{len(column)} labels {name} for {rows} texts", "give each text its labels")
    if not rows or not columns:
        raise DataError("there are no labelled texts", "give at least two texts of one class")
    frame = pl.DataFrame({n: pl.Series(n, c, dtype=pl.String) for n, c in zip(names, columns, strict=True)})
    empty = frame[names[0]].is_null().arg_true()
    if len(empty):
        raise DataError(f"row {empty[0]} has no label {names[0]}", "drop the row, or label it")
    return frame


def _columns(labels: Any) -> tuple[list[list[str | None]], list[str] | None]:
    """Labels level by level, and the names of the levels where they have any."""
    if labels is None:
        raise DataError("there are no labels (None)", "pass a label per text")
    if isinstance(labels, str | bytes):
        raise DataError(f"labels is one string ({labels[:40]!r})", "pass a list with a label per text")
    if hasattr(labels, "columns") and not callable(labels.columns):
        names = list(labels.columns)
        return [[_label(value) for value in labels[name]] for name in names], [str(name) for name in names]
    rows: list[Any] = list(labels)
    if not rows or not any(_is_path(row) for row in rows):
        return [[_label(value) for value in rows]], _name_of(labels)
    paths = [list(row) if _is_path(row) else [row] for row in rows]
    depth = max(len(path) for path in paths)
    return [[_label(path[level]) if level < len(path) else None for path in paths] for level in range(depth)], None


def _name_of(labels: Any) -> list[str] | None:
    name = getattr(labels, "name", None)
    return [name] if isinstance(name, str) and name else None


def _is_path(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def _label(value: Any) -> str | None:
    if (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in ("NAType", "NaTType")
    ):
        return None
    text = str(value)
    return text if text.strip() else None

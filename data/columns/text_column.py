"""Which column holds the texts: the one that is named, else one with a usual name, else the one with long values."""

from __future__ import annotations

import re

import polars as pl

from data.errors import DataError, listed, quoted
from data.files.records import Records, mean

_FIRST = ("text", "texts")
_USUAL = [
    "sentence",
    "utterance",
    "query",
    "document",
    "doc",
    "content",
    "body",
    "description",
    "abstract",
    "question",
    "comment",
    "message",
    "review",
    "title",
    "headline",
    "statement",
    "snippet",
    "passage",
    "input",
    "prompt",
    "name",
    "summary",
    "tweet",
    "post",
    "email",
    "ticket",
]
_LONG = 40
"""Characters. Values that are longer on average are texts, even if many are repeated."""

_LONGER = 4
"""A column is taken for the texts if its values are so many times longer than the next one's."""


def find_text(records: Records, given: tuple[str, ...] | None) -> tuple[tuple[str, ...], str | None]:
    """Return the columns of texts, and a note if they were guessed.

    :raises DataError: if a given column is not there, or no column or several may be the texts.
    """
    columns = records.frame.columns
    if not columns:
        raise DataError(f"{records.source} has no rows", "give at least one row per split and class")
    if given is not None:
        if ",".join(given) in columns:
            return (",".join(given),), None
        return given, None
    for names in (_FIRST, _USUAL):
        found = [column for column in columns if column.strip().lower() in names and _are_texts(records, column)]
        if names is _FIRST and not found:
            found = [column for column in columns if column.strip().lower() in _FIRST]
        if len(found) == 1:
            return (found[0],), None if found[0] == "text" else f"texts are in column {quoted(found[0])} (--text)"
        if found:
            raise _several(records, found)
    able = [column for column in columns if not re.fullmatch(r"level\d+", column) and _are_texts(records, column)]
    lengths = sorted(((mean(records.frame.get_column(one).str.len_chars()), one) for one in able), reverse=True)
    if not lengths:
        shown = listed(map(quoted, columns), len(columns))
        raise DataError(
            f"{records.source} has no column 'text', nor another that holds texts; it has {shown}",
            "name the column of texts: --text NAME (if the first line is a row: --no-header)",
        )
    rivals = [column for length, column in lengths if length * _LONGER > lengths[0][0]]
    if len(rivals) > 1:
        raise _several(records, rivals)
    return (rivals[0],), f"texts are in column {quoted(rivals[0])}, whose values are the longest (--text)"


def _are_texts(records: Records, column: str) -> bool:
    """Whether values are words and mostly distinct: no numbers, no lists, no few classes."""
    values = records.frame.get_column(column).drop_nulls()
    if records.kind_of(column) or not len(values):
        return False
    words = mean(values.head(1_000).str.contains(r"\p{L}")) > 0.5
    return words and (values.n_unique() > len(values) / 2 or mean(values.str.len_chars()) > _LONG)


def _several(records: Records, found: list[str]) -> DataError:
    return DataError(
        f"{records.source}: the texts may be in {' or in '.join(quoted(column) for column in found)}",
        f"say which: {' or '.join(f'--text {column}' for column in found)}, or join them: --text {','.join(found)}",
    )


def joined(records: Records, columns: tuple[str, ...]) -> pl.Series:
    """Return one text per record: the columns' values, joined by a line break where there are several."""
    if len(columns) == 1:
        return records.frame.get_column(columns[0]).alias("text")
    made = records.frame.select(pl.concat_str(columns, separator="\n", ignore_nulls=True).alias("text")).to_series()
    return made.str.strip_chars("\n")

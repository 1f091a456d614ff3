"""Which column holds the texts: the one that is named, else one with a usual name, else the one with long values.

Of several with usual names the one whose values are by far the longest is it: the abstract, not the title. A column of
lists holds the tokens of one text each, or several texts of one record, such as the examples of an intent.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from data.checks import heads_groups
from data.columns.label_forms import are_paths
from data.columns.level_columns import LABEL_WORDS, LEVEL, determines, repeats
from data.errors import DataError, listed, quoted
from data.files.records import Records, mean

_FIRST = re.compile(r"texts?")
_USUAL = re.compile(
    r"sentence|utterance|utt|query|document|doc|content|body|description|abstract|question|comment|message|review|title|"
    r"headline|statement|snippet|passage|input|prompt|name|summary|tweet|post|email|ticket"
)
_LONG = 40
"""Characters. Values that are longer on average are texts, even if many are repeated."""

_LONGER = 4
"""A column is taken for the texts if its values are so many times longer than the next one's."""

_MUCH_LONGER = 8
"""The same among columns with usual names, of which the shorter one is often part of the text, such as a title."""


def columns_meant(records: Records, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that ``--text A,B`` names: two, unless one is called ``A,B``."""
    whole = ",".join(given)
    return (whole,) if whole in records.frame.columns else given


def find_text(records: Records, taken: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """Return the columns of texts, none of those `taken` for something else, and a note if they were guessed.

    :raises DataError: if no column or several may be the texts.
    """
    columns = [column for column in records.frame.columns if column not in taken]
    for names in (_FIRST, _USUAL):
        found = [column for column in columns if names.fullmatch(_plain(column)) and _are_texts(records, column)]
        if names is _FIRST and not found:
            found = [column for column in columns if _FIRST.fullmatch(_plain(column))]
        if len(found) == 1:
            (one,) = found
            return (one,), None if one == "text" else f"texts are in column {quoted(one)} (if not: --text)"
        if found:
            return _longest(records, found, _MUCH_LONGER)
    able = [column for column in columns if not _named_as_labels(records, column) and _are_texts(records, column)]
    texts = [column for column in able if not _like_labels(records, column, able)]
    if len(texts) == 1 < len(able):
        return tuple(texts), f"texts are in column {quoted(texts[0])}; the others look like labels (if not: --text)"
    able = texts or able or [column for column in columns if _long_lists(records, column)]
    if not able:
        shown = listed(map(quoted, columns), len(columns))
        raise DataError(
            f"{records.source} has no column 'text', nor another that holds texts; it has {shown}",
            "name the column of texts: --text NAME, or several: --text NAME,NAME "
            "(if the first line is a row: --no-header)",
        )
    return _longest(records, able, _LONGER)


def _plain(column: str) -> str:
    """Return a column's name in lower case, of a nested one (``row.text``) its last part."""
    return column.strip().lower().rsplit(".", 1)[-1]


def _longest(records: Records, able: list[str], times: int) -> tuple[tuple[str, ...], str]:
    """Return the column whose values are by far the longest, and a note."""
    lengths = sorted(((mean(records.frame.get_column(one).str.len_chars()), one) for one in able), reverse=True)
    rivals = [column for length, column in lengths if length * times > lengths[0][0]]
    if len(rivals) > 1:
        raise _several(records, sorted(rivals, key=records.frame.columns.index))
    one, others = rivals[0], [column for column in able if column != rivals[0]]
    both = shlex.quote(f"{others[0]},{one}") if others else ""
    join = f"; joined with {quoted(others[0])}: --text {both}" if others and times > _LONGER else ""
    return (one,), f"texts are in column {quoted(one)}, whose values are the longest (--text{join})"


def _like_labels(records: Records, column: str, able: Sequence[str]) -> bool:
    """Whether a column of words holds long labels: values repeat, and a name, paths or a tree say so too.

    A text may stand on several rows as well, one per annotator or translation: that its values repeat says nothing.
    """
    values = records.frame.get_column(column)
    others = [other for other in able if other != column]
    named = bool(LABEL_WORDS.search(column.lower())) and not _USUAL.search(_plain(column))
    if heads_groups(values):  # as merged cells do
        return named or any(heads_groups(records.frame.get_column(other)) for other in others)
    values = values.drop_nulls()
    share = values.n_unique() / len(values)
    if are_paths(values):
        return share <= 0.9
    tree = share <= 1 / 4 and any(
        determines(records.frame, one, other)
        for other in others
        if repeats(records.frame.get_column(other))
        for one, other in ((column, other), (other, column))
    )
    return tree or (named and share <= 1 / 2)


def _named_as_labels(records: Records, column: str) -> bool:
    """Whether a column's name says labels, and its values are short."""
    if LEVEL.fullmatch(column):
        return True
    short = mean(records.frame.get_column(column).str.len_chars()) <= _LONG
    return short and bool(LABEL_WORDS.search(column.lower()))


def _are_texts(records: Records, column: str) -> bool:
    """Whether values are words and mostly distinct: no numbers, no lists, no few classes."""
    values = records.frame.get_column(column).drop_nulls()
    if records.kind_of(column) or not len(values):
        return False
    words = mean(values.head(1_000).str.contains(r"\p{L}")) > 0.5
    return words and (values.n_unique() > len(values) / 2 or mean(values.str.len_chars()) > _LONG)


def _long_lists(records: Records, column: str) -> bool:
    """Whether values are lists, on average of five items or more."""
    kinds = records.kinds.get(column, ())
    values = records.frame.get_column(column).drop_nulls()
    return any(kind.name == "list" for kind in kinds) and mean(values.head(1_000).str.count_matches(r"\", ")) >= 4


def _several(records: Records, found: list[str]) -> DataError:
    return DataError(
        f"{records.source}: the texts may be in {' or in '.join(quoted(column) for column in found)}",
        f"say which: {' or '.join(f'--text {shlex.quote(column)}' for column in found)}"
        f", or join them: --text {shlex.quote(','.join(found))}",
    )


def joined(records: Records, columns: tuple[str, ...]) -> pl.Series:
    """Return one text per record: the columns' values, joined by a line break where there are several.

    :raises DataError: if a column holds no texts.
    """
    for column in columns:
        if kind := records.kind_of(column):
            raise DataError(
                f"{records.source}, row {kind.number:,}: {column} is {quoted(kind.value)}, a {kind.name}, not a text",
                "name the column of texts with --text, and write one string per record",
            )
    if len(columns) == 1:
        return records.frame.get_column(columns[0]).alias("text")
    made = records.frame.select(pl.concat_str(columns, separator="\n", ignore_nulls=True).alias("text")).to_series()
    return made.str.strip_chars("\n")


def with_texts_of_lists(records: Records, columns: tuple[str, ...]) -> tuple[Records, tuple[str, ...]]:
    """Return `records` with text where the one column of texts holds lists, and a note.

    Items of one word are a text's tokens, joined by spaces; longer ones are texts, and each becomes a record.
    """
    if len(columns) != 1:
        return records, ()
    column, kinds = columns[0], {kind.name for kind in records.kinds.get(columns[0], ())}
    values = records.frame.get_column(column)
    if kinds != {"list"} or not values.drop_nulls().str.starts_with("[").all():
        return records, ()
    lists = [json.loads(value) if value is not None else [] for value in values]
    if any(not isinstance(item, str) for one in lists for item in one):
        return records, ()
    items = [item for one in lists for item in one]
    if len(items) < 2 * len(lists):
        return records, ()
    kept = {name: kind for name, kind in records.kinds.items() if name != column}
    if sum(" " in item.strip() for item in items) < len(items) / 2:
        texts = pl.Series(column, [" ".join(one) for one in lists], dtype=pl.String)
        note = f"lists in column {quoted(column)} are the tokens of texts, joined by spaces"
        return replace(records, frame=records.frame.with_columns(texts), kinds=kept), (note,)
    rows = [row for row, one in enumerate(lists) for _ in one]
    frame = records.frame[rows].with_columns(pl.Series(column, items, dtype=pl.String))
    note = f"lists in column {quoted(column)} hold {len(items):,} texts: one row per text"
    return replace(records, frame=frame, numbers=records.numbers.gather(rows), kinds=kept, short=()), (note,)

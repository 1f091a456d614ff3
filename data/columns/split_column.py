"""Which column says train, val or test, under any usual name and spelling; a likely one that is not used is said."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from data.errors import DataError, quoted
from data.files.records import Records
from data.splits import split_of_word

NAMES = {
    "split",
    "partition",
    "set",
    "subset",
    "fold",
    "data_split",
    "dataset_split",
    "part",
    "usage",
    "phase",
    "splits",
}
"""Usual names of a split column, lower case."""

_FLAG = re.compile(r"^(?:is|in|for)[ _.-]?(\w+)$")
_TRUTH = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True, "0.0": False, "1.0": True}


def looks_like_split(column: str) -> bool:
    """Whether a column's name says that it holds splits."""
    name = column.strip().lower()
    return name in NAMES or bool(re.match(r"split|.*[ _.-](split|fold|partition)$", name))


def find_split(records: Records, given: str | None, taken: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """Return the split column or None, and notes: which was guessed, or which looks like one and is not used.

    `given`: the column, or "none" for made splits. `taken`: columns that hold texts or labels.

    :raises DataError: if several columns may be it.
    """
    frame = records.frame
    if given is not None:
        if given == "none":
            return None, ()
        if given not in frame.columns:
            raise DataError(
                f"{records.source} has no column {quoted(given)} for --split", "name the split column, or none"
            )
        return given, ()
    if "split" in frame.columns and "split" not in taken:
        return "split", ()
    free = [column for column in frame.columns if column not in taken]
    usable = [column for column in free if _all_splits(frame.get_column(column))]
    named = [column for column in usable if column.strip().lower() in NAMES]
    usable = named or usable
    if len(usable) > 1:
        raise DataError(
            f"{records.source}: the splits may be in {' or in '.join(map(quoted, usable))}",
            f"say which: {' or '.join(f'--split {column}' for column in usable)}",
        )
    if usable:
        return usable[0], (f"splits are in column {quoted(usable[0])} (--split)",)
    likely = [column for column in free if looks_like_split(column) or _of_flag(frame.get_column(column))]
    return None, tuple(
        f"column {quoted(column)} looks like a split and is not used: its values are no splits "
        f"(--split '{column}:{_example(frame.get_column(column))}')"
        for column in likely
    )


def _example(column: pl.Series) -> str:
    """Return how the meaning of the values of `column` is written, by its first values."""
    values = column.drop_nulls().unique().sort().head(3).to_list()
    return ",".join(f"{value}={split}" for value, split in zip(values, ("train", "val", "test"), strict=False))


def with_meanings(records: Records, given: str) -> tuple[str, pl.Series]:
    """Return the column that ``COLUMN:0=train,1=test`` names, and its values in the words that it gives them.

    :raises DataError: if there is no such column, or a part gives no meaning.
    """
    name, _, said = given.rpartition(":")
    if name not in records.frame.columns:
        raise DataError(f"{records.source} has no column {quoted(name)} for --split", "name the split column, or none")
    meanings = dict(part.partition("=")[::2] for part in said.split(","))
    if wrong := [word for word in meanings.values() if split_of_word(word) is None]:
        raise DataError(f"--split: {quoted(wrong[0])} is no split", f"write --split '{name}:0=train,1=val,2=test'")
    column = records.frame.get_column(name)
    return name, column.str.strip_chars().replace({value.strip(): word for value, word in meanings.items()})


def _all_splits(column: pl.Series) -> bool:
    """Whether every value means a split, and both training and other rows are there."""
    if column.null_count() or column.n_unique() > 12:
        return False
    found = {split_of_word(word) for word in splits_of(column).unique()}
    return None not in found and "train" in found and len(found) > 1


def _of_flag(column: pl.Series) -> str | None:
    """Return the split of the rows where a column such as ``is_test`` says yes, or None."""
    found = _FLAG.match(column.name.strip().lower())
    return split_of_word(found[1]) if found else None


def splits_of(column: pl.Series) -> pl.Series:
    """Return the splits that `column` says: its values, or for one such as ``is_test`` test and train."""
    named = _of_flag(column)
    words = column.str.strip_chars().str.to_lowercase()
    if named is None or not words.is_in(list(_TRUTH)).all():
        return column
    other = "test" if named == "train" else "train"
    yes = words.replace_strict(_TRUTH, default=False, return_dtype=pl.Boolean)
    return pl.Series(column.name, [named if one else other for one in yes], dtype=pl.String)

"""Which column says train, val or test, under any usual name and spelling; a likely one that is not used is said."""

from __future__ import annotations

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
    likely = [column for column in free if column.strip().lower() in NAMES]
    return None, tuple(
        f"column {quoted(column)} looks like a split and is not used: its values are no splits (--split {column})"
        for column in likely
    )


def _all_splits(column: pl.Series) -> bool:
    """Whether every value means a split, and both training and other rows are there."""
    if column.null_count() or column.n_unique() > 12:
        return False
    found = {split_of_word(word) for word in column.unique()}
    return None not in found and "train" in found and len(found) > 1

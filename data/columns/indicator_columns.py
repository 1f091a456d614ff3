"""Labels that are spread over columns of 0 and 1, one column per class: brought into one column of their names.

Three such columns or more are classes; fewer may be any answer of yes or no. A row with two ones has two labels, which
is out of scope unless the first is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from data.errors import DataError, listed, quoted
from data.files.records import Records

_YES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_FEWEST = 3

NAME = "label"
"""Name of the column that is made."""


def indicators(frame: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the columns that hold 0 and 1 alone, both of them, if they are three or more; else none."""
    found = [
        column
        for column in columns
        if not re.fullmatch(r"level\d+", column) and _is_indicator(frame.get_column(column))
    ]
    return found if len(found) >= _FEWEST else []


def _is_indicator(values: pl.Series) -> bool:
    if values.null_count() or not len(values) or values.head(200).n_unique() > 2:
        return False
    distinct = values.unique().str.to_lowercase()
    return len(distinct) == 2 and distinct.is_in(list(_YES)).all()


def from_indicators(records: Records, columns: Sequence[str], label: str | None) -> tuple[Records, str]:
    """Return `records` with one column of labels in place of `columns`, and a note. `label`: take the first of several.

    :raises DataError: if a row has several ones and `label` is None, or none at all.
    """
    yes = records.frame.select(
        pl.col(column).str.to_lowercase().replace_strict(_YES, return_dtype=pl.Boolean) for column in columns
    )
    counts = yes.sum_horizontal()
    said = f"{len(columns)} columns of 0 and 1 ({listed(map(quoted, columns), len(columns))})"
    for wrong, problem, remedy in (
        (counts > 1, "more than one label per text, which is out of scope", "take the first: --label first"),
        (counts == 0, "no label", "leave these rows out, or name other columns of labels: --levels NAME"),
    ):
        if wrong.any() and not (label and problem.startswith("more")):
            rows = wrong.arg_true()
            places = listed(records.numbers.gather(rows.head(10)), len(rows))
            raise DataError(f"{records.source}, row {places}: {said} give {problem}", remedy)
    first = pl.coalesce(pl.when(pl.col(column)).then(pl.lit(column)) for column in columns)
    frame = records.frame.drop(columns).with_columns(yes.select(first.alias(NAME)).to_series())
    return replace(records, frame=frame), f"labels are the names of {said}"

"""A dataset: one row per text, with its labels and its split, checked when it is made.

Everything follows from one polars frame: classes, indices and the content address. An unchecked dataset cannot be
constructed, so no later stage checks labels or the hierarchy again. A text has as many labels as are known of it: a
missing finer label is null in the frame and -1 in `Dataset.labels`. The checks cost some tens of milliseconds at
100,000 rows.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import InitVar, dataclass
from functools import cached_property

import numpy as np
import polars as pl

from data.checks import Rows, findings, raise_first
from data.errors import DataError, quoted
from data.hierarchy import Hierarchy, Indices
from data.splits import SPLITS

_MISSING = 2**64 - 1
"""The length that a missing label has in the content address: no label is so long."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Texts with labels and splits, their hierarchy, and the warnings about them.

    `frame`: columns text, one per level (coarsest first), split; all String. A level below the first may be null, where
    every finer level is null too; nothing else is. `out_of_scope`: texts that belong
    to no class, columns text and split, or None. `warnings`: one line each; none of them stops anything.

    :raises DataError: on construction, for the first fault that `data check` would report, or if `hierarchy` is not
        that of the rows.
    """

    name: str
    frame: pl.DataFrame
    hierarchy: Hierarchy
    out_of_scope: pl.DataFrame | None = None
    warnings: tuple[str, ...] = ()
    _checked: InitVar[bool] = False

    def __post_init__(self, _checked: bool) -> None:
        columns = ["text", *self.hierarchy.names, "split"]
        if self.frame.columns != columns or any(dtype != pl.String for dtype in self.frame.dtypes):
            raise DataError(
                f"{self.name}: columns {self.frame.schema} where {columns} of type String are needed",
                "rename, cast and order the columns",
            )
        if _checked:  # by `from_rows`, which read the hierarchy from these very rows
            return
        raise_first(findings(Rows(self.name, self.frame, self.hierarchy.names)))
        if Hierarchy.from_frame(self.frame, self.hierarchy.names) != self.hierarchy:
            raise DataError(f"{self.name}: the hierarchy is not that of the rows", "use Dataset.from_rows")

    @classmethod
    def from_rows(cls, rows: Rows) -> Dataset:
        """Check `rows`, read the hierarchy from them, and return the dataset with the reader's notes and all warnings.

        :raises DataError: for the first fault, with the row numbers of the file the rows came from.
        """
        found = findings(rows)
        raise_first(found)
        hierarchy = Hierarchy.from_frame(rows.frame, rows.levels)
        warnings = (*rows.notes, *(finding.problem for finding in found))
        return cls(rows.name, rows.frame, hierarchy, rows.out_of_scope, warnings, _checked=True)

    @cached_property
    def id(self) -> str:
        """``name-<12 hex>``: BLAKE2b over level names and, in row order, texts, labels and splits."""
        digest = hashlib.blake2b(digest_size=6)
        for field in (self.name, *self.levels):
            digest.update(len(field.encode()).to_bytes(8, "little") + field.encode())
        for column in self.frame.iter_columns():
            digest.update(column.str.len_bytes().cast(pl.UInt64).fill_null(_MISSING).to_numpy().tobytes())
            digest.update(column.str.join("").item().encode())
        return f"{_path_safe(self.name)}-{digest.hexdigest()}"

    @property
    def levels(self) -> tuple[str, ...]:
        """Level names, coarsest first."""
        return self.hierarchy.names

    @property
    def texts(self) -> list[str]:
        """The n texts, in row order."""
        return self.frame.get_column("text").to_list()

    def texts_of(self, rows: Indices) -> list[str]:
        """Return the texts of some rows, in their order."""
        return self.frame.get_column("text").gather(rows).to_list()

    @cached_property
    def labels(self) -> Indices:
        """int64 [n, L], read-only: per row and level the index in ``hierarchy.classes[level]``, -1 for no label."""
        labels = self.hierarchy.labels(self.frame)
        labels.flags.writeable = False
        return labels

    def split_rows(self, split: str) -> Indices:
        """Return the row indices of `split` (train, val or test), ascending: int64.

        :raises DataError: for any other word.
        """
        if split not in SPLITS:
            raise DataError(f"no split {quoted(split)}", f"use one of {', '.join(SPLITS)}")
        return (self.frame.get_column("split") == split).arg_true().to_numpy().astype(np.int64)

    def __len__(self) -> int:
        return self.frame.height


def _path_safe(name: str) -> str:
    """Return `name` as a plain folder name of at most 100 characters: dataset ids are used as names of folders."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100].strip("-.") or "dataset"

"""A dataset: one row a text, its label at every level and its split, checked when it is made.

A polars frame is the whole of it; classes, indices and the content address follow from the frame. Because nothing
unchecked can be constructed, no later stage asks again whether a label is missing or a hierarchy whole. The checks
cost some tens of milliseconds at 100,000 rows.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from data.checks import Rows, findings, raise_first
from data.errors import DataError, quoted
from data.hierarchy import Hierarchy, Indices
from data.splits import SPLITS


@dataclass(frozen=True, eq=False)
class Dataset:
    """Texts with labels and splits, their hierarchy, and what was noticed about them.

    `frame`: columns text, one a level (coarsest first), split; all String, no nulls. `out_of_scope`: texts that belong
    to no class, columns text and split, or None. `warnings`: one line each, nothing that stops anything.

    :raises DataError: on construction, for the first fault that `data check` would report, or if `hierarchy` is not
        that of the rows.
    """

    name: str
    frame: pl.DataFrame
    hierarchy: Hierarchy
    out_of_scope: pl.DataFrame | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check rows and hierarchy."""
        columns = ["text", *self.hierarchy.names, "split"]
        if self.frame.columns != columns or any(dtype != pl.String for dtype in self.frame.dtypes):
            raise DataError(
                f"{self.name}: columns {self.frame.schema} where {columns} of type String are needed",
                "rename, cast and order the columns",
            )
        raise_first(findings(Rows(self.name, self.frame, self.hierarchy.names)))
        if Hierarchy.from_frame(self.frame, self.hierarchy.names) != self.hierarchy:
            raise DataError(f"{self.name}: the hierarchy is not that of the rows", "use Dataset.from_rows")

    @classmethod
    def from_rows(cls, rows: Rows) -> Dataset:
        """Check `rows`, read the hierarchy off them, and return the dataset, with the reader's notes and all warnings.

        :raises DataError: for the first fault, with the row numbers of the file the rows came from.
        """
        found = findings(rows)
        raise_first(found)
        hierarchy = Hierarchy.from_frame(rows.frame, rows.levels)
        warnings = (*rows.notes, *(finding.problem for finding in found))
        return cls(rows.name, rows.frame, hierarchy, rows.out_of_scope, warnings)

    @cached_property
    def id(self) -> str:
        """``name-<12 hex>``: BLAKE2b over level names and, in row order, texts, labels and splits."""
        digest = hashlib.blake2b(digest_size=6)
        for field in (self.name, *self.levels):
            digest.update(len(field.encode()).to_bytes(8, "little") + field.encode())
        for column in self.frame.iter_columns():
            digest.update(column.str.len_bytes().cast(pl.UInt64).to_numpy().tobytes())
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

    @cached_property
    def labels(self) -> Indices:
        """int64 [n, L], read-only: for each row and level the index in ``hierarchy.classes[level]``."""
        labels = self.hierarchy.labels(self.frame)
        labels.flags.writeable = False
        return labels

    def split_rows(self, split: str) -> Indices:
        """Return the rows of `split` (train, val or test), ascending: int64.

        :raises DataError: for any other word.
        """
        if split not in SPLITS:
            raise DataError(f"no split {quoted(split)}", f"use one of {', '.join(SPLITS)}")
        return (self.frame.get_column("split") == split).arg_true().to_numpy().astype(np.int64)

    def __len__(self) -> int:
        """Number of rows n."""
        return self.frame.height


def _path_safe(name: str) -> str:
    """Return `name` as one plain folder name: ids name folders of runs."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "dataset"

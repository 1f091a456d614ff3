"""The tree of labels: levels from coarse to fine, every label below the first with exactly one parent.

Stored per level as sorted class names and an integer array of parents. Labels are then small integers, the parent of
a class is one array lookup, and the order of rows in a file never changes the index of a class. A graph of node objects
would need more memory and offer nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from data.errors import DataError, counted, listed, quoted

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Conflict:
    """One label that stands under several parents.

    `level` is the label's own level (>= 1); `parents` are the parents' names, sorted; `rows` gives, for each parent,
    the position (0-based) of the first row that pairs them.
    """

    level: int
    label: str
    parents: tuple[str, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Levels, coarsest first, the classes of each, and every class's parent.

    `names`: L level names. `classes`: per level the class names, sorted by code point. `parents`: L - 1 read-only
    int64 arrays; ``parents[l][c]`` is the index in level l of the parent of class c of level l + 1.

    :raises DataError: on construction, if the three disagree (lengths, order, repeated names, index out of range).
    """

    names: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    parents: tuple[Indices, ...]

    def __post_init__(self) -> None:
        """Check the parts against one another and freeze the arrays."""
        parents, shapes = tuple(np.array(array, dtype=np.int64) for array in self.parents), []
        for array in parents:
            array.flags.writeable = False
            shapes.append(array.shape)
        object.__setattr__(self, "parents", parents)
        if len(self.classes) != len(self.names) or shapes != [(size,) for size in self.sizes[1:]]:
            raise DataError(
                f"{counted(len(self.names), 'level')} with {counted(len(self.classes), 'class list')} and "
                f"{counted(len(parents), 'parent array')} of shapes {shapes}",
                "give one class list per level and, below the first, the parent of each of its classes",
            )
        for name, classes in zip(self.names, self.classes, strict=True):
            if any(one >= other for one, other in pairwise(classes)):
                raise DataError(f"the classes of level {name} are not sorted and distinct", "sort them, each once")
        for array, above, name in zip(parents, self.sizes, self.names, strict=False):
            if ((array < 0) | (array >= above)).any():
                raise DataError(
                    f"a parent lies outside the {above} classes of level {name}", "use indices of that level"
                )

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, names: Sequence[str]) -> Hierarchy:
        """Read the tree from a frame whose columns `names` hold the labels of each level, coarsest first.

        A null means that the row has no label of that level.

        :raises DataError: if a label stands under two parents or under none, naming labels, parents and rows (1-based).
        """
        conflicts = find_conflicts(frame, names)
        if conflicts:
            raise conflict_error(conflicts, names)
        classes = tuple(tuple(frame.get_column(name).drop_nulls().unique().sort().to_list()) for name in names)
        parents = []
        for level in range(len(names) - 1):
            coarse, fine = names[level], names[level + 1]
            gap = frame.select(pl.col(fine).is_not_null() & pl.col(coarse).is_null()).to_series().arg_true()
            if len(gap):
                problem = f"row {gap[0] + 1} has a label of level {fine} and none of level {coarse}"
                raise DataError(problem, "fill it in, or leave the row out")
            pairs = frame.select(coarse, fine).drop_nulls(fine).unique(subset=[fine], keep="any").sort(fine)
            parents.append(class_indices(pairs.get_column(coarse), classes[level]))
        return cls(tuple(names), classes, tuple(parents))

    @property
    def depth(self) -> int:
        """Number of levels L."""
        return len(self.names)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of classes per level, coarsest first."""
        return tuple(len(classes) for classes in self.classes)

    def children(self, level: int) -> Indices:
        """Return how many classes of `level` + 1 each class of `level` has: int64 [C_level]."""
        return np.bincount(self.parents[level], minlength=self.sizes[level]).astype(np.int64)

    def labels(self, frame: pl.DataFrame) -> Indices:
        """Return the labels of `frame` as indices in `classes`: int64 [n, L], coarsest first, -1 for no label.

        :raises DataError: if the frame holds a label that is not a class of this hierarchy.
        """
        columns = [
            class_indices(frame.get_column(name), classes)
            for name, classes in zip(self.names, self.classes, strict=True)
        ]
        return np.stack(columns, axis=1) if columns else np.empty((frame.height, 0), np.int64)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hierarchy):
            return NotImplemented
        same = self.names == other.names and self.classes == other.classes
        return same and all(np.array_equal(a, b) for a, b in zip(self.parents, other.parents, strict=True))

    def __hash__(self) -> int:
        """Agree with equality; parents are left out, which equality alone compares."""
        return hash((self.names, self.classes))


def find_conflicts(frame: pl.DataFrame, names: Sequence[str]) -> list[Conflict]:
    """Return every label of `frame` that stands under two parents, level by level, then by label.

    Rows where either label is missing (null) are skipped: `data.checks` reports those.
    """
    found: list[Conflict] = []
    for level in range(1, len(names)):
        coarse, fine = names[level - 1], names[level]
        pairs = (
            frame.select(pl.col(coarse).alias("parent"), pl.col(fine).alias("label"))
            .with_row_index("row")
            .drop_nulls()
            .group_by("label", "parent")
            .agg(pl.col("row").min())
        )
        several = (
            pairs.filter(pl.len().over("label") > 1)
            .sort("label", "parent")
            .group_by("label", maintain_order=True)
            .agg("parent", "row")
        )
        found.extend(
            Conflict(level, label, tuple(parents), tuple(rows)) for label, parents, rows in several.iter_rows()
        )
    return found


def conflict_error(
    conflicts: Sequence[Conflict], names: Sequence[str], numbers: Sequence[int] | None = None
) -> DataError:
    """Return the error for `conflicts`; `numbers` maps a row's position to the number a user sees (default: + 1)."""

    def described(conflict: Conflict) -> str:
        places = (
            f"{quoted(parent)} (row {numbers[row] if numbers is not None else row + 1})"
            for parent, row in zip(conflict.parents, conflict.rows, strict=True)
        )
        return f"{names[conflict.level]} {quoted(conflict.label)} under {listed(places, len(conflict.parents))}"

    remedy = "correct the rows, or add --qualify-labels to make each label parent/label"
    if all(conflict.label.startswith(f"{parent}/") for conflict in conflicts for parent in conflict.parents):
        remedy = "they are parent/label already and still alike, for names hold a slash: write these names without one"
    return DataError(
        f"{counted(len(conflicts), 'label')} under two parents: "
        + "; ".join(described(conflict) for conflict in conflicts[:3])
        + (f" and {len(conflicts) - 3:,} more" if len(conflicts) > 3 else ""),
        remedy,
    )


def qualified(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return `frame` with every label below the first level renamed parent/label, so that no two parents share one.

    The parent in the new name is the qualified one: at three levels ``a``, ``a/b``, ``a/b/c``.
    """
    for coarse, fine in pairwise(names):
        frame = frame.with_columns(pl.concat_str([coarse, fine], separator="/").alias(fine))
    return frame


def class_indices(column: pl.Series, classes: Sequence[str]) -> Indices:
    """Return the position of each value of `column` in the sorted `classes`: int64 [n], -1 for null.

    :raises DataError: if a value is not among them.
    """
    numbers = column.replace_strict(
        pl.Series(classes, dtype=pl.String), np.arange(len(classes)), default=None, return_dtype=pl.Int64
    )
    unknown = numbers.is_null() & column.is_not_null()
    if unknown.any():
        stranger = column.filter(unknown)[0]
        raise DataError(
            f"{column.name} {quoted(stranger)} is not a class of this hierarchy", "rebuild the hierarchy from the rows"
        )
    return numbers.fill_null(-1).to_numpy().astype(np.int64)

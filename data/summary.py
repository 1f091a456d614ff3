"""Statistics of a dataset: what `data show` prints.

Entropies are in bits, over the rows that have a label of the level. A finer label determines the coarser, so the chain
rule makes every conditional entropy a difference over these rows: H(L1 | L0) = H(L1) - H(L0). They say how much
information a prefix must hold: 3.32 bits (log2 of 10) for a CLINC domain, 3.91 more (log2 of 15) for the intent.
Counting takes milliseconds; lengths in tokens need a tokenizer, which this package does not have, so the caller passes
a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from data.dataset import Dataset
from data.splits import SPLITS

Lengths = Callable[[Sequence[str]], Sequence[int] | npt.NDArray[np.integer[Any]]]
"""Texts -> the length of each."""


@dataclass(frozen=True)
class Spread:
    """Mean, minimum, median, 95th percentile (both by the nearest lower rank) and maximum of some counts."""

    mean: float
    min: int
    median: int
    p95: int
    max: int


@dataclass(frozen=True)
class Level:
    """One level: its classes, their children, the level's entropy, and how evenly rows are distributed over classes.

    `branching`: children per class, None at the finest level. `entropy`: H(level), bits. `conditional_entropy`:
    H(level | level above), bits, H(level) itself at the first. `labelled`: rows with a label of this level. `rows`,
    `train_rows`: rows per class, in all and in train (0 for a class without any). `balance`: entropy over its maximum
    log2(classes), 1 where all classes are equal.
    """

    name: str
    classes: int
    branching: Spread | None
    entropy: float
    conditional_entropy: float
    labelled: int
    rows: Spread
    train_rows: Spread
    balance: float


@dataclass(frozen=True)
class Summary:
    """Statistics of a dataset.

    `splits`, `out_of_scope`: rows per split. `distinct`: distinct texts; `contradictions`: texts that stand under
    different labels; `in_two_splits`: texts that stand in two or more splits. `lengths`: characters, words and, where
    a tokenizer was given, tokens per row.
    """

    name: str
    id: str
    rows: int
    splits: dict[str, int]
    out_of_scope: dict[str, int]
    levels: tuple[Level, ...]
    distinct: int
    contradictions: int
    in_two_splits: int
    lengths: dict[str, Spread]
    warnings: tuple[str, ...]

    @property
    def duplicates(self) -> int:
        """Rows whose text an earlier row has."""
        return self.rows - self.distinct

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        plain = asdict(self)
        return plain | {
            "levels": list(plain["levels"]),
            "warnings": list(self.warnings),
            "duplicates": self.duplicates,
        }


def summarize(dataset: Dataset, token_lengths: Lengths | None = None) -> Summary:
    """Return the figures of `dataset`; `token_lengths` maps texts to their lengths in a backbone's tokens."""
    text = dataset.frame.get_column("text")
    lengths = {
        "characters": _spread(text.str.len_chars().to_numpy()),
        "words": _spread(text.str.count_matches(r"\S+").to_numpy()),
    }
    if token_lengths is not None:
        lengths["tokens"] = _spread(np.asarray(token_lengths(dataset.texts)))
    texts = dataset.frame.group_by("text").agg(
        pl.struct(dataset.levels).n_unique().alias("labels"), pl.col("split").n_unique().alias("splits")
    )
    return Summary(
        name=dataset.name,
        id=dataset.id,
        rows=len(dataset),
        splits=_rows_per_split(dataset.frame),
        out_of_scope={} if dataset.out_of_scope is None else _rows_per_split(dataset.out_of_scope),
        levels=_levels(dataset),
        distinct=texts.height,
        contradictions=int((texts["labels"] > 1).sum()),
        in_two_splits=int((texts["splits"] > 1).sum()),
        lengths=lengths,
        warnings=dataset.warnings,
    )


def entropy(counts: npt.NDArray[np.int64]) -> float:
    """Return the Shannon entropy in bits of the distribution that `counts` (non-negative, [C]) are drawn from."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _levels(dataset: Dataset) -> tuple[Level, ...]:
    levels = []
    train = dataset.split_rows("train")
    for index, (name, size) in enumerate(zip(dataset.levels, dataset.hierarchy.sizes, strict=True)):
        labels = dataset.labels[dataset.labels[:, index] >= 0]
        rows = np.bincount(labels[:, index], minlength=size)
        bits = entropy(rows)
        above = entropy(np.bincount(labels[:, index - 1])) if index else 0.0
        in_train = dataset.labels[train, index]
        finest = index + 1 == len(dataset.levels)
        levels.append(
            Level(
                name=name,
                classes=size,
                branching=None if finest else _spread(dataset.hierarchy.children(index)),
                entropy=bits,
                conditional_entropy=bits - above,
                rows=_spread(rows),
                labelled=len(labels),
                train_rows=_spread(np.bincount(in_train[in_train >= 0], minlength=size)),
                balance=bits / float(np.log2(size)) if size > 1 else 1.0,
            )
        )
    return tuple(levels)


def _rows_per_split(frame: pl.DataFrame) -> dict[str, int]:
    return {split: int((frame.get_column("split") == split).sum()) for split in SPLITS}


def _spread(counts: npt.NDArray[Any]) -> Spread:
    median, p95 = (int(value) for value in np.quantile(counts, (0.5, 0.95), method="lower"))
    return Spread(float(counts.mean()), int(counts.min()), median, p95, int(counts.max()))

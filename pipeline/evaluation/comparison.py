"""Methods against each other: which differences would be there again with other seeds, and with other texts.

Two runs of one seed share their samples and the order of their batches, so differences are paired by seed: the mean
difference with Student's interval, p, and Cohen's d. p is adjusted by Holm over all rows of a comparison, for all of
them are read together. Beside it stands a paired bootstrap over texts of the seeds' mean difference, since seeds do not
sample texts: a difference may be sure to return with every seed and still be an accident of the test split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.evaluation import statistics
from pipeline.evaluation.predictions import STEERABILITY, STEERING_SPAN, Predictions, steering

Floats = NDArray[np.float64]

LEVEL = 0.05
"""Adjusted p below which a sentence says "beats"."""


@dataclass(frozen=True)
class Entry:
    """One run's answers under one protocol. `method` is how rows name it, such as "v5" or "v5 (linear)"."""

    method: str
    seed: int
    predictions: Predictions


@dataclass(frozen=True)
class Comparison:
    """One row: a against b in one metric. Shares, not points; differences are a - b.

    `prefix` (1 is the shortest), `dim` and `level` are None for steerability and its two terms. `ci95` and `p` are over
    n seeds, None where they cannot be had (see `statistics.PairedTest`); `texts_ci95` is over texts.
    """

    a: str
    b: str
    metric: str
    prefix: int | None
    dim: int | None
    level: int | None
    n: int
    mean_a: float
    mean_b: float
    mean_difference: float
    sd: float | None
    ci95: tuple[float, float] | None
    p: float | None
    p_holm: float | None
    cohens_d: float | None
    texts_ci95: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """The row as `compare --json` prints it."""
        return {**asdict(self), "sentence": self.sentence()}

    def sentence(self, levels: Sequence[str] | None = None) -> str:
        """Say the row in plain words.

        :param levels: names of the levels; by default "level 0" and so on.
        """
        where = self.metric.replace("_", " ")
        if self.level is not None:
            where = f"{levels[self.level] if levels else f'level {self.level}'} at {self.dim} dims"
        equal = f"no significant difference between {self.a} and {self.b} on {where}"
        low, high = self.texts_ci95 if self.ci95 is None else self.ci95
        if self.p_holm is not None and self.p_holm >= LEVEL:
            gap = f"{self.mean_difference * 100:+.1f} points [{low * 100:+.1f}, {high * 100:+.1f}]"
            return f"{equal}: {gap}, n={self.n}, p={self.p_holm:.2g} (Holm)"
        ahead = self.mean_difference >= 0
        first, second = (self.a, self.b) if ahead else (self.b, self.a)
        low, high = (low, high) if ahead else (-high, -low)
        gap = f"{abs(self.mean_difference) * 100:.1f} points [{low * 100:.1f}, {high * 100:.1f}]"
        if self.p_holm is None:
            sure = f"{gap} over texts, n={self.n}, too few seeds to test"
            if low <= 0:
                return f"{equal}: {sure}"
            return f"{first} is ahead of {second} on {where} by {sure}"
        return f"{first} beats {second} on {where} by {gap}, n={self.n}, p={self.p_holm:.2g} (Holm)"


def compare(entries: Sequence[Entry]) -> list[Comparison]:
    """Compare every two methods: accuracy at each prefix and level, then steerability and its two terms.

    :param entries: runs of one protocol, all of the same texts; methods are paired in the order met.
    :returns: rows by pair, metric, prefix and level, their p-values adjusted together.
    :raises PipelineError: if there are not two methods, no two have a seed in common, a method has a seed twice, or
        entries asked other texts or prefixes than the first.
    """
    methods = _by_method(entries)
    if len(methods) < 2:
        raise PipelineError(
            f"nothing to compare: {len(methods)} method ({', '.join(methods) or 'none'})",
            "score runs of two methods or more with the same protocol",
        )
    pairs = list(combinations(methods, 2))
    paired = [(a, b) for a, b in pairs if methods[a].keys() & methods[b].keys()]
    rows = [row for a, b in paired or pairs for row in _rows(a, b, methods[a], methods[b])]
    adjusted = statistics.holm([row.p for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True)]


def seeds_in_common(a: dict[int, Predictions], b: dict[int, Predictions], names: tuple[str, str]) -> list[int]:
    """Seeds that both methods were trained with, ascending.

    :raises PipelineError: if there is none.
    """
    common = sorted(a.keys() & b.keys())
    if not common:
        raise PipelineError(
            f"{names[0]} (seeds {_spelled(a)}) and {names[1]} (seeds {_spelled(b)}) share no seed",
            "train both with the same --seeds",
        )
    return common


def _by_method(entries: Sequence[Entry]) -> dict[str, dict[int, Predictions]]:
    """Answers by method and seed, methods in the order met."""
    methods: dict[str, dict[int, Predictions]] = {}
    for entry in entries:
        seeds = methods.setdefault(entry.method, {})
        if entry.seed in seeds:
            raise PipelineError(
                f"{entry.method} has two runs with seed {entry.seed}",
                "name them apart (head, layer, hyper-parameters) or compare one of them",
            )
        if not _same_queries(entry.predictions, entries[0].predictions):
            raise PipelineError(
                f"{entry.method} with seed {entry.seed} was not asked what {entries[0].method} was",
                "score them on the same dataset with the same protocol, k and prefixes",
            )
        seeds[entry.seed] = entry.predictions
    return methods


def _same_queries(one: Predictions, other: Predictions) -> bool:
    facts = [
        (predictions.protocol, predictions.k, predictions.dims, predictions.gallery, predictions.origin)
        for predictions in (one, other)
    ]
    return (
        facts[0] == facts[1]
        and np.array_equal(one.query_index, other.query_index)
        and np.array_equal(one.labels, other.labels)
    )


def _rows(a: str, b: str, a_runs: dict[int, Predictions], b_runs: dict[int, Predictions]) -> Iterator[Comparison]:
    """All rows of one pair, p not adjusted yet."""
    seeds = seeds_in_common(a_runs, b_runs, (a, b))
    first = a_runs[seeds[0]]
    first_values, second_values = (
        np.stack([_contributions(runs[seed]) for seed in seeds]) for runs in (a_runs, b_runs)
    )
    reach = _span_of(first)
    intervals = statistics.bootstrap_interval(
        (first_values - second_values).mean(axis=0), first.query_index, span=(-reach, reach), seed=first.seed
    )
    means_a, means_b = first_values.mean(axis=1), second_values.mean(axis=1)
    for column, (metric, prefix, level) in enumerate(_columns(first)):
        test = statistics.paired_test(means_a[:, column] - means_b[:, column])
        yield Comparison(
            a=a,
            b=b,
            metric=metric,
            prefix=None if prefix is None else prefix + 1,
            dim=None if prefix is None else first.dims[prefix],
            level=level,
            n=test.n,
            mean_a=float(means_a[:, column].mean()),
            mean_b=float(means_b[:, column].mean()),
            mean_difference=test.mean,
            sd=test.sd,
            ci95=test.interval,
            p=test.p,
            p_holm=None,
            cohens_d=test.cohens_d,
            texts_ci95=(float(intervals[column, 0]), float(intervals[column, 1])),
        )


def _columns(predictions: Predictions) -> list[tuple[str, int | None, int | None]]:
    """What the columns of `_contributions` are: metric, prefix and level."""
    cells: list[tuple[str, int | None, int | None]] = [
        ("accuracy", j, level) for j, level in np.ndindex(len(predictions.dims), predictions.labels.shape[1])
    ]
    return cells + ([] if predictions.steerability is None else [(name, None, None) for name in STEERABILITY])


def _contributions(predictions: Predictions) -> Floats:
    """What each answer adds to each metric: float64 [m, columns], whose means over m are the metrics."""
    correct = np.moveaxis(predictions.correct, 1, 0).reshape(len(predictions.query_index), -1).astype(np.float64)
    return (
        correct
        if predictions.steerability is None
        else np.concatenate([correct, steering(predictions.correct)], axis=1)
    )


def _span_of(predictions: Predictions) -> Floats:
    """How far from 0 a text can be in each column of a difference, float64 [columns]."""
    cells = np.ones(len(predictions.dims) * predictions.labels.shape[1])
    return cells if predictions.steerability is None else np.concatenate([cells, 2 * STEERING_SPAN])


def _spelled(runs: dict[int, Predictions]) -> str:
    return ", ".join(map(str, sorted(runs)))

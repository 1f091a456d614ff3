"""Methods against each other: which differences would be there again with other seeds, and with other texts.

Two runs of one seed share their samples and the order of their batches, so differences are paired by seed: the mean
difference with Student's interval, p, and Cohen's d. p is adjusted by Holm over all rows of a comparison, for all of
them are read together. Beside it is a paired bootstrap over texts of the seeds' mean difference, since seeds do not
sample texts. `interval` is the one over both (`statistics.combine`): every table and sentence that calls a method
ahead or worse reads it, and there is no other verdict. A method without a seed, such as principal components, is the
same in every pair: the test over seeds is then of one sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.evaluation import statistics
from pipeline.evaluation.predictions import STEERABILITY, STEERING_SPAN, Predictions
from pipeline.evaluation.ranking import Comparison

Floats = NDArray[np.float64]
Runs = Mapping[int | None, Predictions]
Method = tuple[str, Runs]
Cell = tuple[int, int, int]
"""Prefix of a, prefix of b, level."""

OVERALL = "mean accuracy"
"""Metric of `overall`: the mean over all prefixes and levels that two methods share."""


@dataclass(frozen=True)
class Entry:
    """One run's predictions under one protocol. `method` is how rows name it, such as "v5" or "v5 (linear)".

    `seed` is None for what no seed changes: vectors that no training made (`untrained`) and closed forms.
    """

    method: str
    seed: int | None
    predictions: Predictions
    untrained: bool = False
    closed_form: bool = False


def compare(entries: Sequence[Entry]) -> list[Comparison]:
    """Compare every two methods: accuracy at each prefix and level, then steerability and its two terms.

    Two methods that nobody trained are not compared with each other.

    :param entries: runs of one protocol, all of the same texts; methods are paired in the order met.
    :returns: rows by pair, metric, prefix and level, their p-values adjusted together.
    :raises PipelineError: if there are not two methods, no two have a seed in common, a method has a seed twice, or
        entries queried other texts than the first.
    """
    rows = _rows([(a, b, _columns(a[1], b[1])) for a, b in _pairs(entries)])
    adjusted = statistics.holm([row.p for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True)]


def overall(entries: Sequence[Entry]) -> list[Comparison]:
    """Compare every two methods in one figure: mean accuracy over the prefixes and levels that both have.

    :raises PipelineError: as `compare` does.
    """
    labels = entries[0].predictions.labels
    pairs = _pairs(entries)
    return _rows([(a, b, [_Column(OVERALL, _telling(_shared(a[1], b[1]), labels))]) for a, b in pairs])


def seeds_in_common(a: Runs, b: Runs, names: tuple[str, str]) -> list[int | None]:
    """Seeds that both methods were trained with, ascending; those of the other where one has none.

    :raises PipelineError: if there is none.
    """
    if None in a or None in b:
        return _ascending(b if None in a else a)
    common = _ascending(a.keys() & b.keys())
    if not common:
        raise PipelineError(
            f"{names[0]} (seeds {_spelled(a)}) and {names[1]} (seeds {_spelled(b)}) share no seed",
            "train both with the same --seeds",
        )
    return common


def by_method(entries: Sequence[Entry]) -> dict[str, Runs]:
    """Predictions by method and seed, methods in the order met.

    :raises PipelineError: if a method has a seed twice, or entries queried other texts than the first.
    """
    methods: dict[str, dict[int | None, Predictions]] = {}
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
                "score them on the same dataset with the same protocol and k",
            )
        seeds[entry.seed] = entry.predictions
    return dict(methods)


def first_of(runs: Runs) -> Predictions:
    """The predictions of the first seed, which have the texts and prefixes of all of them."""
    return next(iter(runs.values()))


def _pairs(entries: Sequence[Entry]) -> list[tuple[Method, Method]]:
    methods = by_method(entries)
    if len(methods) < 2:
        raise PipelineError(
            f"nothing to compare: {len(methods)} method ({', '.join(methods) or 'none'})",
            "score runs of two methods or more with the same protocol",
        )
    untrained = {entry.method for entry in entries if entry.untrained}
    pairs = [pair for pair in combinations(methods.items(), 2) if {pair[0][0], pair[1][0]} - untrained]
    paired = [(a, b) for a, b in pairs if None in a[1] or None in b[1] or a[1].keys() & b[1].keys()]
    return paired or pairs


def _same_queries(one: Predictions, other: Predictions) -> bool:
    facts = ("protocol", "k", "gallery", "origin", "query_index", "labels")
    return all(np.array_equal(getattr(one, fact), getattr(other, fact)) for fact in facts)


@dataclass(frozen=True)
class _Column:
    """A metric of a pair: the cells of `outcomes` it is the mean of; `steering`: instead, a column of `steering`."""

    metric: str
    cells: tuple[Cell, ...] = ()
    steering: int | None = None

    def values(self, predictions: Predictions, side: int) -> Floats:
        """What each prediction adds, float64 [m]; `side` 0 is a's, 1 b's."""
        if self.steering is not None:
            return predictions.steering[:, self.steering]
        columns = [predictions.outcomes[:, cell[side], cell[2]] for cell in self.cells]
        if len(columns) == 1:
            return columns[0]
        stacked = np.stack(columns)
        known = ~np.isnan(stacked)
        counts, hits = known.sum(axis=0), np.where(known, stacked, 0.0).sum(axis=0)
        return np.asarray(np.divide(hits, counts, out=np.full(hits.shape, np.nan), where=counts > 0))

    @property
    def span(self) -> float:
        """How far from 0 a difference can be for one text."""
        return 1.0 if self.steering is None else float(2 * STEERING_SPAN[self.steering])


def _shared(a: Runs, b: Runs, *, ends: bool = False) -> tuple[Cell, ...]:
    """Cells of the prefixes that both have; of the full vectors too if they share no length, or if `ends`."""
    first, second = first_of(a), first_of(b)
    pairs = [(i, second.dims.index(dim)) for i, dim in enumerate(first.dims) if dim in second.dims]
    full = (len(first.dims) - 1, len(second.dims) - 1)
    if full not in pairs and (ends or not pairs):
        pairs.append(full)
    return tuple((*pair, level) for pair in pairs for level in range(first.labels.shape[1]))


def _telling(cells: Sequence[Cell], labels: NDArray[np.int64]) -> tuple[Cell, ...]:
    """Leave out levels on which all texts have one class, unless there are no others: every answer there is right."""
    found = tuple(cell for cell in cells if len(np.unique(labels[labels[:, cell[2]] >= 0, cell[2]])) > 1)
    return found or tuple(cells)


def _columns(a: Runs, b: Runs) -> list[_Column]:
    """Accuracy at every shared prefix, of the full vectors too where they differ in length, then the steerability."""
    first, second = first_of(a), first_of(b)
    columns = [_Column("accuracy", (cell,)) for cell in _shared(a, b, ends=True)]
    if first.steerability is None or first.dims != second.dims:
        return columns
    return columns + [_Column(name, steering=i) for i, name in enumerate(STEERABILITY)]


def _rows(pairs: Sequence[tuple[Method, Method, Sequence[_Column]]]) -> list[Comparison]:
    """All rows of these pairs, p not adjusted yet. All are resampled at once, which costs little more than one."""
    differences, means, spans = [], [], []
    for a, b, columns in pairs:
        seeds = seeds_in_common(a[1], b[1], (a[0], b[0]))
        runs = [[of.get(seed) or of[None] for seed in seeds] for of in (a[1], b[1])]
        for column in columns:
            values = [np.stack([column.values(predictions, i) for predictions in of]) for i, of in enumerate(runs)]
            differences.append((values[0] - values[1]).mean(axis=0))
            means.append([np.nanmean(of, axis=1) for of in values])
            spans.append(column.span)
    if not pairs:
        return []
    first, span = first_of(pairs[0][0][1]), np.array(spans)
    texts = statistics.bootstrap_interval(np.stack(differences, axis=1), first.query_index, span=(-span, span))
    compared = [(a, b, column) for a, b, columns in pairs for column in columns]
    return [_row(*of, *figures) for of, *figures in zip(compared, means, texts, strict=True)]


def _row(a: Method, b: Method, column: _Column, means: Sequence[Floats], texts: Floats) -> Comparison:
    """One metric of a pair: means [s] of a and of b by seed, and the interval of their difference over texts."""
    first, second = first_of(a[1]), first_of(b[1])
    test, over_texts = statistics.paired_test(means[0] - means[1]), (float(texts[0]), float(texts[1]))
    cell = column.cells[0] if len(column.cells) == 1 else None
    span = (-column.span, column.span)
    return Comparison(
        a=a[0],
        b=b[0],
        metric=column.metric,
        prefix=None if cell is None else cell[0] + 1,
        dim=None if cell is None else first.dims[cell[0]],
        dim_b=None if cell is None else second.dims[cell[1]],
        level=None if cell is None else cell[2],
        n=test.n,
        mean_a=float(means[0].mean()),
        mean_b=float(means[1].mean()),
        mean_difference=test.mean,
        sd=test.sd,
        ci95=test.interval,
        p=test.p,
        p_holm=None,
        cohens_d=test.cohens_d,
        texts_ci95=over_texts,
        interval=statistics.combine(means[0] - means[1], over_texts, span).interval,
    )


def _ascending(seeds: Any) -> list[int | None]:
    return sorted(seeds, key=lambda seed: -1 if seed is None else seed)


def _spelled(runs: Runs) -> str:
    return ", ".join(map(str, _ascending(runs)))

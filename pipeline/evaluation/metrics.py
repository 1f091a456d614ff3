"""What predicted labels are worth: accuracies, how bad the errors are, what steering and truncating an embedding buy.

Everything here is counting over integer arrays, with no model and no search, so that a figure of any source (nearest
neighbours, a head's classifiers, somebody else's predictions) is defined in one place. Labels are [q, L] int64,
coarsest level first; predictions may have a leading axis for prefixes where a function says so.

An intent mistaken for a sibling of the same domain is a smaller error than one mistaken for a stranger: the distance of
an error is the number of levels at which the predicted class and the true one have different ancestors. 1 is a sibling,
L shares nothing. The prediction of one level is followed up the tree for this; votes at coarser levels play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def accuracy(labels: Ints, predicted: Ints) -> Floats:
    """Share of correct predictions, of the queries that have a label on the level; NaN where none has.

    :param labels: [q, L], -1 where a query has no label.
    :param predicted: [..., q, L].
    :returns: float64 [..., L].
    """
    correct = predicted == labels
    if (labels >= 0).all():
        return np.asarray(correct.mean(axis=-2), dtype=np.float64)
    known = (labels >= 0).sum(axis=0)
    hits = np.where(labels < 0, False, correct).sum(axis=-2)
    return np.asarray(np.divide(hits, known, out=np.full(hits.shape, np.nan), where=known > 0))


def by_class(classes: Ints, correct: NDArray[np.bool_], count: int = 0) -> tuple[Floats, Ints]:
    """Accuracy over the queries of each class, be it the class asked for or one above it.

    :param classes: [q], the class of each query.
    :param correct: [..., q], whether its prediction is correct.
    :param count: number C of classes there are; at least as many are returned as there are in `classes`.
    :returns: float64 [..., C], NaN where a class has no query; int64 [C], the queries of each.
    """
    queries = np.bincount(classes, minlength=count)
    rows = correct.reshape(-1, len(classes)).astype(np.float64)
    hits = np.stack([np.bincount(classes, weights=row, minlength=count) for row in rows])
    shares = np.divide(hits, queries, out=np.full(hits.shape, np.nan), where=queries > 0)
    return shares.reshape(*correct.shape[:-1], len(queries)), queries


def macro(labels: Ints, predicted: Ints) -> Floats:
    """Mean over classes of the accuracy of each, the classes that have a query.

    :param labels: [q, L].
    :param predicted: [..., q, L].
    :returns: float64 [..., L].
    """
    means = []
    for level, column in enumerate(labels.T):
        known = column >= 0
        shares, _ = by_class(column[known], predicted[..., known, level] == column[known])
        means.append(np.nanmean(shares, axis=-1))
    return np.stack(means, axis=-1)


@dataclass(frozen=True)
class Steerability:
    """What choosing a prefix steers; shares, not points.

    `coarse_gain`: level 0 at the shortest prefix minus at the full vector. `fine_gain`: the finest level at the full
    vector minus at the shortest prefix. A prefix that only loses has a coarse gain below zero and can still have a
    large fine gain, which is why `total`, their sum, is never shown alone.
    """

    coarse_gain: float
    fine_gain: float

    @property
    def total(self) -> float:
        """S."""
        return self.coarse_gain + self.fine_gain


def steerability(accuracies: Floats) -> Steerability | None:
    """S = (L0@j1 - L0@j4) + (Lfine@j4 - Lfine@j1), of accuracies [J, L]; None with one level or one prefix."""
    if min(accuracies.shape) < 2:
        return None
    first, last = accuracies[0], accuracies[-1]
    return Steerability(float(first[0] - last[0]), float(last[-1] - first[-1]))


def smallest_prefix(accuracies: Sequence[float] | Floats, dims: Sequence[int], within: float = 0.01) -> int:
    """The fewest dimensions that lose no more than `within` against the full vector.

    :param accuracies: [J], of one level, shortest prefix first.
    :param dims: J lengths.
    """
    floor = round(accuracies[-1] - within, 12)  # 0.90 is within one point of 0.91, whatever binary fractions say
    return next(dim for dim, value in zip(dims, accuracies, strict=True) if value >= floor)


@dataclass(frozen=True)
class Confusion:
    """A class taken for another, how often, and the distance between them."""

    truth: int
    predicted: int
    count: int
    distance: int


@dataclass(frozen=True)
class Errors:
    """The errors of one level, by distance in the tree.

    `within` stay below the right parent, `across` leave it. `by_distance[d - 1]` counts the errors of distance d.
    `mean_distance` is over errors, None without any; `chance_distance` is what errors would have that fell on any other
    class of the level alike. `explained[l]` is the share of the errors whose ancestors part at level l, so that level
    0's share are the errors that a perfect coarse answer would have prevented; the shares add up to 1.
    """

    queries: int
    errors: int
    within: int
    across: int
    by_distance: tuple[int, ...]
    mean_distance: float | None
    chance_distance: float | None
    explained: tuple[float, ...]
    worst: tuple[Confusion, ...]


def errors(labels: Ints, predicted: Ints, parents: Sequence[Ints], level: int, worst: int = 10) -> Errors:
    """Judge the errors made at one level by the tree above it.

    :param labels: [q], classes of `level`; -1, no label, is left out.
    :param predicted: [q]; -1, no label, is as far off as can be.
    :param parents: the hierarchy's, parents[l][c] being the class of level l above class c of level l + 1.
    :param level: index of the level, 0 the coarsest.
    :param worst: how many of the most frequent confusions to list.
    :raises PipelineError: if the hierarchy has no such level.
    """
    if not 0 <= level <= len(parents):
        raise PipelineError(f"the hierarchy has no level {level}", f"give a level from 0 to {len(parents)}")
    labels, predicted = labels[labels >= 0], predicted[labels >= 0]
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    distances = distance(pairs[:, 0], pairs[:, 1], parents, level)
    by_distance = np.bincount(distances, weights=counts, minlength=level + 2)[1:].astype(np.int64)
    total = int(counts.sum())
    within = int(by_distance[0]) if level else 0
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -counts))[:worst]
    return Errors(
        queries=len(labels),
        errors=total,
        within=within,
        across=total - within,
        by_distance=tuple(by_distance.tolist()),
        mean_distance=float(distances @ counts) / total if total else None,
        chance_distance=_chance_distance(labels[wrong], parents, level) if total else None,
        explained=tuple((by_distance[::-1] / max(total, 1)).tolist()),
        worst=tuple(Confusion(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i]), int(distances[i])) for i in order),
    )


def distance(a: Ints, b: Ints, parents: Sequence[Ints], level: int) -> Ints:
    """Number of levels, from `level` upwards, at which classes a [n] and b [n] have different ancestors."""
    result: Ints = (a != b).astype(np.int64)
    none = (a < 0) | (b < 0)
    for above in reversed(parents[:level]):
        a, b = above[a], above[b]
        result += (a != b) | none
    return result


def _chance_distance(labels: Ints, parents: Sequence[Ints], level: int) -> float:
    """Mean distance from labels [n] to all other classes of their level that the hierarchy has."""
    if not level:
        return 1.0
    classes = np.arange(len(parents[level - 1]))
    truths, counts = np.unique(labels, return_counts=True)
    means = [distance(np.full(len(classes), truth), classes, parents, level).sum() for truth in truths]
    return float(np.dot(means, counts) / counts.sum() / (len(classes) - 1))

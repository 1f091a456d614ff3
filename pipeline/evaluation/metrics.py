"""What predicted labels are worth: accuracies, what steering and truncating an embedding buy.

Everything here is counting over integer arrays, with no model and no search, so that a figure of any source (nearest
neighbours, a head's classifiers, somebody else's predictions) is defined in one place. Labels are [q, L] int64,
coarsest level first; predictions may have a leading axis for prefixes where a function says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def accuracy(labels: Ints, predicted: Ints) -> Floats:
    """Share of correct predictions, of the queries that have a label on the level; NaN where none has.

    :param labels: [q, L], -1 where a query has no label.
    :param predicted: [..., q, L].
    :returns: float64 [..., L].
    """
    known = (labels >= 0).sum(axis=0)
    hits = ((predicted == labels) & (labels >= 0)).sum(axis=-2)
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


class Steerability(NamedTuple):
    """What choosing a prefix steers; shares, not points.

    `coarse_gain`: level 0 at the shortest prefix minus at the full vector. `fine_gain`: the finest level at the full
    vector minus at the shortest prefix. A prefix that only loses has a coarse gain below zero and can still have a
    large fine gain, which is why `total`, their sum S, is never shown alone.
    """

    total: float
    coarse_gain: float
    fine_gain: float


def steerability(accuracies: Floats) -> Steerability | None:
    """S = (L0@j1 - L0@j4) + (Lfine@j4 - Lfine@j1), of accuracies [J, L]; None with one level or one prefix."""
    if min(accuracies.shape) < 2:
        return None
    first, last = accuracies[0], accuracies[-1]
    coarse, fine = float(first[0] - last[0]), float(last[-1] - first[-1])
    return Steerability(coarse + fine, coarse, fine)


def smallest_prefix(accuracies: Sequence[float] | Floats, dims: Sequence[int]) -> int:
    """The fewest dimensions that lose no more than one point against the full vector.

    :param accuracies: [J], of one level, shortest prefix first.
    :param dims: J lengths.
    """
    floor = round(accuracies[-1] - 0.01, 12)  # 0.90 is within one point of 0.91, whatever binary fractions say
    return next(dim for dim, value in zip(dims, accuracies, strict=True) if round(value, 12) >= floor)

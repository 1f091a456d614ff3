"""Where answers go wrong: by class, by parent, and by how far in the tree a wrong label is from the right one.

An intent taken for its sibling is a smaller error than one taken for a stranger, and an index that is right about the
domain can still be useful. So errors are counted by distance: the number of levels at which the predicted
class and the true one have different ancestors. 1 is a sibling, L shares nothing. The prediction of the finest level is
followed up the tree for this; votes at coarser levels play no part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import data
from pipeline.evaluation import metrics
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.scores import Confused, Identity, PrefixErrors

Ints = NDArray[np.int64]
_SCHEMA = {
    "run": pl.String,
    "method": pl.String,
    "seed": pl.Int64,
    "protocol": pl.String,
    "k": pl.Int64,
    "dim": pl.Int64,
    "level": pl.String,
    "by": pl.String,
    "class": pl.String,
    "queries": pl.Int64,
    "accuracy": pl.Float64,
}


_WORST = 50
"""How many of the most frequent confusions are listed."""


def errors_of(predictions: Predictions, hierarchy: data.Hierarchy) -> tuple[PrefixErrors, ...]:
    """Judge the errors on the finest level, a record per prefix."""
    labels = predictions.labels[predictions.query_index, -1]
    return tuple(
        prefix_errors(labels, predicted, hierarchy, dim)
        for dim, predicted in zip(predictions.dims, predictions.predicted[:, :, -1], strict=True)
    )


def prefix_errors(labels: Ints, predicted: Ints, hierarchy: data.Hierarchy, dim: int) -> PrefixErrors:
    """Judge the errors made on the finest level by the tree above it.

    :param labels: [q], classes of the finest level; -1, no label, is left out.
    :param predicted: [q]; -1, no label, is as far off as can be.
    """
    level, names = hierarchy.depth - 1, hierarchy.classes[-1]
    labels, predicted = labels[labels >= 0], predicted[labels >= 0]
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    distances = distance(pairs[:, 0], pairs[:, 1], hierarchy.parents)
    by_distance = np.bincount(distances, weights=counts, minlength=level + 2)[1:].astype(np.int64)
    total = int(counts.sum())
    within = int(by_distance[0]) if level else 0
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -counts))[:_WORST]
    return PrefixErrors(
        dim=dim,
        level=level,
        queries=len(labels),
        errors=total,
        within=within,
        across=total - within,
        by_distance=tuple(by_distance.tolist()),
        mean_distance=float(distances @ counts) / total if total else None,
        chance_distance=_chance_distance(labels[wrong], hierarchy) if total else None,
        explained=tuple((by_distance[::-1] / max(total, 1)).tolist()),
        worst=tuple(
            Confused(names[a], "(none)" if b < 0 else names[b], int(counts[i]), int(distances[i]))
            for i, (a, b) in zip(order, pairs[order].tolist(), strict=True)
        ),
    )


def distance(a: Ints, b: Ints, parents: Sequence[Ints]) -> Ints:
    """Number of levels at which classes a [n] and b [n] of the finest level have different ancestors."""
    result: Ints = (a != b).astype(np.int64)
    none = (a < 0) | (b < 0)
    for above in reversed(parents):
        a, b = above[a], above[b]
        result += (a != b) | none
    return result


def _chance_distance(labels: Ints, hierarchy: data.Hierarchy) -> float:
    """Mean distance from labels [n] to all other classes of the finest level."""
    classes = np.arange(hierarchy.sizes[-1])
    truths, counts = np.unique(labels, return_counts=True)
    means = [distance(np.full(len(classes), truth), classes, hierarchy.parents).sum() for truth in truths]
    return float(np.dot(means, counts) / counts.sum() / max(len(classes) - 1, 1))


def per_class_frame(predicted: Sequence[tuple[Identity, Predictions]], hierarchy: data.Hierarchy) -> pl.DataFrame:
    """Accuracy on every level of the texts of every class of that level and of those above it.

    :param predicted: what names a scorable, and its predictions.
    :returns: one row per prefix, level and class: run, method, seed, protocol, k, dim, level (of the answer), by
        (the level of the class), class, queries, accuracy. Classes without a query have no row.
    """
    rows = [row for identity, predictions in predicted for row in _per_class(identity, predictions, hierarchy)]
    return pl.DataFrame(rows, schema=_SCHEMA)


def _per_class(identity: Identity, predictions: Predictions, hierarchy: data.Hierarchy) -> Iterator[dict[str, Any]]:
    named = {
        "run": identity.run,
        "method": identity.method,
        "seed": identity.seed,
        "protocol": predictions.protocol,
        "k": predictions.k,
    }
    labels = predictions.labels[predictions.query_index]
    for by, level in combinations_with_replacement(range(hierarchy.depth), 2):
        known = labels[:, level] >= 0
        correct = predictions.correct[:, known, level]
        shares, queries = metrics.by_class(labels[known, by], correct, len(hierarchy.classes[by]))
        for j, dim in enumerate(predictions.dims):
            for number, name in enumerate(hierarchy.classes[by]):
                if queries[number]:
                    yield {
                        **named, "dim": dim, "level": hierarchy.names[level], "by": hierarchy.names[by],
                        "class": name, "queries": int(queries[number]), "accuracy": float(shares[j, number]),
                    }  # fmt: skip

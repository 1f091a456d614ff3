"""Where answers go wrong: by class, by parent, and by how far in the tree a wrong label is from the right one.

An intent taken for its sibling is a smaller error than one taken for a stranger, and an index that is right about the
domain can still be useful. So errors are counted by the level at which the paths to the two labels part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement
from typing import Any

import polars as pl

import data
from pipeline.evaluation import metrics
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.scores import Confused, Identity, PrefixErrors

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


def errors_of(predictions: Predictions, hierarchy: data.Hierarchy, worst: int = 50) -> tuple[PrefixErrors, ...]:
    """Judge the errors on the finest level, a record per prefix (see `metrics.Errors`)."""
    finest = hierarchy.depth - 1
    labels, names = predictions.labels[predictions.query_index, finest], hierarchy.classes[finest]
    records = []
    for dim, predicted in zip(predictions.dims, predictions.predicted[:, :, finest], strict=True):
        found = metrics.errors(labels, predicted, hierarchy.parents, finest, worst)
        confused = tuple(
            Confused(names[one.truth], "(none)" if one.predicted < 0 else names[one.predicted], one.count, one.distance)
            for one in found.worst
        )
        records.append(PrefixErrors(dim, finest, **{**vars(found), "worst": confused}))
    return tuple(records)


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

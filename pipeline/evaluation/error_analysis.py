"""Where answers go wrong: by class, by parent, and by how far in the tree a wrong label is from the right one.

An intent taken for its sibling is a smaller error than one taken for a stranger, and an index that is right about the
domain can still be useful. So errors are counted by the level at which the paths to the two labels part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations_with_replacement
from typing import Any

import polars as pl

import data
from pipeline.evaluation import metrics
from pipeline.evaluation.predictions import Predictions

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


def error_records(predictions: Predictions, hierarchy: data.Hierarchy, worst: int = 50) -> list[dict[str, Any]]:
    """Judge the errors on the finest level, one record per prefix (see `metrics.Errors`)."""
    finest = hierarchy.depth - 1
    labels, names = predictions.labels[predictions.query_index, finest], hierarchy.classes[finest]
    records = []
    for dim, predicted in zip(predictions.dims, predictions.predicted[:, :, finest], strict=True):
        found = metrics.errors(labels, predicted, hierarchy.parents, finest, worst)
        confusions = [
            {**asdict(one), "truth": names[one.truth], "predicted": names[one.predicted]} for one in found.worst
        ]
        records.append({"dim": dim, "level": finest, **asdict(found), "worst": confusions})
    return records


def per_class_frame(
    predicted: Sequence[tuple[Mapping[str, Any], Predictions]], hierarchy: data.Hierarchy
) -> pl.DataFrame:
    """Accuracy on every level of the texts of every class of that level and of those above it.

    :param predicted: what names a scorable, and its predictions.
    :returns: one row per prefix, level and class: run, method, seed, protocol, k, dim, level (of the answer), by
        (the level of the class), class, queries, accuracy. Classes without a query have no row.
    """
    rows = [row for facts, predictions in predicted for row in _per_class(facts, predictions, hierarchy)]
    return pl.DataFrame(rows, schema=_SCHEMA)


def _per_class(
    facts: Mapping[str, Any], predictions: Predictions, hierarchy: data.Hierarchy
) -> Iterator[dict[str, Any]]:
    named = {name: facts[name] for name in ("run", "method", "seed")}
    named |= {"protocol": predictions.protocol, "k": predictions.k}
    labels = predictions.labels[predictions.query_index]
    for by, level in combinations_with_replacement(range(hierarchy.depth), 2):
        shares, queries = metrics.by_class(labels[:, by], predictions.correct[:, :, level], len(hierarchy.classes[by]))
        for j, dim in enumerate(predictions.dims):
            for number, name in enumerate(hierarchy.classes[by]):
                if queries[number]:
                    yield {
                        **named, "dim": dim, "level": hierarchy.names[level], "by": hierarchy.names[by],
                        "class": name, "queries": int(queries[number]), "accuracy": float(shares[j, number]),
                    }  # fmt: skip

"""Predictions and scores as tidy polars frames, one row per point to draw, each with an interval.

Charts and tables read the same rows. An interval covers other texts, and other seeds where there are several
(`statistics.estimate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from statistics import mean
from typing import Any

import numpy as np
import polars as pl

import data
from pipeline.evaluation import statistics
from pipeline.evaluation.comparison import Entry, Runs, by_method, first_of
from pipeline.evaluation.predictions import STEERING_SPAN, Predictions
from pipeline.evaluation.ranking import Comparison
from pipeline.evaluation.scores import Score
from pipeline.evaluation.scores import by_method as by_name
from pipeline.workspace.runs import Run

STEER_TERMS = ("S", "coarse gain", "fine gain")


def accuracy_frame(entries: Mapping[str, Sequence[Entry]], levels: Sequence[str]) -> pl.DataFrame:
    """Accuracies in percent of every protocol, method, prefix and level."""
    rows = []
    for protocol, found in entries.items():
        methods = by_method(found)
        for name, figures in _estimated(methods, lambda one: one.outcomes).items():
            cells = product(first_of(methods[name]).dims, levels)
            for (dim, level), figure in zip(cells, figures, strict=True):
                rows.append({"protocol": protocol, "method": name, "dim": dim, "level": level, **_percent(figure)})
    return pl.DataFrame(rows)


def _estimated(
    methods: Mapping[str, Runs], outcomes: Callable[[Predictions], Any], span: tuple[Any, Any] = (0.0, 1.0)
) -> dict[str, list[statistics.Estimate]]:
    """By method, an estimate of every figure that `outcomes` [m, ...] of some predictions add to; one is in `span`."""
    stacked = [np.stack([outcomes(predictions) for predictions in runs.values()]) for runs in methods.values()]
    first = first_of(next(iter(methods.values())))
    values = [one.reshape(*one.shape[:2], -1) for one in stacked]
    return dict(zip(methods, statistics.estimates(values, first.query_index, span=span), strict=True))


def gallery_frame(cells: Sequence[Score], levels: Sequence[str]) -> pl.DataFrame:
    """Accuracies in percent by gallery size and origin, and the share of neighbours with the text's own label."""
    rows = []
    for name, group in by_name(cells).items():
        for size, origin in sorted({(cell.gallery, str(cell.origin)) for cell in group}):
            alike = [cell for cell in group if (cell.gallery, cell.origin) == (size, origin)]
            for j, (level, level_name) in product(dict.fromkeys((0, len(alike[0].prefixes) - 1)), enumerate(levels)):
                found = [cell.prefixes[j].levels[level] for cell in alike]
                texts = (mean(one.ci95[0] for one in found), mean(one.ci95[1] for one in found))
                facts = {
                    "method": name, "rows": origin, "gallery": size, "dim": alike[0].dims[j], "level": level_name,
                    "own": mean(one.precision for one in found) * 100,
                }  # fmt: skip
                rows.append({**facts, **_percent(statistics.combine([one.accuracy for one in found], texts))})
    return pl.DataFrame(rows)


def steerability_frame(entries: Mapping[str, Sequence[Entry]]) -> pl.DataFrame:
    """S and its two terms in points, of every protocol and method; no row where there is one level or one prefix."""
    rows = []
    for protocol, found in entries.items():
        methods = {name: runs for name, runs in by_method(found).items() if first_of(runs).steerability is not None}
        if not methods:
            continue
        estimates = _estimated(methods, lambda one: one.steering, (-STEERING_SPAN, STEERING_SPAN))
        for name, figures in estimates.items():
            for term, figure in zip(STEER_TERMS, figures, strict=True):
                rows.append({"protocol": protocol, "method": name, "term": term, **_percent(figure)})
    return pl.DataFrame(rows)


def _percent(figure: statistics.Estimate) -> dict[str, Any]:
    return {
        "value": figure.value * 100,
        "low": figure.low * 100,
        "high": figure.high * 100,
        "sd": None if figure.sd is None else figure.sd * 100,
        "n": figure.n,
    }


def history_frame(named: Iterable[tuple[str, Run]], levels: Sequence[str]) -> pl.DataFrame:
    """Training histories of runs that have one: method, seed, epoch, quantity, value (accuracies in percent), best.

    A damaged or missing history is left out: a page lacks a curve, not the command its page.
    """
    frames = []
    for name, run in named:
        history = run.history()
        if history is None:
            continue
        accuracies = {f"accuracy_{i}": level for i, level in enumerate(levels) if f"accuracy_{i}" in history.columns}
        tidy = history.select(
            pl.lit(name).alias("method"),
            pl.lit(run.seed).alias("seed"),
            "epoch",
            pl.col("loss").cast(pl.Float64),
            *(pl.col(column).cast(pl.Float64) * 100 for column in accuracies),
        ).unpivot(index=["method", "seed", "epoch"], variable_name="quantity", value_name="value")
        frames.append(
            tidy.with_columns(
                pl.col("quantity").replace(accuracies),
                (pl.col("epoch") == run.record["best_epoch"]).alias("best"),
            ).drop_nulls("value")
        )
    return pl.concat(frames) if frames else pl.DataFrame()


def difference_frame(rows: Sequence[Comparison], method: str, levels: Sequence[str]) -> pl.DataFrame:
    """Every other method less this one, in points with the paired 95 % interval, at the shortest prefix and in full.

    Columns method, level, vectors (such as "64 dims" or "full vectors"), full, value, low, high.
    """
    made = []
    for row in (row.seen_from(method) for row in rows if method in (row.a, row.b) and row.level is not None):
        ends = max(r.prefix or 0 for r in rows if (r.a, r.b) in ((row.a, row.b), (row.b, row.a)))
        if row.prefix not in (1, ends) or (row.prefix == 1 and row.dim != row.dim_b):
            continue
        whole = row.prefix == ends
        made.append({
            "method": row.b, "level": levels[row.level], "full": whole,  # type: ignore[index]
            "vectors": "full vectors" if whole else f"{row.dim} dims", "value": -100 * row.mean_difference,
            "low": -100 * row.interval[1], "high": -100 * row.interval[0],
        })  # fmt: skip
    # of full vectors of two lengths, the row of both in full comes last
    return (
        pl.DataFrame(made).unique(["method", "level", "full"], keep="last", maintain_order=True)
        if made
        else pl.DataFrame()
    )


def parent_errors(entries: Sequence[Entry], hierarchy: data.Hierarchy) -> pl.DataFrame:
    """Wrong answers on the finest level by level-0 class of the text, in percent of its texts, mean over seeds.

    Columns method, dim, parent, texts, wrong, sibling (the answer lies below the same parent), stranger (it does not).
    """
    rows = []
    for method, matrices in _parent_matrices(entries, hierarchy).items():
        for dim, (shares, wrong_inside, texts) in matrices.items():
            for number in np.flatnonzero(texts):
                sibling, stranger = wrong_inside[number], shares[number].sum() - shares[number, number]
                rows.append({
                    "method": method, "dim": dim, "parent": hierarchy.classes[0][number], "texts": int(texts[number]),
                    "wrong": (sibling + stranger) * 100, "sibling": sibling * 100, "stranger": stranger * 100,
                })  # fmt: skip
    return pl.DataFrame(rows)


def parent_confusions(entries: Sequence[Entry], hierarchy: data.Hierarchy, method: str, dim: int) -> pl.DataFrame:
    """Which other parent's label texts get: truth, answer, share (percent of the truth's texts, mean over seeds)."""
    shares, _, texts = _parent_matrices([e for e in entries if e.method == method], hierarchy)[method][dim]
    names = hierarchy.classes[0]
    return pl.DataFrame(
        [
            {"truth": names[i], "answer": names[j], "share": float(shares[i, j] * 100)}
            for i in np.flatnonzero(texts)
            for j in range(len(names))
            if i != j
        ],
        schema={"truth": pl.String, "answer": pl.String, "share": pl.Float64},
    )


def _parent_matrices(entries: Sequence[Entry], hierarchy: data.Hierarchy) -> dict[str, dict[int, Any]]:
    """By method and prefix: shares [P, P + 1] of a parent's texts answered below each, wrong inside [P], texts."""
    to_parent = np.arange(hierarchy.sizes[-1])
    for above in reversed(hierarchy.parents):
        to_parent = above[to_parent]
    count = hierarchy.sizes[0]
    found: dict[str, dict[int, Any]] = {}
    for method in dict.fromkeys(entry.method for entry in entries):
        group = [entry.predictions for entry in entries if entry.method == method]
        for j, dim in enumerate(group[0].dims):
            counts, inside = np.zeros((count, count + 1)), np.zeros(count)  # the last column: no label predicted
            for predictions in group:
                labels, answers = predictions.labels[predictions.query_index], predictions.predicted[j, :, -1]
                labels, answers = labels[labels[:, -1] >= 0], answers[labels[:, -1] >= 0]
                answer = np.where(answers < 0, count, to_parent[answers])
                np.add.at(counts, (labels[:, 0], answer), 1)
                wrong = (answer == labels[:, 0]) & (answers != labels[:, -1])
                inside += np.bincount(labels[wrong, 0], minlength=count)
            texts = counts.sum(axis=1)
            divide = np.maximum(texts, 1)
            found.setdefault(method, {})[dim] = counts / divide[:, None], inside / divide, texts / len(group)
    return found

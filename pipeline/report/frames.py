"""Scores as tidy polars frames, one row per point to draw, each with an interval: charts and tables read the same.

An interval covers other texts, and other seeds where there are several: the half-widths of the bootstrap over texts and
of Student's interval over seeds are added as independent errors are, as `claims.py` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import polars as pl

import data
from pipeline.evaluation import statistics
from pipeline.evaluation.comparison import Entry
from pipeline.evaluation.predictions import STEERABILITY
from pipeline.workspace.run_names import grouped
from pipeline.workspace.runs import Run

Score = Mapping[str, Any]
STEER_TERMS = dict(zip(STEERABILITY, ("S", "coarse gain", "fine gain"), strict=True))


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds with its 95 % interval, and their standard deviation (None for one)."""

    value: float
    low: float
    high: float
    sd: float | None
    n: int


def estimate(
    values: Sequence[float], intervals: Sequence[Sequence[float]], span: tuple[float, float] = (0.0, 1.0)
) -> Estimate:
    """Put the seeds of one figure together.

    :param values: one per seed.
    :param intervals: each seed's own 95 % interval over texts.
    :param span: least and greatest value there can be, which an interval does not leave.
    """
    test = statistics.paired_test(values)
    around = 0.0 if test.interval is None else test.interval[1] - test.mean
    below, above = (mean(abs(i[end] - v) for v, i in zip(values, intervals, strict=True)) for end in (0, 1))
    low, high = test.mean - math.hypot(below, around), test.mean + math.hypot(above, around)
    return Estimate(test.mean, max(span[0], low), min(span[1], high), test.sd, test.n)


def titled(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Scores of the seeds of one name side by side; names of untrained baselines end in an asterisk."""
    return {f"{name}*" if group[0].get("untrained") else name: group for name, group in grouped(scores).items()}


def accuracy_frame(scores: Mapping[str, Sequence[Score]], levels: Sequence[str]) -> pl.DataFrame:
    """Accuracies in percent of every protocol, method, prefix and level."""
    rows = []
    for protocol, records in scores.items():
        for name, group in titled(records).items():
            for j, prefix in enumerate(group[0]["prefixes"]):
                for level, level_name in enumerate(levels):
                    cells = [score["prefixes"][j]["levels"][level] for score in group]
                    facts = {"protocol": protocol, "method": name, "dim": prefix["dim"], "level": level_name}
                    rows.append({**facts, **_percent([c["accuracy"] for c in cells], [c["ci95"] for c in cells])})
    return pl.DataFrame(rows)


def gallery_frame(cells: Sequence[Score], levels: Sequence[str]) -> pl.DataFrame:
    """Accuracies in percent by gallery size and origin, and the share of neighbours with the text's own label."""
    rows = []
    for name, group in titled(cells).items():
        for size, origin in sorted({(cell["gallery"], cell["origin"]) for cell in group}):
            alike = [cell for cell in group if (cell["gallery"], cell["origin"]) == (size, origin)]
            for j in dict.fromkeys((0, len(alike[0]["prefixes"]) - 1)):
                for level, level_name in enumerate(levels):
                    found = [cell["prefixes"][j]["levels"][level] for cell in alike]
                    facts = {
                        "method": name, "rows": origin, "gallery": size, "dim": alike[0]["prefixes"][j]["dim"],
                        "level": level_name, "own": mean(f["precision"] for f in found) * 100,
                    }  # fmt: skip
                    rows.append({**facts, **_percent([f["accuracy"] for f in found], [f["ci95"] for f in found])})
    return pl.DataFrame(rows)


def steerability_frame(scores: Mapping[str, Sequence[Score]]) -> pl.DataFrame:
    """S and its two terms in points, of every protocol and method; no row where there is one level or one prefix."""
    rows = []
    for protocol, records in scores.items():
        for name, group in titled(records).items():
            for term, spoken in STEER_TERMS.items():
                if all(score[term] is not None for score in group):
                    found = _percent([s[term] for s in group], [s[f"{term}_ci95"] for s in group], (-2.0, 2.0))
                    rows.append({"protocol": protocol, "method": name, "term": spoken, **found})
    return pl.DataFrame(rows)


def _percent(
    values: Sequence[float], intervals: Sequence[Sequence[float]], span: tuple[float, float] = (0.0, 1.0)
) -> dict[str, Any]:
    found = estimate(values, intervals, span)
    return {
        "value": found.value * 100,
        "low": found.low * 100,
        "high": found.high * 100,
        "sd": None if found.sd is None else found.sd * 100,
        "n": found.n,
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
    """By method and prefix: shares [P, P] of a parent's texts answered below each, of wrong ones inside [P], texts."""
    to_parent = np.arange(hierarchy.sizes[-1])
    for above in reversed(hierarchy.parents):
        to_parent = above[to_parent]
    count = hierarchy.sizes[0]
    found: dict[str, dict[int, Any]] = {}
    for method in dict.fromkeys(entry.method for entry in entries):
        group = [entry.predictions for entry in entries if entry.method == method]
        for j, dim in enumerate(group[0].dims):
            counts, inside = np.zeros((count, count)), np.zeros(count)
            for predictions in group:
                labels = predictions.labels[predictions.query_index]
                answer = to_parent[predictions.predicted[j, :, -1]]
                np.add.at(counts, (labels[:, 0], answer), 1)
                wrong = (answer == labels[:, 0]) & (predictions.predicted[j, :, -1] != labels[:, -1])
                inside += np.bincount(labels[wrong, 0], minlength=count)
            texts = counts.sum(axis=1)
            divide = np.maximum(texts, 1)
            found.setdefault(method, {})[dim] = counts / divide[:, None], inside / divide, texts / len(group)
    return found

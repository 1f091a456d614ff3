"""An experiment as the JSON object of `pipeline retrieve --json`, which the HTML report reads too.

`results` are the two-stage searches, `single_stage` each prefix alone, `storage` the smaller formats beside float32,
`pareto` the points of both with the fronts they are on, `candidates_needed` the fewest candidates for a recall.
Shares are fractions; lists have one entry per level, coarsest first; every row names its corpus by `documents`.

Which ways to search are worth having: those that no other beats in both quality and cost.

Two qualities, two fronts. recall@10 is agreement with the method's own full vector, so it orders the ways of one
method and says nothing between methods; its front is within the method. Label precision@10 on the finest level means
the same for all, so its front is over all methods.

Outcomes of several seeds put together: mean, SD over seeds, and an interval over seeds and texts.

As everywhere here, a 95 % interval covers another seed and other texts at once: the
half-widths of Student's interval over seeds and of the normal one over texts, whose means have a thousand terms, are
added as independent errors are. It does not leave the range of what is averaged, and where all texts have one and the
same value it is at least as long as `statistics.unobserved_bounds`: a recall of 1 on some texts is not a certain 1.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.cost.measure import processor
from pipeline.evaluation import statistics
from pipeline.retrieval.experiment import Experiment, Trial, Way, flops_per_query, searched_bytes, timing_key
from pipeline.retrieval.metrics import Outcome
from pipeline.retrieval.recommend import sentences

Floats = NDArray[np.floating[Any]]
_NORMAL = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and texts; `sd` over seeds, None of one."""

    value: float
    sd: float | None
    ci95: tuple[float, float]


def estimate(values: Floats, span: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """Estimate a mean from values [seeds, texts]; a text that has none (NaN) is left out.

    One seed has the interval over texts alone. `span`: least and greatest value that a text can have.
    """
    known = np.asarray(values, np.float64)
    known = known[:, ~np.isnan(known).any(axis=0)]
    if not known.size:
        return Estimate(math.nan, None, (math.nan, math.nan))
    by_text, seeds = known.mean(axis=0), statistics.paired_test(known.mean(axis=1))
    texts = _NORMAL * float(by_text.std(ddof=1)) / math.sqrt(len(by_text)) if len(by_text) > 1 else 0.0
    around = 0.0 if seeds.interval is None else seeds.interval[1] - seeds.mean
    hidden = [abs(float(end) - seeds.mean) for end in statistics.unobserved_bounds(seeds.mean, len(by_text), span)]
    below, above = (math.hypot(max(texts, one), around) for one in hidden)
    return Estimate(seeds.mean, seeds.sd, (max(span[0], seeds.mean - below), min(span[1], seeds.mean + above)))


def record(outcomes: Sequence[Outcome], *, itself: bool = False) -> dict[str, Any]:
    """The figures of one way to search, of one outcome per seed, as `--json` prints them.

    `itself`: it is the search that recall compares with, whose recall is 1 by definition.

    `precision_at_10` and `level_recall` are lists, one entry per level, coarsest first; None where one has no figure.
    """
    recall = estimate(np.stack([o.recall for o in outcomes]))
    columns = {"precision": _by_level([o.precision for o in outcomes])}
    spelled: dict[str, Any] = {
        "recall_at_10": recall.value,
        "recall_sd": recall.sd,
        "recall_ci95": [1.0, 1.0] if itself else list(recall.ci95),
        "precision_at_10": [e.value for e in columns["precision"]],
    }
    kept = [o.level_recall for o in outcomes if o.level_recall is not None]
    if kept:
        columns["level_recall"] = _by_level(kept)
        spelled["level_recall"] = [_number(e.value) for e in columns["level_recall"]]
    for name, levels in columns.items():
        spelled[f"{name}_sd"] = [e.sd for e in levels]
        spelled[f"{name}_ci95"] = [None if math.isnan(e.value) else list(e.ci95) for e in levels]
    return spelled


def _by_level(arrays: Sequence[Floats]) -> list[Estimate]:
    stacked = np.stack(arrays)
    return [estimate(stacked[:, :, level]) for level in range(stacked.shape[2])]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


Point = Mapping[str, Any]
COSTS = ("flops_per_query", "bytes_per_document", "latency_ms")
"""What a search costs; latency that of a query alone."""


def front(points: Sequence[Point], quality: str, cost: str) -> set[int]:
    """Places of the points that no other is at least as good and as cheap as, and better or cheaper in one."""
    ranked = sorted(range(len(points)), key=lambda i: (points[i][cost], -points[i][quality]))
    kept: set[int] = set()
    best, at = float("-inf"), None
    for i in ranked:
        value = points[i][quality]
        if value > best or (value == best and points[i][cost] == at):
            kept.add(i)
            best, at = value, points[i][cost]
    return kept


def pareto(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Mark the points of one corpus with the fronts they are on.

    `recall_front` lists the costs at which a point is on its method's front, `precision_front` those at which it is on
    the front of all methods.
    """
    flat = [{**point, "finest": point["precision_at_10"][-1]} for point in points]
    within: list[list[str]] = [[] for _ in flat]
    across: list[list[str]] = [[] for _ in flat]
    for cost in COSTS:
        for i in front(flat, "finest", cost):
            across[i].append(cost)
        for method in dict.fromkeys(point["method"] for point in flat):
            own = [i for i, point in enumerate(flat) if point["method"] == method]
            for place in front([flat[i] for i in own], "recall_at_10", cost):
                within[own[place]].append(cost)
    names = ("method", "documents", "filter_dim", "candidates", "recall_at_10", "precision_at_10", *COSTS)
    return [
        {**{name: point.get(name) for name in names}, "recall_front": recall, "precision_front": precision}
        for point, recall, precision in zip(points, within, across, strict=True)
    ]


TARGETS = (0.9, 0.95, 0.98, 0.99)
"""Recalls for which the candidates needed are counted."""
_TIMED = ("latency_ms", "latency_low_ms", "latency_high_ms", "latency_p95_ms", "queries_per_second")


def to_json(found: Experiment, facts: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment as JSON.

    :param facts: of the dataset and the backbone, put first.
    """
    rows = [row for group in _groups(found) for row in _rows(group, found)]
    results = [row for row in rows if row["candidates"] is not None]
    single = [row for row in rows if row["candidates"] is None and row["storage"] == "float32"]
    smaller = {(row["method"], row["filter_dim"]) for row in rows if row["storage"] != "float32"}
    timed = all(row["latency_ms"] is not None for row in rows)
    spelled: dict[str, Any] = {
        **facts,
        "levels": list(found.levels),
        "queries": found.queries,
        "corpora": [{"documents": size, "simulated": copies, "real": size - copies} for size, copies in found.corpora],
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "methods": [_method(group) for group in _groups(found, found.corpora[0][0])],
        "results": [_without(row, ("storage",)) for row in results],
        "single_stage": [_without(row, ("candidates", "candidate_share", "storage")) for row in single],
        "storage": [
            _without(row, ("candidates", "candidate_share"))
            for row in rows
            if row["candidates"] is None and (row["method"], row["filter_dim"]) in smaller
        ],
        "engines": [engine.to_dict() for engine in found.engines],
        "pareto": [
            point
            for documents, _ in found.corpora
            for point in pareto([row for row in (*single, *results) if row["documents"] == documents] if timed else [])
        ],
        "candidates_needed": [row for group in _groups(found) for row in _needed(group)],
    }
    return {**spelled, "sentences": sentences(spelled)}


def _groups(found: Experiment, documents: int | None = None) -> list[list[Trial]]:
    """Trials of one method and corpus over its seeds, corpora outermost."""
    groups: dict[tuple[int, str], list[Trial]] = {}
    for trial in found.trials:
        if documents in (None, trial.documents):
            groups.setdefault((trial.documents, trial.name), []).append(trial)
    return list(groups.values())


def _method(group: Sequence[Trial]) -> dict[str, Any]:
    first = group[0].embedder
    return {
        "method": group[0].name,
        "untrained": bool(first.facts.get("untrained", False)),
        "seeds": [trial.embedder.facts["seed"] for trial in group if trial.embedder.facts["seed"] is not None],
        "runs": [trial.embedder.facts["run"] for trial in group if trial.embedder.facts["run"] is not None],
        "dims": list(first.dims),
    }


def _rows(group: Sequence[Trial], found: Experiment) -> list[dict[str, Any]]:
    """One row per way to search, figures over seeds."""
    first = group[0]
    itself = (first.embedder.dim, None, "float32")
    rows = []
    for number, outcome in enumerate(first.measured.outcomes):
        way = (outcome.dim, outcome.candidates, outcome.storage)
        rows.append(
            {
                "method": first.name,
                "documents": first.documents,
                "filter_dim": outcome.dim,
                "candidates": outcome.candidates,
                "candidate_share": None if outcome.candidates is None else outcome.candidates / first.documents,
                "storage": outcome.storage,
                "seeds": len(group),
                **record([trial.measured.outcomes[number] for trial in group], itself=way == itself),
                **_costs(way, first, found),
            }
        )
    return rows


def _costs(way: Way, trial: Trial, found: Experiment) -> dict[str, Any]:
    dim, candidates, storage = way
    full = trial.embedder.dim
    timing = found.timings.get(timing_key(trial.documents, full, way))
    return {
        "flops_per_query": flops_per_query(dim, trial.documents, candidates, full),
        "bytes_per_document": searched_bytes(way, full),
        "filter_bytes_per_document": searched_bytes((dim, None, storage), full),
        "index_bytes": found.disk.get((trial.documents, dim, storage)),
        **{name: None if timing is None else getattr(timing, name) for name in _TIMED},
        "latency_queries": None if timing is None else timing.timed,
    }


def needed(curve: np.ndarray, recall: float) -> int | None:
    """Fewest candidates that reach a recall, by a curve [c] of recall at 1, 2, ... candidates; None if none does."""
    reached = np.flatnonzero(curve >= recall - 1e-6)
    return int(reached[0]) + 1 if len(reached) else None


def _needed(group: Sequence[Trial]) -> list[dict[str, Any]]:
    """Candidates for each target at each filter: mean over seeds with Student's interval; None if a seed misses it."""
    rows = []
    for dim in group[0].measured.curves:
        for target in TARGETS:
            counts = [needed(trial.measured.curves[dim], target) for trial in group]
            reached = [count for count in counts if count is not None]
            test = statistics.paired_test(reached) if len(reached) == len(counts) else None
            rows.append(
                {
                    "method": group[0].name,
                    "documents": group[0].documents,
                    "filter_dim": dim,
                    "recall_at_10": target,
                    "seeds": len(group),
                    "candidates": None if test is None else test.mean,
                    "sd": None if test is None else test.sd,
                    "ci95": None if test is None or test.interval is None else list(test.interval),
                    "at_most": len(group[0].measured.curves[dim]),
                }
            )
    return rows


def _without(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}

"""An experiment as the JSON object of `pipeline retrieve --json`, which the HTML report reads too.

`results` are the two-stage searches, `single_stage` each prefix alone, `storage` the smaller formats beside float32,
`pareto` the points of both with the fronts they are on, `candidates_needed` the fewest candidates for a recall.
Shares are fractions; lists are a level each, coarsest first; every row names its corpus by `documents`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipeline import statistics
from pipeline.machine import processor
from pipeline.retrieval.advice import sentences
from pipeline.retrieval.experiment import Experiment, Trial, Way, flops_per_query, searched_bytes, timing_key
from pipeline.retrieval.pareto import pareto
from pipeline.retrieval.summary import record

TARGETS = (0.9, 0.95, 0.98, 0.99)
"""Recalls for which the candidates needed are counted."""
_TIMED = ("latency_ms", "latency_low_ms", "latency_high_ms", "latency_p95_ms", "queries_per_second")


def to_json(found: Experiment, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Spell an experiment out.

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
    """A row a way to search, figures over seeds."""
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

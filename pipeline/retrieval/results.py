"""From an experiment to its results: seeds put together, methods compared, ways to search that are worth having.

Worth having are those that no other beats in both quality and cost. Two qualities, two fronts. recall@10 is agreement
with the method's own full vector, so it orders the ways of one method and says nothing between methods; its front is
within the method. Label precision@10 on the finest level means the same for all, so its front is over all methods.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import torch

from pipeline.cost.measure import processor
from pipeline.evaluation import statistics
from pipeline.evaluation.statistics import Estimate, estimate
from pipeline.retrieval.experiment import Experiment, Trial, Way, flops_per_query, searched_bytes, timing_key
from pipeline.retrieval.metrics import Outcome
from pipeline.retrieval.records import (
    CandidatesNeeded,
    CorpusSize,
    Method,
    ParetoPoint,
    RetrievalResults,
    SearchComparison,
    SearchResult,
)

Known = TypeVar("Known")
TARGETS = (0.9, 0.95, 0.98, 0.99)
"""Recalls for which the candidates needed are counted."""
COSTS = ("flops_per_query", "bytes_per_document", "latency_ms")
"""What a search costs; latency that of a query alone."""


def results_of(found: Experiment, dataset: str, backbone: str, layer: int, device: str) -> RetrievalResults:
    """Put the seeds of an experiment together."""
    groups = _groups(found)
    rows = [row for group in groups for row in _rows(group, found)]
    results = tuple(row for row in rows if row.candidates is not None)
    single = tuple(row for row in rows if row.candidates is None and row.storage == "float32")
    smaller = {(row.method, row.filter_dim) for row in rows if row.storage != "float32"}
    timed = all(row.latency_ms is not None for row in rows)
    searched = (*single, *results) if timed else ()
    return RetrievalResults(
        dataset=dataset,
        backbone=backbone,
        layer=layer,
        device=device,
        levels=found.levels,
        queries=found.queries,
        corpora=tuple(CorpusSize(size, copies, size - copies) for size, copies in found.corpora),
        machine={
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        methods=tuple(_method(group) for group in groups if group[0].documents == found.corpora[0][0]),
        results=results,
        single_stage=single,
        storage=tuple(row for row in rows if row.candidates is None and (row.method, row.filter_dim) in smaller),
        engines=found.engines,
        pareto=tuple(
            point for size, _ in found.corpora for point in pareto([r for r in searched if r.documents == size])
        ),
        candidates_needed=tuple(row for group in groups for row in _needed(group)),
        comparisons=tuple(_comparisons(groups)),
    )


def front(qualities: Sequence[float], costs: Sequence[float]) -> set[int]:
    """Places of the points that no other is at least as good and as cheap as, and better or cheaper in one."""
    kept: set[int] = set()
    best, at = float("-inf"), math.nan
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -qualities[i])):
        if qualities[i] > best or (qualities[i] == best and costs[i] == at):
            kept.add(i)
            best, at = qualities[i], costs[i]
    return kept


def pareto(rows: Sequence[SearchResult]) -> list[ParetoPoint]:
    """Mark the searches of one corpus with the costs at which they are on a front."""
    within: list[list[str]] = [[] for _ in rows]
    across: list[list[str]] = [[] for _ in rows]
    for cost in COSTS:
        costs = [float(getattr(row, cost)) for row in rows]
        for i in front([row.precision_at_10[-1] for row in rows], costs):
            across[i].append(cost)
        for method in dict.fromkeys(row.method for row in rows):
            own = [i for i, row in enumerate(rows) if row.method == method]
            for place in front([rows[i].recall_at_10 for i in own], [costs[i] for i in own]):
                within[own[place]].append(cost)
    return [
        ParetoPoint(
            row.method, row.documents, row.filter_dim, row.candidates, row.recall_at_10, row.precision_at_10,
            row.flops_per_query, row.bytes_per_document, float(row.latency_ms or 0.0), tuple(recall), tuple(precision),
        )
        for row, recall, precision in zip(rows, within, across, strict=True)
    ]  # fmt: skip


def needed(curve: np.ndarray, recall: float) -> int | None:
    """Fewest candidates that reach a recall, by a curve [c] of recall at 1, 2, ... candidates; None if none does."""
    reached = np.flatnonzero(curve >= recall - 1e-6)
    return int(reached[0]) + 1 if len(reached) else None


def over_seeds(values: Sequence[float | None]) -> statistics.PairedTest | None:
    """Mean, spread and interval over seeds; None if a seed has no value."""
    known = [value for value in values if value is not None]
    return statistics.paired_test(known) if len(known) == len(values) else None


def _groups(found: Experiment) -> list[list[Trial]]:
    """Trials of one method and corpus over its seeds, corpora outermost."""
    groups: dict[tuple[int, str], list[Trial]] = {}
    for trial in found.trials:
        groups.setdefault((trial.documents, trial.name), []).append(trial)
    return list(groups.values())


def _method(group: Sequence[Trial]) -> Method:
    identities = [trial.embedded.identity for trial in group]
    return Method(
        group[0].name,
        identities[0].untrained,
        tuple(one.paired_seed for one in identities if one.paired_seed is not None),
        tuple(one.run for one in identities if one.run is not None),
        group[0].embedded.dims,
    )


def _rows(group: Sequence[Trial], found: Experiment) -> Iterator[SearchResult]:
    """One row per way to search, figures over seeds."""
    first = group[0]
    for number, outcome in enumerate(first.measured.outcomes):
        way = (outcome.dim, outcome.candidates, outcome.storage)
        outcomes = [trial.measured.outcomes[number] for trial in group]
        recall = estimate([one.recall for one in outcomes])
        precision = _by_level(outcomes, lambda one: one.precision)
        kept = None if outcome.level_recall is None else _by_level(outcomes, lambda one: one.level_recall)
        itself = way == (first.embedded.dim, None, "float32")  # its recall is 1 by definition
        yield SearchResult(
            method=first.name,
            documents=first.documents,
            filter_dim=outcome.dim,
            candidates=outcome.candidates,
            candidate_share=None if outcome.candidates is None else outcome.candidates / first.documents,
            storage=outcome.storage,
            seeds=len(group),
            recall_at_10=recall.value,
            recall_sd=recall.sd,
            recall_ci95=(1.0, 1.0) if itself else recall.interval,
            precision_at_10=tuple(one.value for one in precision),
            precision_sd=tuple(one.sd for one in precision),
            precision_ci95=tuple(one.interval for one in precision),
            level_recall=None if kept is None else tuple(_known(one.value, one) for one in kept),
            level_recall_sd=None if kept is None else tuple(one.sd for one in kept),
            level_recall_ci95=None if kept is None else tuple(_known(one.interval, one) for one in kept),
            **_costs(way, first, found),
        )


def _by_level(outcomes: Sequence[Outcome], of: Callable[[Outcome], Any]) -> tuple[Estimate, ...]:
    stacked = np.stack([of(outcome) for outcome in outcomes])
    return tuple(estimate(stacked[:, :, level]) for level in range(stacked.shape[2]))


def _known(value: Known, of: Estimate) -> Known | None:
    """None where the corpus lacks the classes."""
    return None if math.isnan(of.value) else value


def _costs(way: Way, trial: Trial, found: Experiment) -> dict[str, Any]:
    dim, candidates, storage = way
    full = trial.embedded.dim
    timing = found.timings.get(timing_key(trial.documents, full, way))
    timed = ("latency_ms", "latency_low_ms", "latency_high_ms", "latency_p95_ms", "queries_per_second")
    return {
        "flops_per_query": flops_per_query(dim, trial.documents, candidates, full),
        "bytes_per_document": searched_bytes(way, full),
        "filter_bytes_per_document": searched_bytes((dim, None, storage), full),
        "index_bytes": found.disk.get((trial.documents, dim, storage)),
        **{name: None if timing is None else getattr(timing, name) for name in timed},
        "latency_queries": None if timing is None else timing.timed,
    }


def _needed(group: Sequence[Trial]) -> Iterator[CandidatesNeeded]:
    first = group[0]
    for dim, curve in first.measured.curves.items():
        for target in TARGETS:
            counts = [needed(trial.measured.curves[dim], target) for trial in group]
            test = over_seeds(counts)
            yield CandidatesNeeded(
                first.name, first.documents, dim, target, len(group), None if test is None else test.mean,
                None if test is None else test.sd, None if test is None else test.interval, len(curve),
            )  # fmt: skip


def _comparisons(groups: Sequence[Sequence[Trial]]) -> Iterator[SearchComparison]:
    """Every two methods at the cheapest search that both have, paired by query and seed."""
    for a, b in combinations(groups, 2):
        ways = [{(o.dim, o.candidates) for o in group[0].measured.outcomes if o.candidates} for group in (a, b)]
        shared = sorted(ways[0] & ways[1])
        seeds = [{trial.embedded.identity.paired_seed: trial for trial in group} for group in (a, b)]
        paired = list(seeds[0]) if None in seeds[1] else list(seeds[1]) if None in seeds[0] else []
        paired = paired or [seed for seed in seeds[0] if seed in seeds[1]]
        if a[0].documents != b[0].documents or not shared or not paired:
            continue
        first, second = ([(of.get(seed) or of[None]).measured.outcome(*shared[0]) for seed in paired] for of in seeds)
        precision = np.stack([one.precision[:, -1] for one in first]) - [one.precision[:, -1] for one in second]
        recall = np.stack([one.recall for one in first]) - [one.recall for one in second]
        labels, agreement = (estimate(values, span=(-1.0, 1.0)) for values in (precision, recall))
        yield SearchComparison(
            a[0].name, b[0].name, a[0].documents, *shared[0], len(paired),
            labels.value, labels.interval, agreement.value, agreement.interval,
        )  # fmt: skip

"""The results of a retrieval experiment as typed records, and as the JSON object of `pipeline retrieve --json`.

`results` are the two-stage searches, `single_stage` each prefix alone, `storage` the smaller formats beside float32,
`pareto` the points of both with the fronts they are on, `candidates_needed` the fewest candidates for a recall,
`comparisons` the paired differences between methods at the cheapest search. Shares are fractions; tuples have one entry
per level, coarsest first; every row names its corpus by `documents`. Figures are means over seeds and queries with the
one 95 % interval over both (`pipeline.evaluation.statistics.estimate`).

Which ways to search are worth having: those that no other beats in both quality and cost. Two qualities, two fronts.
recall@10 is agreement with the method's own full vector, so it orders the ways of one method and says nothing between
methods; its front is within the method. Label precision@10 on the finest level means the same for all, so its front is
over all methods.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import torch

from pipeline.cost.measure import processor
from pipeline.evaluation import statistics
from pipeline.evaluation.scores import Interval, to_json
from pipeline.evaluation.statistics import Estimate, estimate
from pipeline.retrieval.engines import Engine
from pipeline.retrieval.experiment import Experiment, Trial, Way, flops_per_query, searched_bytes, timing_key
from pipeline.retrieval.metrics import Outcome

Known = TypeVar("Known")
TARGETS = (0.9, 0.95, 0.98, 0.99)
"""Recalls for which the candidates needed are counted."""
COSTS = ("flops_per_query", "bytes_per_document", "latency_ms")
"""What a search costs; latency that of a query alone."""


@dataclass(frozen=True)
class SearchResult:
    """One way to search one corpus: `candidates` None is one stage, `level_recall` what the filter of two stages keeps.

    Latencies are in milliseconds of a query alone, None where nothing was timed.
    """

    method: str
    documents: int
    filter_dim: int
    seeds: int
    recall_at_10: float
    recall_sd: float | None
    recall_ci95: Interval
    precision_at_10: tuple[float, ...]
    precision_sd: tuple[float | None, ...]
    precision_ci95: tuple[Interval, ...]
    flops_per_query: int
    bytes_per_document: int
    filter_bytes_per_document: int
    index_bytes: int | None
    latency_ms: float | None
    latency_low_ms: float | None
    latency_high_ms: float | None
    latency_p95_ms: float | None
    queries_per_second: float | None
    latency_queries: int | None
    candidates: int | None = None
    candidate_share: float | None = None
    storage: str = "float32"
    level_recall: tuple[float | None, ...] | None = None
    level_recall_sd: tuple[float | None, ...] | None = None
    level_recall_ci95: tuple[Interval | None, ...] | None = None


@dataclass(frozen=True)
class ParetoPoint:
    """A search with the costs at which no other of its method has more recall, and none at all more precision."""

    method: str
    documents: int
    filter_dim: int
    candidates: int | None
    recall_at_10: float
    precision_at_10: tuple[float, ...]
    flops_per_query: int
    bytes_per_document: int
    latency_ms: float
    recall_front: tuple[str, ...] = ()
    precision_front: tuple[str, ...] = ()


@dataclass(frozen=True)
class CandidatesNeeded:
    """The fewest candidates for a recall: mean over seeds with Student's interval; None if a seed misses it."""

    method: str
    documents: int
    filter_dim: int
    recall_at_10: float
    seeds: int
    candidates: float | None
    sd: float | None
    ci95: Interval | None
    at_most: int


@dataclass(frozen=True)
class SearchComparison:
    """a - b over the same queries at one search: precision@10 on the finest level, and recall@10."""

    a: str
    b: str
    documents: int
    filter_dim: int
    candidates: int
    n: int
    precision_difference: float
    precision_ci95: Interval
    recall_difference: float
    recall_ci95: Interval


@dataclass(frozen=True)
class CorpusSize:
    """Documents searched, and how many of them are simulated."""

    documents: int
    simulated: int
    real: int


@dataclass(frozen=True)
class Method:
    """What was searched with."""

    method: str
    untrained: bool
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    dims: tuple[int, ...]


@dataclass(frozen=True)
class RetrievalResults:
    """Everything that one `pipeline retrieve` measured."""

    dataset: str
    backbone: str
    layer: int
    device: str
    levels: tuple[str, ...]
    queries: int
    corpora: tuple[CorpusSize, ...]
    machine: Mapping[str, Any]
    methods: tuple[Method, ...]
    results: tuple[SearchResult, ...]
    single_stage: tuple[SearchResult, ...]
    storage: tuple[SearchResult, ...]
    engines: tuple[Engine, ...]
    pareto: tuple[ParetoPoint, ...]
    candidates_needed: tuple[CandidatesNeeded, ...]
    comparisons: tuple[SearchComparison, ...] = ()
    sentences: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `retrieve --json` prints it: every list without the fields that its rows cannot have."""
        spelled: dict[str, Any] = to_json(self)
        one_stage = {"candidates", "candidate_share", "level_recall", "level_recall_sd", "level_recall_ci95"}
        left_out = {"results": {"storage"}, "single_stage": {*one_stage, "storage"}, "storage": one_stage}
        for name, without in left_out.items():
            spelled[name] = [{k: v for k, v in row.items() if k not in without} for row in spelled[name]]
        return spelled

    def of(self, documents: int) -> RetrievalResults:
        """The rows of one corpus."""
        lists = ("results", "single_stage", "storage", "engines", "pareto", "candidates_needed", "comparisons")
        here: dict[str, Any] = {
            name: tuple(row for row in getattr(self, name) if row.documents == documents) for name in lists
        }
        return replace(self, **here)


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
            reached = [count for count in counts if count is not None]
            test = statistics.paired_test(reached) if len(reached) == len(counts) else None
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

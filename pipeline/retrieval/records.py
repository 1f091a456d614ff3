"""The results of a retrieval experiment as typed records, and as the JSON object of `pipeline retrieve --json`.

`results` are the two-stage searches, `single_stage` each prefix alone, `storage` the smaller formats beside float32,
`pareto` the points of both with the fronts they are on, `candidates_needed` the fewest candidates for a recall,
`comparisons` the paired differences between methods at the cheapest search. Shares are fractions; tuples have one entry
per level, coarsest first; every row names its corpus by `documents`. Figures are means over seeds and queries with the
one 95 % interval over both (`pipeline.evaluation.statistics.estimate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.evaluation.scores import Interval, to_json
from pipeline.retrieval.engines import Engine


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

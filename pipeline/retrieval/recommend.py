"""What a retrieval experiment means, in plain sentences: labels first, and where agreement says otherwise.

Methods are compared over the same queries (`results.SearchComparison`), never by whether their intervals overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.evaluation.recommend import joined
from pipeline.evaluation.statistics import sign
from pipeline.retrieval.results import RetrievalResults, SearchComparison, SearchResult


def sentences(found: RetrievalResults) -> list[str]:
    """Sentences on the largest corpus: who is ahead at the cheapest search, and how recall moves with the corpus."""
    here = found.of(found.corpora[-1].documents)
    if not here.results:
        return []
    cheapest = min((row.filter_dim, row.candidates or 0) for row in here.results)
    rows = [row for row in here.results if (row.filter_dim, row.candidates) == cheapest]
    best = max(rows, key=lambda row: row.precision_at_10[-1])
    full = max((row for row in here.single_stage if row.method == best.method), key=lambda row: row.filter_dim)
    said = [_ahead(rows, here)] if len(rows) > 1 else []
    return [*said, *_saved(best, full, found.levels[-1]), *_moving(found)]


def _ahead(rows: list[SearchResult], found: RetrievalResults) -> str:
    """Who is ahead by labels, and whether agreement with the own full vector says the same."""
    level, corpus = found.levels[-1], found.corpora[-1]
    by_labels = _first(rows, found, lambda row: row.precision_at_10[-1], lambda row: row.precision_ci95)
    by_recall = _first(rows, found, lambda row: row.recall_at_10, lambda row: row.recall_ci95)
    of = {row.method: row for row in rows}
    simulated = f" ({corpus.simulated:,} simulated)" if corpus.simulated else ""
    where = f"{corpus.documents:,} documents{simulated}, {rows[0].candidates:,} candidates by {rows[0].filter_dim} dims"
    precision = ", ".join(f"{name} {of[name].precision_at_10[-1]:.1%}" for name in by_labels)
    said = f"{where}: by labels {_leading(by_labels)} ({level} precision@10 {precision})"
    recall = ", ".join(f"{name} {of[name].recall_at_10:.1%}" for name in by_recall)
    if by_recall == by_labels:
        return f"{said}, and by agreement with its own full vector too (recall@10 {recall})."
    if set(by_recall) & set(by_labels):
        return f"{said}, by agreement with its own full vector {_leading(by_recall)} (recall@10 {recall})."
    labels = ", ".join(f"{name} {of[name].precision_at_10[-1]:.1%}" for name in by_recall)
    return (
        f"{said}; by agreement with its own full vector {_leading(by_recall)} (recall@10 {recall}; by labels {labels})"
        ". Where the two disagree, trust the labels: an embedding that says little agrees with itself easily."
    )


def _first(
    rows: list[SearchResult],
    found: RetrievalResults,
    value: Callable[[SearchResult], float],
    interval: Callable[[SearchComparison], tuple[float, float]],
) -> list[str]:
    """The best, and those that do not differ significantly from it, highest first."""
    ranked = sorted(rows, key=lambda row: -value(row))
    best = ranked[0].method
    behind = {
        row.b if row.a == best else row.a
        for row in found.comparisons
        if best in (row.a, row.b) and sign(interval(row)) == (1 if row.a == best else -1)
    }
    return [row.method for row in ranked if row.method not in behind]


def _leading(names: list[str]) -> str:
    return f"{names[0]} is ahead" if len(names) == 1 else f"there is no significant difference between {joined(names)}"


def _saved(row: SearchResult, full: SearchResult, level: str) -> Iterator[str]:
    """What the second stage costs and saves, for one method: in operations, and in time, which need not agree."""
    share = row.flops_per_query / full.flops_per_query
    lost = (full.precision_at_10[-1] - row.precision_at_10[-1]) * 100
    said = (
        f"With {row.method}, {row.filter_dim} dims and {row.candidates:,} candidates take {share:.0%} of the FLOPs of "
        f"a search by {full.filter_dim} dims and lose {lost:.1f} points of {level} precision@10"
    )
    if row.latency_ms is None or full.latency_ms is None:
        yield f"{said}."
        return
    slower = "; two stages are slower here" if row.latency_ms > full.latency_ms else ""
    yield f"{said}; a query takes {row.latency_ms:.2f} ms instead of {full.latency_ms:.2f} ms{slower}."


def _moving(found: RetrievalResults) -> Iterator[str]:
    """How recall at the fewest candidates moves with the corpus."""
    if len(found.corpora) < 2:
        return
    for method in dict.fromkeys(row.method for row in found.results):
        own = [row for row in found.results if row.method == method]
        dim = min(row.filter_dim for row in own)
        steps = []
        for corpus in found.corpora:
            here = [row for row in own if (row.documents, row.filter_dim) == (corpus.documents, dim)]
            first = min(here, key=lambda row: row.candidates or 0)
            simulated = " (simulated)" if corpus.simulated else ""
            steps.append(f"{corpus.documents:,}{simulated}: {first.recall_at_10:.1%} with {first.candidates:,}")
        yield f"{method}, recall@10 by {dim} dims as the corpus grows: {', '.join(steps)}."

"""What a retrieval experiment means, in plain sentences: labels first, and where agreement says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.recommend import Figure, joined, level_with_best

Record = Mapping[str, Any]


def sentences(found: Record) -> list[str]:
    """Sentences on the largest corpus: who is ahead at the cheapest search, and how recall moves with the corpus."""
    documents = found["corpora"][-1]["documents"]
    results = [row for row in found["results"] if row["documents"] == documents]
    if not results:
        return []
    cheapest = min((row["filter_dim"], row["candidates"]) for row in results)
    rows = [row for row in results if (row["filter_dim"], row["candidates"]) == cheapest]
    single = [row for row in found["single_stage"] if row["documents"] == documents]
    full = {row["method"]: row for row in sorted(single, key=lambda row: row["filter_dim"])}
    said = [_ahead(rows, found["levels"][-1], documents)] if len(rows) > 1 else []
    best = max(rows, key=lambda row: row["precision_at_10"][-1])
    return [*said, _saved(best, full[best["method"]], found["levels"][-1]), *_moving(found)]


def _ahead(rows: Sequence[Record], level: str, documents: int) -> str:
    """Who is ahead by labels, and whether agreement with the own full vector says the same."""
    first = rows[0]
    by_labels = level_with_best({row["method"]: _labels(row) for row in rows})
    by_recall = level_with_best({row["method"]: Figure(row["recall_at_10"], *row["recall_ci95"]) for row in rows})
    of = {row["method"]: row for row in rows}
    where = f"{documents:,} documents, {first['candidates']:,} candidates by {first['filter_dim']} dims"
    precision = ", ".join(f"{name} {_labels(of[name]).value:.1%}" for name in by_labels)
    said = f"{where}: by labels {_leading(by_labels)} ({level} precision@10 {precision})"
    recall = ", ".join(f"{name} {of[name]['recall_at_10']:.1%}" for name in by_recall)
    if by_recall == by_labels:
        return f"{said}, and by agreement with its own full vector too (recall@10 {recall})."
    if set(by_recall) & set(by_labels):
        return f"{said}, by agreement with its own full vector {_leading(by_recall)} (recall@10 {recall})."
    labels = ", ".join(f"{name} {_labels(of[name]).value:.1%}" for name in by_recall)
    return (
        f"{said}; by agreement with its own full vector {_leading(by_recall)} (recall@10 {recall}; by labels {labels})"
        ". Where the two disagree, trust the labels: an embedding that says little agrees with itself easily."
    )


def _labels(row: Record) -> Figure:
    """Precision on the finest labels."""
    return Figure(row["precision_at_10"][-1], *row["precision_ci95"][-1])


def _leading(names: Sequence[str]) -> str:
    return f"{names[0]} is ahead" if len(names) == 1 else f"{joined(names)} are level"


def _saved(row: Record, full: Record, level: str) -> str:
    """What the second stage costs and saves, for one method."""
    share = row["flops_per_query"] / full["flops_per_query"]
    lost = (full["precision_at_10"][-1] - row["precision_at_10"][-1]) * 100
    return (
        f"With {row['method']}, {row['filter_dim']} dims and {row['candidates']:,} candidates take {share:.0%} of the "
        f"FLOPs of a search by {full['filter_dim']} dims and lose {lost:.1f} points of {level} precision@10."
    )


def _moving(found: Record) -> list[str]:
    """How recall at the smallest share of candidates moves with the corpus."""
    sizes = [corpus["documents"] for corpus in found["corpora"]]
    if len(sizes) < 2:
        return []
    said = []
    for method in dict.fromkeys(row["method"] for row in found["results"]):
        own = [row for row in found["results"] if row["method"] == method]
        dim = min(row["filter_dim"] for row in own)
        steps = []
        for size in sizes:
            first = min(
                (r for r in own if r["documents"] == size and r["filter_dim"] == dim), key=lambda r: r["candidates"]
            )
            steps.append(f"{size:,}: {first['recall_at_10']:.1%} with {first['candidates']:,}")
        said.append(f"{method}, recall@10 by {dim} dims as the corpus grows: {', '.join(steps)}.")
    return said

"""Which ways to search are worth having: those that no other beats in both quality and cost.

Two qualities, two fronts. recall@10 is agreement with the method's own full vector, so it orders the ways of one
method and says nothing between methods; its front is within the method. Label precision@10 on the finest level means
the same for all, so its front is over all methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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

"""What the scores mean for someone who must choose: a few plain sentences, each computed, none assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from pipeline.metrics import smallest_prefix
from pipeline.naming import Record as Score
from pipeline.naming import grouped


def advice(scores: Sequence[Score], levels: Sequence[str]) -> list[str]:
    """Sentences on one protocol's scores: the method to take, the prefix each level needs, what 64 dims cost."""
    means = {name: _mean_accuracies(group) for name, group in grouped(scores).items()}
    dims = [prefix["dim"] for prefix in scores[0]["prefixes"]]
    best = max(means, key=lambda name: mean(value for row in means[name] for value in row))
    sentences = []
    if len(means) > 1 and len({str(rows) for rows in means.values()}) == 1:
        return [f"{' and '.join(means)} do not differ anywhere here.", _prefixes(best, means[best], dims, levels)]
    if len(means) > 1:
        sentences.append(_choice(best, means, dims, levels))
    sentences.append(_prefixes(best, means[best], dims, levels))
    if len(means) > 1:
        sentences.append(_shortest(scores, means, dims[0], levels))
    return sentences


def _mean_accuracies(group: Sequence[Score]) -> list[list[float]]:
    first = group[0]["prefixes"]
    return [
        [
            mean(score["prefixes"][j]["levels"][level]["accuracy"] for score in group)
            for level in range(len(row["levels"]))
        ]
        for j, row in enumerate(first)
    ]


def _choice(best: str, means: Mapping[str, Any], dims: Sequence[int], levels: Sequence[str]) -> str:
    cells = [(j, level) for j in range(len(dims)) for level in range(len(levels))]
    leads = sum(all(means[best][j][level] >= other[j][level] for other in means.values()) for j, level in cells)
    rivals = ", ".join(f"{name} {mean(v for row in rows for v in row):.1%}" for name, rows in means.items())
    return (
        f"One embedding for every level: take {best}, first in {leads} of {len(cells)} pairs of prefix and level "
        f"(mean accuracy over all of them: {rivals})."
    )


def _prefixes(best: str, rows: Sequence[Sequence[float]], dims: Sequence[int], levels: Sequence[str]) -> str:
    needed = []
    for level, name in enumerate(levels):
        dim = smallest_prefix([row[level] for row in rows], dims)
        needed.append(f"{name} {dim} dims ({dim * 4:,} bytes)")
    return f"Smallest prefix of {best} within one point of its full {dims[-1]} dims: {', '.join(needed)}."


def _shortest(scores: Sequence[Score], means: Mapping[str, Any], dim: int, levels: Sequence[str]) -> str:
    parts = []
    for level in (0, len(levels) - 1):
        ranked = sorted(means, key=lambda name: means[name][0][level], reverse=True)
        first, last = ranked[0], ranked[-1]
        gap = (means[first][0][level] - means[last][0][level]) * 100
        width = max(_half_width(score, level) for score in scores) * 100
        verdict = "" if gap > 2 * width else ", less than the intervals can tell apart"
        parts.append(f"on {levels[level]} {first} is ahead of {last} by {gap:.1f} points{verdict}")
    return f"At {dim} dims, " + "; ".join(parts) + "."


def _half_width(score: Score, level: int) -> float:
    low, high = score["prefixes"][0]["levels"][level]["ci95"]
    return float(high - low) / 2

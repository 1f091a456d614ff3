"""What the scores mean for someone who must choose: a few plain sentences, each computed, none assumed.

A figure that does not differ significantly from the best shares its place, and so does one that prints the same.

Which layer makes the better feature: what the validation split says of heads trained on several.

In a base model a middle layer often knows more of a text's meaning than the last. Each layer's features have their own
store and runs, so nothing is computed here: the runs' histories hold what every head scored on the validation texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import mean
from typing import Any

from pipeline.evaluation.metrics import smallest_prefix
from pipeline.workspace.run_names import Record as Score
from pipeline.workspace.run_names import grouped
from pipeline.workspace.runs import Run

Group = tuple[str, str, tuple[tuple[str, object], ...]]


def layer_sentences(runs: Iterable[Run]) -> list[str]:
    """For each method that was trained alike on several layers, which of them is ahead on validation.

    :param runs: of one dataset and backbone, whatever the layer; those without a validated history are left out.
    """
    groups: dict[Group, dict[int, list[float]]] = {}
    for run in runs:
        accuracy = _validated(run)
        if accuracy is not None:
            group = (run.method, str(run.record["head"]), tuple(sorted(run.record["hyperparameters"].items())))
            groups.setdefault(group, {}).setdefault(int(run.record["layer"]), []).append(accuracy)
    return [_sentence(group, layers) for group, layers in groups.items() if len(layers) > 1]


def _validated(run: Run) -> float | None:
    """Accuracy of the epoch kept, mean of level 0 and the finest, leave-one-out on the full vector."""
    history = run.history()
    if history is None:
        return None
    scores = [row["score"] for row in history.to_dicts() if row["epoch"] == run.record["best_epoch"]]
    return None if scores in ([], [None]) else float(scores[0]) / 2


def _sentence(group: Group, layers: dict[int, list[float]]) -> str:
    means = {layer: mean(scores) for layer, scores in layers.items()}
    ranked = sorted(means, key=lambda layer: (-means[layer], layer))
    each = ", ".join(f"layer {layer} {means[layer]:.1%} (n = {len(layers[layer])})" for layer in ranked)
    return f"{group[0]}, {group[1]} head, on validation (mean of the first and the finest level): {each}"


FEW = 10
"""Test texts below which nothing is advised: one text is then worth more than ten points."""


@dataclass(frozen=True)
class Figure:
    """A share and its 95 % interval."""

    value: float
    low: float
    high: float


def level_with_best(figures: Mapping[str, Figure]) -> list[str]:
    """Names that share the first place, the highest figure first: those that print the same as it, or may be as high.

    Nobody behind one that is not level is: a wide interval earns no place.

    :param figures: one or more, by name.
    """
    first = max(figures.values(), key=lambda figure: figure.value)
    ranked = sorted(figures, key=lambda name: -figures[name].value)
    return list(takewhile(lambda name: _level(figures[name], first), ranked))


def _level(figure: Figure, best: Figure) -> bool:
    gap = best.value - figure.value
    return f"{figure.value:.1%}" == f"{best.value:.1%}" or gap <= math.hypot(
        best.value - best.low, figure.high - figure.value
    )


def joined(names: Sequence[str]) -> str:
    """Names as they are said: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def advice(scores: Sequence[Score], levels: Sequence[str]) -> list[str]:
    """Sentences on one protocol's scores: the method to take, the prefix each level needs, what 64 dims cost."""
    queries = int(scores[0]["queries"])
    if queries < FEW:
        return [f"{queries} test texts are too few to compare methods: give more rows, or a split with more test rows."]
    groups = grouped(scores)
    means = {name: _mean_accuracies(group) for name, group in groups.items()}
    dims = [prefix["dim"] for prefix in scores[0]["prefixes"]]
    overall = {name: _overall(group) for name, group in groups.items()}
    best = max(overall, key=lambda name: overall[name].value)
    sentences = []
    if len(means) > 1 and len({str(rows) for rows in means.values()}) == 1:
        return [f"{joined(list(means))} do not differ anywhere here.", _prefixes(best, means[best], dims, levels)]
    if len(means) > 1:
        sentences.append(_choice(overall, means, dims, levels))
    sentences.append(_prefixes(best, means[best], dims, levels))
    if len(means) > 1:
        sentences.append(_shortest(groups, dims[0], levels))
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


def _overall(group: Sequence[Score]) -> Figure:
    """Mean over all prefixes and levels; its interval is the mean of theirs, for the same texts make them all."""
    count = len(group[0]["prefixes"][0]["levels"])
    cells = [_cell(group, j, level) for j in range(len(group[0]["prefixes"])) for level in range(count)]
    value, low, high = (mean(getattr(cell, name) for cell in cells) for name in ("value", "low", "high"))
    return Figure(value, low, high)


def _cell(group: Sequence[Score], prefix: int, level: int) -> Figure:
    """Accuracy over the seeds of a method, with the mean interval over texts."""
    rows = [score["prefixes"][prefix]["levels"][level] for score in group]
    return Figure(
        mean(row["accuracy"] for row in rows),
        mean(row["ci95"][0] for row in rows),
        mean(row["ci95"][1] for row in rows),
    )


def _choice(overall: Mapping[str, Figure], means: Mapping[str, Any], dims: Sequence[int], levels: Sequence[str]) -> str:
    each = ", ".join(f"{name} {figure.value:.1%}" for name, figure in overall.items())
    named = level_with_best(overall)
    if len(named) > 1:
        return (
            f"One embedding for every level: {joined(named)} are level (mean accuracy over all pairs of prefix and "
            f"level: {each}; no further apart than the intervals of either)."
        )
    best = named[0]
    cells = [(j, level) for j in range(len(dims)) for level in range(len(levels))]
    leads = sum(
        all(
            round(means[best][j][level], 3) > round(other[j][level], 3) for name, other in means.items() if name != best
        )
        for j, level in cells
    )
    return (
        f"One embedding for every level: take {best}, ahead in {leads} of {len(cells)} pairs of prefix and level "
        f"(mean accuracy over all of them: {each})."
    )


def _prefixes(best: str, rows: Sequence[Sequence[float]], dims: Sequence[int], levels: Sequence[str]) -> str:
    needed = []
    for level, name in enumerate(levels):
        dim = smallest_prefix([row[level] for row in rows], dims)
        needed.append(f"{name} {dim} dims ({dim * 4:,} bytes)")
    return f"Smallest prefix of {best} within one point of its full {dims[-1]} dims: {', '.join(needed)}."


def _shortest(groups: Mapping[str, Sequence[Score]], dim: int, levels: Sequence[str]) -> str:
    parts = []
    for level in dict.fromkeys((0, len(levels) - 1)):
        figures = {name: _cell(group, 0, level) for name, group in groups.items()}
        ranked = sorted(figures, key=lambda name: -figures[name].value)
        first, last = ranked[0], ranked[-1]
        gap = (figures[first].value - figures[last].value) * 100
        if _level(figures[last], figures[first]):
            parts.append(f"on {levels[level]} {joined(ranked)} are level ({gap:.1f} points between first and last)")
        else:
            parts.append(f"on {levels[level]} {first} is ahead of {last} by {gap:.1f} points")
    return f"At {dim} dims, " + "; ".join(parts) + "."

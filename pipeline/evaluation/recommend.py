"""What the scores mean for someone who must choose: a few plain sentences, each computed, none assumed.

Every method in the table is a candidate, also those that cost nothing: features cut short, principal components, a
closed form, a flat classifier. Who is ahead is said as `ranking.py` ranks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.comparison import Entry, Runs, by_method, compare, first_of, overall
from pipeline.evaluation.embeddings import FLAT
from pipeline.evaluation.metrics import smallest_prefix
from pipeline.evaluation.predictions import Floats
from pipeline.evaluation.ranking import (
    UNTRAINED,
    Comparison,
    Ranking,
    means_of,
    place,
    points,
    printed,
    ranking,
    rankings,
)
from pipeline.evaluation.statistics import Estimate, estimates, sign

FEW = 10
"""Test texts below which nothing is advised: one text is then worth more than ten points."""
_MUCH = 0.05
"""A difference in accuracy that one would not want to overlook."""
_MOST_LEVELS = 3
"""Levels whose figures one sentence holds."""


@dataclass(frozen=True)
class Answer:
    """What to use: a method, and the shortest prefix that loses no more than one point on any level.

    `pays`: whether training is significantly better than everything that costs none; None where nothing of one of the
    two kinds was compared. `accuracies`: mean over seeds per level, of that prefix. `gains`: per level, what the full
    vector adds to it, by the interval over seeds and texts. `needed`: the dimensions that each level needs, none where
    there is one prefix. `rival`: the best of the others. `closed_form`: whether a head without a gradient step is
    advised. `width`: dimensions of the features, if they are a candidate. `few`: how many test texts there are, where
    so few that training may pay or cost more than five points unseen.
    """

    method: str
    pays: bool | None
    dim: int
    full: int
    accuracies: tuple[float, ...]
    gains: tuple[Estimate, ...]
    needed: tuple[int, ...]
    rival: str | None
    closed_form: bool = False
    width: int | None = None
    few: int | None = None

    def sentence(self, levels: Sequence[str]) -> str:
        """The answer as one reads it first: of many levels the coarsest and the finest."""
        shown = range(len(levels)) if len(levels) <= _MOST_LEVELS else (0, len(levels) - 1)
        figures = " / ".join(_whole_percent(self.accuracies[level]) for level in shown)
        told = "" if self.few is None else f", as far as {self.few} test texts can tell"
        said = f"Training did not pay here{told}. " if self.pays is False else ""
        said += f"Use {self._named()} at {self.dim} dims: {figures} % "
        said += f"({' / '.join(levels[level] for level in shown)})"
        if self.dim == self.full:
            losing = [level for level, dim in zip(levels, self.needed, strict=False) if dim == self.full]
            return f"{said}. A shorter prefix loses more than one point on {joined(losing)}." if losing else f"{said}."
        said += f", {self.full / self.dim:.3g} times smaller"
        if self.width is not None and self.width <= self.dim:
            said += f" than all {self.full} dims but not than the features, which have {self.width}"
        said += "."
        gains = [self.gains[level] for level in shown]
        rounded = [round(gain.value * 100, 1) + 0.0 for gain in gains]
        figures = " / ".join(f"{gain:+.1f}" if gain else "0.0" for gain in rounded)
        sure = [levels[level] for level, gain in zip(shown, gains, strict=True) if sign(gain.interval)]
        if not sure:
            return f"{said} With all {self.full} dims {figures} points: no significant difference."
        if len(sure) == len(gains) and min(rounded) > 0:
            return f"{said} All {self.full} dims add {figures.replace('+', '')} points."
        where = "" if len(sure) == len(gains) else f", significantly on {joined(sure)} alone"
        return f"{said} All {self.full} dims change that by {figures} points{where}."

    def _named(self) -> str:
        if self.method in UNTRAINED or not self.closed_form:
            return UNTRAINED.get(self.method, self.method)
        return f"{self.method} (which trained nothing here)"


def answer(entries: Sequence[Entry]) -> Answer | None:
    """What to use, from every candidate's predictions under one protocol; None where the test texts cannot tell."""
    if nothing_told(entries):
        return None
    entries = [entry for entry in entries if entry.method != FLAT]
    methods, picked = by_method(entries), _pick(entries)
    took, means = picked.method, means_of(picked.rows)
    others = [name for name in means if name != took and not _says_the_same(methods[name], methods[took])]
    rival = min(others, key=lambda name: place(name, means[name]), default=None)
    dims, needed = first_of(methods[took]).dims, tuple(needed_dims(methods[took]))
    dim = max(needed)
    at = tuple(map(float, _mean_accuracy(methods[took])[dims.index(dim)]))
    closed_form = any(entry.method == took and entry.closed_form for entry in entries)
    width = next((entry.predictions.dims[-1] for entry in entries if entry.method == "features*"), None)
    gains = _gains(methods[took], dims.index(dim))
    few = entries[0].predictions.queries if picked.unsure else None
    several = needed if len(dims) > 1 else ()
    return Answer(took, picked.pays, dim, dims[-1], at, gains, several, rival, closed_form, width, few)


def needed_dims(runs: Runs) -> list[int]:
    """For each level the shortest prefix whose accuracy, mean over seeds, is within one point of the full vector's."""
    return [smallest_prefix(curve, first_of(runs).dims) for curve in _mean_accuracy(runs).T]


def _mean_accuracy(runs: Runs) -> Floats:
    return np.asarray(np.mean([predictions.accuracy for predictions in runs.values()], axis=0))


def _says_the_same(some: Runs, others: Runs) -> bool:
    """Whether two methods are one, such as `joint` where it chose a closed form: every text's neighbours are alike."""
    first, *rest = *some.values(), *others.values()
    return all(
        np.array_equal(first.predicted, one.predicted) and np.array_equal(first.matching, one.matching) for one in rest
    )


@dataclass(frozen=True)
class _Pick:
    """The method to take, whether training `pays` (as in `Answer`), the sentence that says so, and the rows behind it.

    There is neither sentence nor row where one method stands alone. `unsure`: whether training may pay, or cost, more
    than `_MUCH` although it was not seen to.
    """

    method: str
    pays: bool | None
    sentence: str
    rows: list[Comparison]
    unsure: bool = False


def _pick(entries: Sequence[Entry]) -> _Pick:
    """The best of these, or the best of what takes no training where that is as good."""
    methods, free = by_method(entries), free_of_training(entries)
    if len(methods) < 2:
        return _Pick(entries[0].method, None, "", [])
    rows = overall(entries)
    found = ranking(rows)
    both_kinds = bool(free) and not free >= methods.keys()
    if both_kinds and free & set(found.first):
        return _did_not_pay(rows, found, free)
    return _Pick(found.best, True if both_kinds else None, _choice(found), rows)


def _gains(runs: Runs, place: int) -> tuple[Estimate, ...]:
    """What the full vector adds to the prefix at `place`, per level."""
    first = first_of(runs)
    gains = np.stack([each.outcomes[:, -1] - each.outcomes[:, place] for each in runs.values()])
    (found,) = estimates([gains], first.query_index, span=(-1.0, 1.0))
    return tuple(found)


def free_of_training(entries: Sequence[Entry]) -> set[str]:
    """Names of the candidates that take no training: nothing, or a closed form."""
    return {entry.method for entry in entries if entry.untrained or entry.closed_form}


def advice(entries: Sequence[Entry], levels: Sequence[str], compared: Sequence[Comparison] | None = None) -> list[str]:
    """Sentences on one protocol: the method to take, or that training did not pay, and the prefix each level needs.

    :param entries: every candidate, trained or not.
    :param compared: what `compare` says of these entries, where that is known.
    """
    if reason := nothing_told(entries, levels):
        return [reason]
    methods = by_method(entries)
    if len(methods) == 1:
        return [_prefixes(entries[0].method, methods[entries[0].method], levels)]
    ranked = rankings(compare(entries) if compared is None else compared, levels)
    picked = _pick([entry for entry in entries if entry.method != FLAT])
    said = [picked.sentence] if picked.sentence else []
    said.append(_prefixes(picked.method, methods[picked.method], levels))
    shortest = min(first_of(runs).dims[0] for runs in methods.values())
    said.append(_at(ranked, shortest, f"At {shortest} dims", levels))
    if FLAT in methods:
        said.append(_at(ranked, None, "With whole vectors and a flat logistic regression on the features", levels))
    return said


def classifier_ahead(compared: Sequence[Comparison], method: str, levels: Sequence[str]) -> list[str]:
    """On which levels the flat classifier is significantly better than whole vectors of `method`; nothing: on none."""
    pairs = [row.seen_from(method) for row in compared if row.level is not None and {row.a, row.b} == {FLAT, method}]
    behind = [(levels[row.level or 0], points(row.mean_difference, row.interval)) for row in pairs if row.leader < 0]
    if not behind:
        return []
    said = ", ".join(f"{name} {gap}" for name, gap in behind)
    return [
        f"The vote of neighbours is behind a logistic regression on all features: {said}. `encode` labels texts by the "
        "head's own classifiers, not by votes."
    ]


def nothing_told(entries: Sequence[Entry], levels: Sequence[str] = ()) -> str | None:
    """Why no advice follows from these predictions; None where it does."""
    first = entries[0].predictions
    if first.queries < FEW:
        return f"{first.queries} test texts are too few to compare methods: give more rows, or more test rows."
    labels = first.labels[first.query_index]
    if all(len(np.unique(column[column >= 0])) == 1 for column in labels.T):
        return "All test texts have the same labels, so every answer is right: there is nothing to compare."
    found = np.any([np.nanmax(entry.predictions.outcomes, axis=(0, 1)) > 0 for entry in entries], axis=0)
    if not found.all():
        level = int(np.argmin(found))
        return (
            f"No method finds the {levels[level] if levels else f'label of level {level}'} of any test text, "
            "so nothing is advised: are these labels in the training split?"
        )
    return None


def joined(names: Sequence[str]) -> str:
    """Names as they are said: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _whole_percent(value: float) -> str:
    """Without decimals, but for what would round to all of them."""
    return f"{value * 100:.0f}" if value in (0, 1) or 0.005 <= value < 0.995 else f"{value * 100:.1f}"


def _choice(found: Ranking) -> str:
    """Which method to take, and by how much the others are behind."""
    mean_of = f"mean accuracy over all prefixes and levels {printed(found.value)}"
    if found.equal:
        others = ", ".join(row.against_a for row in found.equal)
        head = f"no significant difference between {joined(found.first)} ({found.best}: {mean_of}; {others})"
    else:
        head = f"take {found.best} ({mean_of})"
    worse = ", ".join(row.against_a for row in found.worse)
    return f"One embedding for every level: {head}" + (f"; worse: {worse}." if worse else ".")


def _did_not_pay(rows: list[Comparison], found: Ranking, free: set[str]) -> _Pick:
    """Take the best of what costs no training, which is as good as the best that was trained, and say so."""
    cheap = next(name for name in found.first if name in free)
    against = [row.seen_from(cheap) for row in rows if cheap in (row.a, row.b)]
    trained = min((row for row in against if row.b not in free), key=lambda row: place(row.b, row.mean_b))
    gap = points(trained.mean_difference, trained.interval)
    said = (
        f"Training did not pay here: {cheap}, which takes no training, is right on {printed(trained.mean_a)} of "
        f"the texts (mean over all prefixes and levels), {trained.b} on {printed(trained.mean_b)}: {gap}, "
        + ("significantly better." if trained.leader > 0 else "no significant difference.")
    )
    worse = [row.b for row in against if row.leader > 0 and row.b not in free and row.b != trained.b]
    said += f" {joined(worse)} {'is' if len(worse) == 1 else 'are'} worse than {cheap}." if worse else ""
    return _Pick(cheap, False, said, rows, max(map(abs, trained.interval)) > _MUCH)


def _prefixes(method: str, runs: Runs, levels: Sequence[str]) -> str:
    """The smallest prefix that each level needs."""
    each = zip(levels, needed_dims(runs), strict=True)
    needed = ", ".join(f"{name} {dim} dims ({dim * 4:,} bytes)" for name, dim in each)
    return f"Smallest prefix of {method} within one point of its full {first_of(runs).dims[-1]} dims: {needed}."


def _at(found: Mapping[tuple[int | None, str], Ranking], dim: int | None, where: str, levels: Sequence[str]) -> str:
    """Who is ahead at one prefix, on the first and the last level."""
    parts = []
    for name in dict.fromkeys((levels[0], levels[-1])):
        if (dim, name) not in found:
            continue
        at = found[dim, name]
        head = f"{at.best} {printed(at.value)}"
        if at.equal:
            head += f", no significant difference from {joined([row.b for row in at.equal])}"
        behind = ", ".join(f"{row.b} by {row.mean_difference * 100:.1f}" for row in at.worse)
        parts.append(f"on {name} {head}" + (f", worse {behind} points" if behind else ""))
    return f"{where}, " + "; ".join(parts) + "."

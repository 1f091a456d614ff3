"""Who is ahead: the row that compares two methods in one metric, and methods ranked by such rows.

A verdict is that of a paired comparison over the same texts, so no sentence says less, or more, than the table beside
it. Nobody can tell from a list who is first by luck: whoever does not differ significantly from the first shares its
place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.evaluation.scores import Interval, to_json
from pipeline.evaluation.statistics import sign

LEVEL = 0.05
"""Adjusted p below which a sentence says "beats", if `Comparison.interval` excludes zero too."""
UNTRAINED = {
    "features*": "the features as they are (features*)",
    "centred*": "the features less their mean (centred*)",
    "pca*": "principal components (pca*)",
    "lda": "linear discriminants (lda)",
}
"""What the methods that train nothing are, for someone who meets their names here first; the plainest first."""


@dataclass(frozen=True)
class Comparison:
    """One row: a against b in one metric. Shares, not points; differences are a - b.

    `prefix` (1 is the shortest), `dim` and `level` are None for steerability and its two terms; `dim_b` is that of b,
    another only where the full vectors have different lengths. `ci95` and `p` are over n seeds, None where they cannot
    be had (see `statistics.PairedTest`); `texts_ci95` is over texts, `interval` over both.
    """

    a: str
    b: str
    metric: str
    prefix: int | None
    dim: int | None
    dim_b: int | None
    level: int | None
    n: int
    mean_a: float
    mean_b: float
    mean_difference: float
    sd: float | None
    ci95: Interval | None
    p: float | None
    p_holm: float | None
    cohens_d: float | None
    texts_ci95: Interval
    interval: Interval

    @property
    def leader(self) -> int:
        """1 if a is ahead, -1 if b is, 0 if there is no significant difference."""
        return sign(self.interval)

    @property
    def against_a(self) -> str:
        """The name of b, and what it has more than a, in points with the interval over seeds and texts."""
        turned = self.seen_from(self.b)
        return f"{self.b} {points(turned.mean_difference, turned.interval)}"

    def seen_from(self, method: str) -> Comparison:
        """The row with `method`, one of the two, as a."""
        if method == self.a:
            return self

        def turned(interval: Interval) -> Interval:
            return -interval[1], -interval[0]

        return replace(
            self,
            a=self.b,
            b=self.a,
            dim=self.dim_b,
            dim_b=self.dim,
            mean_a=self.mean_b,
            mean_b=self.mean_a,
            mean_difference=-self.mean_difference,
            ci95=None if self.ci95 is None else turned(self.ci95),
            cohens_d=None if self.cohens_d is None else -self.cohens_d,
            texts_ci95=turned(self.texts_ci95),
            interval=turned(self.interval),
        )

    def to_json(self) -> dict[str, Any]:
        """The row as `compare --json` prints it."""
        return {**to_json(self), "sentence": self.sentence()}

    def sentence(self, levels: Sequence[str] | None = None) -> str:
        """Say the row in plain words.

        :param levels: names of the levels; by default "level 0" and so on.
        """
        where = self.metric.replace("_", " ")
        if self.level is not None:
            where = f"{levels[self.level] if levels else f'level {self.level}'} at {self.dim} dims"
        equal = f"no significant difference between {self.a} and {self.b} on {where}"
        low, high = self.texts_ci95 if self.ci95 is None else self.ci95
        if self.p_holm is not None and self.p_holm >= LEVEL:
            return f"{equal}: {points(self.mean_difference, (low, high))}, n={self.n}, p={self.p_holm:.2g} (Holm)"
        if self.p_holm is not None and not self.leader:
            found = points(self.mean_difference, self.interval)
            return f"{equal}: {found} over seeds and texts, n={self.n}; over seeds alone p={self.p_holm:.2g} (Holm)"
        if self.p_holm is None and low <= 0 <= high:
            found = points(self.mean_difference, (low, high))
            return f"{equal}: {found} over texts, n={self.n}, too few seeds to test"
        ahead = self.mean_difference >= 0
        first, second = (self.a, self.b) if ahead else (self.b, self.a)
        low, high = (low, high) if ahead else (-high, -low)
        gap = f"{abs(self.mean_difference) * 100:.1f} points [{low * 100:.1f}, {high * 100:.1f}]"
        if self.p_holm is None:
            return f"{first} is ahead of {second} on {where} by {gap} over texts, n={self.n}, too few seeds to test"
        return f"{first} beats {second} on {where} by {gap}, n={self.n}, p={self.p_holm:.2g} (Holm)"


def points(value: float, interval: Interval) -> str:
    """A difference of shares in points with its interval, with so many decimals that it says what it said unrounded."""
    for decimals in (1, 2, 3):
        middle, low, high = (round(share * 100, decimals) + 0.0 for share in (value, *interval))  # no minus before 0
        if sign((low, high)) == sign(interval):
            break
    return f"{middle:+.{decimals}f} points [{low:+.{decimals}f}, {high:+.{decimals}f}]"


@dataclass(frozen=True)
class Ranking:
    """Methods in one metric. `equal`: those that do not differ significantly from the best, `worse`: the others.

    Both hold the row best - other, by mean of the other, highest first.
    """

    best: str
    value: float
    equal: tuple[Comparison, ...]
    worse: tuple[Comparison, ...]

    @property
    def first(self) -> list[str]:
        """The best and who shares its place."""
        return [self.best, *(row.b for row in self.equal)]


def ranking(rows: Sequence[Comparison]) -> Ranking:
    """Rank methods by the rows of one metric, prefix and level, all that there are between them.

    The best has the highest mean, of equals the plainest; a method that is not compared with it is left out. Where
    seeds are missing, the mean is over other seeds than a row's: what a row shows to be behind is not the best.
    """
    means = means_of(rows)
    behind = {row.b if row.leader > 0 else row.a for row in rows if row.leader}
    best = min(means.keys() - behind or means, key=lambda name: place(name, means[name]))
    others = [row.seen_from(best) for row in rows if best in (row.a, row.b)]
    others.sort(key=lambda row: place(row.b, row.mean_b))
    equal = tuple(row for row in others if row.leader <= 0 or printed(row.mean_a) == printed(row.mean_b))
    return Ranking(best, means[best], equal, tuple(row for row in others if row not in equal))


def means_of(rows: Sequence[Comparison]) -> dict[str, float]:
    """The mean of every method that these rows compare, over as many of its seeds as one of them has."""
    rows = sorted(rows, key=lambda row: row.n)
    return {name: value for row in rows for name, value in ((row.a, row.mean_a), (row.b, row.mean_b))}


def place(name: str, mean: float) -> tuple[float, int, str]:
    """What methods are ordered by, best first: the mean; of equals what trains nothing, then the name.

    Equal to nine digits: the closed form that joint chose is `lda`, but the mean of its seeds may round otherwise.
    """
    plain = list(UNTRAINED)
    return -round(mean, 9), plain.index(name) if name in plain else len(plain), name


def rankings(rows: Sequence[Comparison], levels: Sequence[str]) -> dict[tuple[int | None, str], Ranking]:
    """The ranking at every prefix and level, by its length and the level's name.

    None is the whole vectors, whatever their lengths, where these differ.
    """
    accuracy = [row for row in rows if row.level is not None]
    whole = {(row.a, row.b, row.level): row for row in accuracy}  # the last of a pair is that of the whole vectors
    at: dict[int | None, list[Comparison]] = {}
    for row in accuracy:
        if row.dim == row.dim_b:
            at.setdefault(row.dim, []).append(row)
    if any(row.dim != row.dim_b for row in whole.values()):
        at[None] = list(whole.values())
    return {
        (dim, name): ranking([row for row in found if row.level == level])
        for dim, found in at.items()
        for level, name in enumerate(levels)
    }


def printed(value: float) -> str:
    """A share in per cent, as sentences say it."""
    return f"{value * 100:.1f} %"

"""How the ranking of two methods depends on the gallery: its size, and whether its rows were trained on.

Of the cells of a gallery grid (`protocols.gallery_grid`) the two methods' accuracies at the shortest prefix are paired
by seed. The share of neighbours that carry the text's own label says why a ranking turns: a gallery with fewer rows of
a label than there are votes must take the others from elsewhere, and then it matters whose labels lie next to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from pipeline.evaluation import statistics
from pipeline.evaluation.scores import Score, by_method


@dataclass(frozen=True)
class SizeEffect:
    """Accuracy of a minus that of b on one level at the shortest prefix, in galleries of one size and origin.

    Shares, not points. `ci95` is Student's over n seeds, None where it cannot be had (see `statistics.PairedTest`).
    `precision_a`, `precision_b`: shares of the neighbours that have the text's own label.
    """

    origin: str
    gallery: int
    dim: int
    level: int
    n: int
    difference: float
    ci95: tuple[float, float] | None
    precision_a: float
    precision_b: float

    @property
    def leader(self) -> int:
        """1 if a is ahead with 95 % confidence, -1 if b is, 0 if neither."""
        return statistics.sign(self.ci95)


def size_effects(cells: Sequence[Score], a: str, b: str) -> list[SizeEffect]:
    """Compare a with b on the coarsest and the finest level, by origin, level and size.

    :param cells: scores of a gallery grid of runs of both.
    :raises PipelineError: if they share no seed.
    """
    methods = by_method(cells)
    levels = dict.fromkeys((0, len(cells[0].prefixes[0].levels) - 1))
    kinds = dict.fromkeys((str(cell.origin), cell.gallery) for cell in methods[a])
    return [
        _effect(_by_seed(methods[a], origin, size), _by_seed(methods[b], origin, size), level)
        for origin in dict.fromkeys(origin for origin, _ in kinds)
        for level in levels
        for size in sorted(size for where, size in kinds if where == origin)
    ]


def crossing(effects: Sequence[SizeEffect], a: str, b: str, levels: Sequence[str]) -> list[str]:
    """Say for each level and origin at which sizes a leads, and at which b, with 95 % confidence over seeds each."""
    if any(effect.n < 2 for effect in effects):
        return ["With one seed a lead may be luck: fit several, such as --seeds 42,123,456."]
    sentences = []
    for origin, level in dict.fromkeys((effect.origin, effect.level) for effect in effects):
        of = [effect for effect in effects if (effect.origin, effect.level) == (origin, level)]
        parts = [
            f"{name} leads at {', '.join(f'{effect.gallery:,}' for effect in of if effect.leader == sign)} rows"
            for name, sign in ((a, 1), (b, -1))
            if any(effect.leader == sign for effect in of)
        ]
        even = [f"{effect.gallery:,}" for effect in of if not effect.leader]
        parts += [f"neither at {', '.join(even)}"] if even else []
        sentences.append(f"On {levels[level]} at {of[0].dim} dims, {origin} rows as gallery: {'; '.join(parts)}.")
    return [*sentences, "(95 % over seeds, for each size by itself: `pipeline compare` adjusts for many tests.)"]


def _by_seed(cells: Sequence[Score], origin: str, size: int) -> dict[int | None, Score]:
    return {cell.identity.seed: cell for cell in cells if (str(cell.origin), cell.gallery) == (origin, size)}


def _effect(a: Mapping[int | None, Score], b: Mapping[int | None, Score], level: int) -> SizeEffect:
    seeds = [seed for seed in a if seed in b]
    first_levels, second_levels = ([cells[seed].prefixes[0].levels[level] for seed in seeds] for cells in (a, b))
    test = statistics.paired_test(
        [one.accuracy - other.accuracy for one, other in zip(first_levels, second_levels, strict=True)]
    )
    first = a[seeds[0]]
    return SizeEffect(
        origin=str(first.origin),
        gallery=first.gallery,
        dim=first.prefixes[0].dim,
        level=level,
        n=test.n,
        difference=test.mean,
        ci95=test.interval,
        precision_a=mean(one.precision for one in first_levels),
        precision_b=mean(one.precision for one in second_levels),
    )

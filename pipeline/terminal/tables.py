"""The tables of scores and comparisons that a person reads in the terminal, made of what `--json` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

from rich import box
from rich.table import Table

from pipeline.evaluation.gallery_size import SizeEffect
from pipeline.evaluation.ranking import Comparison
from pipeline.evaluation.scores import LevelScore, PrefixErrors, PrefixScore, Score, by_method

_MOST_LEVELS = 4
"""Levels that the small table has room for in 80 columns."""


def table_of(title: str, columns: Iterable[str], left: int = 1, **looks: Any) -> Table:
    """A table whose first `left` columns hold words, the others numbers; `looks` as of `rich.table.Table`."""
    table = Table(title=title, title_justify="left", caption_justify="left", **looks)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right")
    return table


def score_table(scores: Sequence[Score], levels: Sequence[str]) -> Table:
    """Accuracy in percent of every method, prefix and level of one protocol, untrained embeddings below.

    One seed shows the 95 % bootstrap interval over queries, several seeds mean +- SD over seeds.
    """
    first, groups = scores[0], by_method(scores)
    table = table_of(
        f"{first.protocol}, k = {first.k}: {first.queries:,} queries against {first.gallery:,} "
        f"texts\naccuracy in %, {_spread_over(groups)}",
        ("method", "dims", *levels),
        caption=_untrained(groups),
    )
    for name, group in groups.items():
        for j, dim in enumerate(group[0].dims):
            cells = [_cell([score.prefixes[j].levels[level] for score in group]) for level in range(len(levels))]
            table.add_row(name if j == 0 else "", str(dim), *cells)
        table.add_section()
    return table


def _untrained(groups: Iterable[str], more: str = "") -> str | None:
    """What the asterisk behind a method's name means, where there is one."""
    return f"* without training{more}" if any(name.endswith("*") for name in groups) else None


def ends_table(scores: Sequence[Score], levels: Sequence[str]) -> Table:
    """Accuracy in percent at the shortest and at the full vector, a line per method; of many levels the two ends.

    :param scores: of one protocol; the mean over seeds is shown. A prefix between the two has a line of its own.
    """
    first = scores[0]
    places = range(len(levels)) if len(levels) <= _MOST_LEVELS else (0, len(levels) - 1)
    groups = by_method(scores)
    table = table_of(
        f"accuracy in %, shortest → full vector; {first.queries:,} test texts against {first.gallery:,} "
        f"training texts, k = {first.k}",
        ("method", "dims", *(levels[place] for place in places)),
        box=box.SIMPLE_HEAD,
        caption=_untrained(groups, "; intervals: pipeline score"),
    )
    for name, group in groups.items():
        for prefixes in (_ends(group[0].dims), *([j] for j in range(1, len(group[0].dims) - 1))):
            cells = [
                " → ".join(f"{mean(s.prefixes[j].levels[place].accuracy for s in group) * 100:.1f}" for j in prefixes)
                for place in places
            ]
            table.add_row(name if 0 in prefixes else "", " → ".join(str(group[0].dims[j]) for j in prefixes), *cells)
    return table


def steerability_lines(scores: Sequence[Score]) -> list[str]:
    """S of every method with its two terms in points, mean over seeds: what the short and the full vector gain."""
    lines = []
    for name, group in by_method(scores).items():
        terms = [(s.steerability, s.coarse_gain, s.fine_gain) for s in group]
        if all(term is not None for one in terms for term in one):
            total, coarse, fine = (100 * mean(map(float, column)) for column in zip(*terms, strict=True))
            lines.append(f"  {name}: S = {total:+.1f} = {coarse:+.1f} coarse gain {fine:+.1f} fine gain")
    said = (
        "steerability in points, S = coarse gain (coarsest level, shortest minus full vector) + fine gain (finest "
        "level, full minus shortest):"
    )
    return [said, *lines] if lines else []


def _cell(values: Sequence[LevelScore]) -> str:
    accuracies = [value.accuracy * 100 for value in values]
    if len(values) == 1:
        low, high = (_percent(end * 100) for end in values[0].ci95)
        return f"{_percent(accuracies[0])} [{low}, {high}]"
    return f"{mean(accuracies):.1f} ± {stdev(accuracies):.1f}"


def _percent(value: float) -> str:
    """One decimal; of 100 none, or three levels with their intervals would not fit 80 columns."""
    return f"{value:.1f}".replace("100.0", "100")


def _spread_over(groups: Mapping[str, Sequence[Score]]) -> str:
    """What is printed beside an accuracy."""
    sizes = {len(group) > 1 for group in groups.values()}
    return " or ".join(
        text for several, text in ((True, "mean ± SD over seeds"), (False, "[95 % over queries]")) if several in sizes
    )


def grid_table(cells: Sequence[Score], levels: Sequence[str]) -> Table:
    """Accuracy in percent at the shortest and the full prefix, by gallery size and by where its rows come from.

    Beside it, whose votes there are: of neighbours of the text's own finest label, of its siblings' (the same parent,
    another label), and of others.
    """
    first = cells[0]
    table = table_of(
        f"{first.queries:,} queries, k = {first.k}: accuracy in %, mean over draws and seeds\n"
        f"votes: % from the text's own {levels[-1]} / its siblings / others",
        ("rows from", "gallery", "dims", *levels, "votes"),
    )
    for name, group in by_method(cells).items():
        table.add_row(name)
        for size, origin in dict.fromkeys((cell.gallery, cell.origin) for cell in group):
            alike = [cell for cell in group if (cell.gallery, cell.origin) == (size, origin)]
            for j in _ends(alike[0].prefixes):
                rows = [cell.prefixes[j] for cell in alike]
                values = (f"{mean(r.levels[i].accuracy for r in rows) * 100:.1f}" for i in range(len(levels)))
                table.add_row(f"  {origin}", f"{size:,}", str(rows[0].dim), *values, _votes(rows))
        table.add_section()
    return table


def _ends(of: Sequence[Any]) -> list[int]:
    """Places of the first and the last; one place if they are the same."""
    return list(dict.fromkeys((0, len(of) - 1)))


def _votes(rows: Sequence[PrefixScore]) -> str:
    """Shares of the votes by how near their labels are, from the precisions of the two finest levels."""
    two_finest = range(len(rows[0].levels))[::-1][:2]
    precisions = [mean(row.levels[level].precision for row in rows) for level in two_finest]
    return " / ".join(f"{(upper - lower) * 100:.0f}" for lower, upper in pairwise([0.0, *precisions, 1.0]))


def errors_table(scores: Sequence[Score], levels: Sequence[str]) -> Table:
    """Errors on the finest level at each prefix: how many, their distance in the tree, which level explains them."""
    explained = [f"parting at {level}, % of errors" for level in levels]
    table = table_of(
        f"{scores[0].protocol}: errors on {levels[-1]}; distance counts the levels at which the paths differ, "
        "beside that of a random wrong label",
        ("method", "dims", "errors %", "distance (random)", *explained),
    )
    for name, group in by_method(scores).items():
        for j, rows in enumerate(zip(*(score.errors or () for score in group), strict=True)):
            total = sum(row.errors for row in rows)
            distances = [[row.mean_distance for row in rows], [row.chance_distance for row in rows]]
            shares = [[row.explained[level] for row in rows] for level in range(len(levels))]
            table.add_row(
                name if j == 0 else "",
                str(rows[0].dim),
                f"{total / sum(row.queries for row in rows) * 100:.1f}",
                "{} ({})".format(*(f"{_weighted(one, rows):.2f}" if total else "-" for one in distances)),
                *(f"{_weighted(one, rows):.0%}" if total else "-" for one in shares),
            )
        table.add_section()
    return table


def _weighted(values: Sequence[float | None], rows: Sequence[PrefixErrors]) -> float:
    """Mean over seeds, weighted by how many errors each has."""
    total = sum((value or 0.0) * row.errors for value, row in zip(values, rows, strict=True))
    return total / sum(row.errors for row in rows)


def confusion_lines(scores: Sequence[Score], levels: Sequence[str]) -> list[str]:
    """The most frequent confusions of each method at its shortest prefix and in full, all seeds together.

    They are counted from each seed's fifty most frequent.
    """
    lines = []
    for name, group in by_method(scores).items():
        errors = [score.errors or () for score in group]
        for j in _ends(errors[0]):
            counts: Counter[tuple[str, str, int]] = Counter()
            for one in (one for score in errors for one in score[j].worst):
                counts[one.truth, one.predicted, one.distance] += one.count
            found = (
                f"{truth} > {predicted} {count}{'' if distance == 1 else ' (another ' + levels[-distance] + ')'}"
                for (truth, predicted, distance), count in counts.most_common(5)
            )
            lines.append(f"  {name}, {errors[0][j].dim} dims: {', '.join(found) or 'no error'}")
    return [f"most frequent confusions on {levels[-1]}, truth > prediction and how often:", *lines]


def comparison_table(rows: Sequence[Comparison], levels: Sequence[str]) -> Table:
    """Differences a - b in points, with the interval over seeds, Holm's p and the effect size, pair by pair.

    The shortest and the longest prefix are shown.
    """
    table = Table(title="differences a - b in points", collapse_padding=True)
    table.add_column("on", overflow="fold")
    for column in ("dims", "a - b", "95 %\nover seeds", "p\n(Holm)", "d", "95 %\nover texts"):
        table.add_column(column, justify="right", no_wrap=True)
    pair = None
    last = {(row.a, row.b): (row.dim, row.dim_b) for row in rows if row.dim}
    for row in rows:
        if row.dim and row.prefix != 1 and (row.dim, row.dim_b) != last[row.a, row.b]:
            continue
        if (row.a, row.b) != pair:
            pair = row.a, row.b
            table.add_section()
            table.add_row(f"{row.a} - {row.b}, n = {row.n}")
        on = row.metric.replace("_", " ") if row.level is None else levels[row.level]
        p = "-" if row.p_holm is None else f"{row.p_holm:.2g}"
        d = "-" if row.cohens_d is None else f"{row.cohens_d:.1f}"
        table.add_row(
            f"  {on}", _dims(row), f"{row.mean_difference * 100:+.1f}",
            _points(row.ci95), p, d, _points(row.texts_ci95),
        )  # fmt: skip
    return table


def _dims(row: Comparison) -> str:
    return "" if row.dim is None else str(row.dim) if row.dim == row.dim_b else f"{row.dim}/{row.dim_b}"


def size_table(effects: Sequence[SizeEffect], levels: Sequence[str], a: str, b: str) -> Table:
    """The difference a - b at the shortest prefix by gallery, and whose labels the neighbours carry."""
    table = table_of(
        f"{a} - {b} at {effects[0].dim} dims in points, by gallery, n = {effects[0].n} seeds; own: share of "
        "neighbours with the text's own label",
        ("rows from", "on", "gallery", f"{a} - {b}", "95 %", f"{a} own", f"{b} own"),
        left=2,
    )
    for before, effect in zip([None, *effects], effects, strict=False):
        same = before is not None and (before.origin, before.level) == (effect.origin, effect.level)
        table.add_row(
            "" if same else effect.origin, "" if same else levels[effect.level], f"{effect.gallery:,}",
            f"{effect.difference * 100:+.1f}", _points(effect.ci95),
            f"{effect.precision_a:.0%}", f"{effect.precision_b:.0%}",
        )  # fmt: skip
    return table


def _points(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"[{interval[0] * 100:+.1f}, {interval[1] * 100:+.1f}]"

"""What the figures mean, in words: which method for which need, how short a prefix may be, what does not survive.

"Ahead" and "worse" mean that the 95 % interval of the paired difference over seeds and texts excludes zero
(`Comparison.leader`): each figure by itself. `pipeline compare` adjusts for reading many at once, and says "beats" less
often.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

import polars as pl
from markupsafe import Markup

from pipeline.evaluation.comparison import Comparison, points
from pipeline.evaluation.metrics import smallest_prefix
from pipeline.evaluation.recommend import Ranking, advice, rankings
from pipeline.evaluation.scores import by_method
from pipeline.report.collect import ReportData
from pipeline.report.frames import accuracy_frame
from pipeline.report.html import bullets, table, tag

GALLERY, PUBLISHED = "gallery", "leave-one-out"
_MOST = 6


def summary(report_data: ReportData) -> Markup:
    """The words at the head of the page."""
    lost = does_not_survive(report_data)
    few = "No significant difference of the small-gallery protocol is undone by the realistic gallery."
    ranked = rankings(report_data.comparisons[GALLERY], report_data.levels)
    return tag(
        "div",
        [
            tag("p", sentence, class_="lead" if i == 0 else None)
            for i, sentence in enumerate(advice(report_data.entries[GALLERY], report_data.levels))
        ],
        needs_table(report_data, ranked),
        prefix_table(report_data),
        tag("h3", "What does not survive a realistic gallery"),
        tag("p", _protocols(report_data)),
        bullets(lost) if lost else tag("p", few),
        tag("h3", "What training buys"),
        bullets(against_untrained(report_data)),
        tag("p", sample_sentence(report_data), class_="note"),
    )


def needs_table(report_data: ReportData, ranked: Mapping[tuple[int | None, str], Ranking]) -> Markup:
    """For each level, at the shortest prefix and in full: who is first, and whether that is more than luck."""
    frame = accuracy_frame({GALLERY: report_data.entries[GALLERY]}, report_data.levels)
    rows = []
    for dim in dict.fromkeys((report_data.dims[0], report_data.dims[-1], None)):
        for name in report_data.levels:
            found = ranked.get((dim, name))
            if found is None:
                continue
            of = frame.filter(level=name, method=found.best)
            first = of.row(-1, named=True) if dim is None else of.row(by_predicate=pl.col("dim") == dim, named=True)
            need = f"{name} from {'whole vectors' if dim is None else f'{dim} dims'}"
            take = found.best if not found.equal else f"no significant difference: {', '.join(found.first)}"
            behind = [f"worse: {row.b} {points(-row.mean_difference, _turned(row))}" for row in found.worse]
            equal = [f"{row.b} {points(-row.mean_difference, _turned(row))}" for row in found.equal]
            rows.append((need, take, figure(first), "; ".join([*equal, *behind])))
    caption = (
        f"Which method for which need: {report_data.features.backbone}, gallery protocol, accuracy in % with its 95 % "
        f"interval, {_seeds_of(report_data)}"
    )
    head = ("need", "take", "accuracy of the first", "the others against it")
    return table(caption, head, rows, text=(0, 1, 3))


def prefix_table(report_data: ReportData) -> Markup:
    """The smallest prefix of every method that loses no more than a point against its full vector, by level."""
    rows = []
    for name, group in by_method(report_data.scores[GALLERY]).items():
        dims = group[0].dims
        needed = []
        for level in range(len(report_data.levels)):
            curve = [mean(score.prefixes[j].levels[level].accuracy for score in group) for j in range(len(dims))]
            dim = smallest_prefix(curve, dims)
            needed.append(f"{dim} dims ({dim * 4:,} bytes)")
        rows.append((name, *needed))
    caption = "Smallest prefix within one point of the full vector (gallery protocol, float32 bytes)"
    return table(caption, ("method", *report_data.levels), rows)


def does_not_survive(report_data: ReportData) -> list[str]:
    """Leads of the small-gallery protocol between trained methods that the training gallery does not show."""
    trained = [row for row in report_data.comparisons[PUBLISHED] if not {row.a, row.b} & {*report_data.untrained}]
    small = [row for row in trained if row.metric == "accuracy" and row.leader]
    large = {_place(row): row for row in report_data.comparisons[GALLERY]}
    lost = [(row, large[_place(row)]) for row in small if large[_place(row)].leader != row.leader]
    ends = [(row, other) for row, other in lost if row.dim in (report_data.dims[0], report_data.dims[-1])]
    ends.sort(key=lambda pair: -abs(pair[0].mean_difference))
    sentences = [_lost(report_data, row, other) for row, other in ends[:_MOST]]
    left = len(lost) - len(sentences)
    return [*sentences, *([f"And {left} more among other prefixes, levels and methods."] if left else [])]


def against_untrained(report_data: ReportData) -> list[str]:
    """For each level at the shortest prefix: the best that no one trained, and who is better or worse."""
    dim = report_data.dims[0]
    frame = accuracy_frame({GALLERY: report_data.entries[GALLERY]}, report_data.levels)
    sentences = []
    for level, name in enumerate(report_data.levels):
        here = frame.filter(dim=dim, level=name).to_dicts()
        untrained = [row for row in here if row["method"] in report_data.untrained]
        if not untrained:
            continue
        best = max(untrained, key=lambda row: row["value"])
        rows = [
            row.seen_from(best["method"])
            for row in report_data.comparisons[GALLERY]
            if best["method"] in (row.a, row.b) and (row.dim, row.dim_b, row.level) == (dim, dim, level)
        ]
        groups = {
            word: [f"{row.b} {points(-row.mean_difference, _turned(row))}" for row in rows if row.leader == sign]
            for word, sign in (("better:", -1), ("no significant difference:", 0), ("worse:", 1))
        }
        parts = [f"{word} {', '.join(found)}" for word, found in groups.items() if found]
        sentences.append(
            f"On {name} at {dim} dims {best['method']}, which no label trained, is right about {figure(best)} % of "
            f"texts; {'; '.join(parts)}."
        )
    return sentences


def sample_sentence(report_data: ReportData) -> str:
    """How many texts, seeds and neighbours are behind the figures."""
    score = report_data.scores[GALLERY][0]
    seeds = report_data.seeds
    if len(seeds) > 1:
        spread = "Intervals are 95 % and cover other seeds and other texts."
    elif seeds:
        spread = "One seed: intervals are 95 % over texts alone, and a difference may be that seed's."
    else:
        spread = "Nothing here has a seed: intervals are 95 % over texts."
    tests = "Each difference is tested by itself; pipeline compare adjusts for reading many at once."
    return (
        f"{score.queries:,} test texts, {score.gallery:,} training texts as gallery, k = {score.k}; "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds)) or 'none'} (n = {len(seeds)}). "
        f"{spread} {tests}"
    )


def figure(row: Mapping[str, Any]) -> str:
    """An accuracy in percent with its interval."""
    return f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def _turned(row: Comparison) -> tuple[float, float]:
    return -row.interval[1], -row.interval[0]


def _protocols(report_data: ReportData) -> str:
    small, large = (report_data.scores[name][0] for name in (PUBLISHED, GALLERY))
    return (
        f"The published protocol searches {small.queries:,} test texts among themselves; an index holds the "
        f"{large.gallery:,} training texts. What the first shows and the second does not:"
    )


def _lost(report_data: ReportData, row: Comparison, other: Comparison) -> str:
    small = row.seen_from(row.a if row.leader > 0 else row.b)
    large = other.seen_from(small.a)
    became = "there is no significant difference" if not large.leader else f"{large.b} is ahead"
    assert row.level is not None
    return (
        f"{small.a} ahead of {small.b} on {report_data.levels[row.level]} at {row.dim} dims: "
        f"{points(small.mean_difference, small.interval)} in the small gallery, "
        f"{points(large.mean_difference, large.interval)} in the realistic one, where {became}."
    )


def _place(row: Comparison) -> tuple[Any, ...]:
    return row.a, row.b, row.metric, row.dim, row.dim_b, row.level


def _seeds_of(report_data: ReportData) -> str:
    counts = sorted({len(group) for group in by_method(report_data.scores[GALLERY]).values()})
    return f"n = {' or '.join(map(str, counts))} seed{'' if counts == [1] else 's'} per method"

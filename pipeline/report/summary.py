"""What the figures mean, in words: which method for which need, how short a prefix may be, what does not survive.

"Ahead" means that the 95 % interval of the difference over texts excludes zero and so does that over seeds, if there
are several: each figure by itself. `pipeline compare` adjusts for reading many at once, and says "beats" less often.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from pipeline.evaluation.comparison import Comparison
from pipeline.evaluation.metrics import smallest_prefix
from pipeline.evaluation.recommend import advice
from pipeline.report.collect import ReportData
from pipeline.report.frames import accuracy_frame, titled
from pipeline.report.html import Html, bullets, table, tag

GALLERY, PUBLISHED = "gallery", "leave-one-out"
_MOST = 6


def summary(report_data: ReportData) -> Html:
    """The words at the head of the page."""
    scores = report_data.scores[GALLERY]
    lost = does_not_survive(report_data)
    few = "" if lost else "Nothing that the small-gallery protocol shows to differ is undone by the realistic gallery."
    return tag(
        "div",
        [
            tag("p", sentence, class_="lead" if i == 0 else None)
            for i, sentence in enumerate(advice(scores, report_data.levels))
        ],
        needs_table(report_data),
        prefix_table(report_data),
        tag("h3", "What does not survive a realistic gallery"),
        tag("p", _protocols(report_data)),
        bullets(lost) if lost else tag("p", few),
        tag("h3", "What training buys"),
        bullets(against_untrained(report_data)),
        tag("p", sample_sentence(report_data), class_="note"),
    )


def needs_table(report_data: ReportData) -> Html:
    """For each level, at the shortest prefix and in full: who is first, and whether that is more than luck."""
    scores = titled(report_data.scores[GALLERY])
    frame = accuracy_frame({GALLERY: report_data.scores[GALLERY]}, report_data.levels)
    rows = []
    for dim in dict.fromkeys((report_data.dims[0], report_data.dims[-1])):
        for level, name in enumerate(report_data.levels):
            here = frame.filter(dim=dim, level=name).sort("value", descending=True, maintain_order=True).to_dicts()
            first = here[0]
            rest = [_against(report_data, first["method"], other["method"], dim, level) for other in here[1:]]
            need = f"{name} from {dim} dims"
            level_with = [other["method"] for other in here[1:] if not _ahead(report_data, first, other, dim, level)]
            take = first["method"] if not level_with else f"level: {', '.join((first['method'], *level_with))}"
            rows.append((need, take, figure(first), "; ".join(rest) or "one method only"))
    caption = (
        f"Which method for which need: {report_data.features.backbone}, gallery protocol, accuracy in % with its 95 % "
        f"interval, {_seeds_of(scores)}"
    )
    return table(
        caption, ("need", "take", "accuracy of the first", "ahead of the others by, points"), rows, text=(0, 1, 3)
    )


def prefix_table(report_data: ReportData) -> Html:
    """The smallest prefix of every method that loses no more than a point against its full vector, by level."""
    rows = []
    for name, group in titled(report_data.scores[GALLERY]).items():
        dims = [prefix["dim"] for prefix in group[0]["prefixes"]]
        needed = []
        for level in range(len(report_data.levels)):
            curve = [mean(s["prefixes"][j]["levels"][level]["accuracy"] for s in group) for j in range(len(dims))]
            dim = smallest_prefix(curve, dims)
            needed.append(f"{dim} dims ({dim * 4:,} bytes)")
        rows.append((name, *needed))
    caption = "Smallest prefix within one point of the full vector (gallery protocol, float32 bytes)"
    return table(caption, ("method", *report_data.levels), rows)


def does_not_survive(report_data: ReportData) -> list[str]:
    """Leads of the small-gallery protocol that the training gallery does not show, largest first."""
    small = [row for row in report_data.comparisons[PUBLISHED] if row.metric == "accuracy" and leader(row)]
    large = {_place(row): row for row in report_data.comparisons[GALLERY]}
    lost = [(row, large[_place(row)]) for row in small if leader(large[_place(row)]) != leader(row)]
    ends = [(row, other) for row, other in lost if row.dim in (report_data.dims[0], report_data.dims[-1])]
    ends.sort(key=lambda pair: -abs(pair[0].mean_difference))
    sentences = [_lost(report_data, row, other) for row, other in ends[:_MOST]]
    left = len(lost) - len(sentences)
    return [*sentences, *([f"And {left} more among other prefixes, levels and methods."] if left else [])]


def leader(row: Comparison) -> int:
    """1 if a is ahead, -1 if b is, else 0; ahead: every 95 % interval that there is excludes zero."""
    intervals = [row.texts_ci95] if row.ci95 is None else [row.texts_ci95, row.ci95]
    return int(all(low > 0 for low, _ in intervals)) - int(all(high < 0 for _, high in intervals))


def against_untrained(report_data: ReportData) -> list[str]:
    """For each level at the shortest prefix: what the best embedding that no one trained reaches, and who beats it."""
    dim = report_data.dims[0]
    trained = accuracy_frame({GALLERY: report_data.scores[GALLERY]}, report_data.levels)
    untrained = accuracy_frame({GALLERY: report_data.baselines[GALLERY]}, report_data.levels)
    sentences = []
    for level in report_data.levels:
        beside = untrained.filter(dim=dim, level=level).sort("value", descending=True, maintain_order=True).to_dicts()
        if not beside:
            continue
        best = beside[0]
        here = trained.filter(dim=dim, level=level).to_dicts()
        parts = [
            f"{word} {', '.join(found)}"
            for word, found in (
                ("clearly ahead of it:", [_named(r) for r in here if r["low"] > best["high"]]),
                ("no better, as far as the intervals tell:", [_named(r) for r in here if r["low"] <= best["high"]]),
            )
            if found
        ]
        sentences.append(
            f"On {level} at {dim} dims {best['method']}, which no label trained, is right about {figure(best)} % of "
            f"texts; {'; '.join(parts)}."
        )
    return sentences


def sample_sentence(report_data: ReportData) -> str:
    """How many texts, seeds and neighbours stand behind the figures."""
    score = report_data.scores[GALLERY][0]
    seeds = ", ".join(map(str, report_data.seeds))
    several = len(report_data.seeds) > 1
    spread = (
        "Intervals are 95 % and cover other seeds and other texts."
        if several
        else "One seed: intervals are 95 % over texts alone, and a difference may be that seed's."
    )
    tests = "Each difference is tested by itself; pipeline compare adjusts for reading many at once."
    return (
        f"{score['queries']:,} test texts, {score['gallery']:,} training texts as gallery, k = {score['k']}; "
        f"{'seeds' if several else 'seed'} {seeds} (n = {len(report_data.seeds)}). {spread} {tests}"
    )


def figure(row: dict[str, Any]) -> str:
    """An accuracy in percent with its interval."""
    return f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def _protocols(report_data: ReportData) -> str:
    small, large = (report_data.scores[name][0] for name in (PUBLISHED, GALLERY))
    return (
        f"The published protocol searches {small['queries']:,} test texts among themselves; an index holds the "
        f"{large['gallery']:,} training texts. What the first shows and the second does not:"
    )


def _lost(report_data: ReportData, row: Comparison, other: Comparison) -> str:
    ahead = leader(row) > 0
    first, second = (row.a, row.b) if ahead else (row.b, row.a)
    now = leader(other)
    became = "they do not differ significantly" if not now else f"{other.a if now > 0 else other.b} is ahead"
    assert row.level is not None
    return (
        f"{first} ahead of {second} on {report_data.levels[row.level]} at {row.dim} dims: {_gap(row, ahead)} points in "
        f"the small gallery, {_gap(other, ahead)} in the realistic one, where {became}."
    )


def _gap(row: Comparison, as_is: bool) -> str:
    low, high = row.ci95 or row.texts_ci95
    value = row.mean_difference
    if not as_is:
        value, low, high = -value, -high, -low
    return f"{value * 100:+.1f} [{low * 100:+.1f}, {high * 100:+.1f}]"


def _ahead(report_data: ReportData, first: dict[str, Any], other: dict[str, Any], dim: int, level: int) -> bool:
    """Whether the first differs significantly from another, in what is printed and by every interval."""
    pair = {first["method"], other["method"]}
    told = any(
        leader(row)
        for row in report_data.comparisons[GALLERY]
        if {row.a, row.b} == pair and (row.metric, row.dim, row.level) == ("accuracy", dim, level)
    )
    return told and f"{first['value']:.1f}" != f"{other['value']:.1f}"


def _against(report_data: ReportData, first: str, other: str, dim: int, level: int) -> str:
    for row in report_data.comparisons[GALLERY]:
        if {row.a, row.b} == {first, other} and (row.metric, row.dim, row.level) == ("accuracy", dim, level):
            told = "" if leader(row) else ", no significant difference"
            return f"{other} {_gap(row, row.a == first)}{told}"
    return f"{other}: no seed in common"


def _place(row: Comparison) -> tuple[Any, ...]:
    return row.a, row.b, row.metric, row.dim, row.level


def _named(row: dict[str, Any]) -> str:
    return f"{row['method']} ({row['value']:.1f})"


def _seeds_of(scores: dict[str, Sequence[Any]] | dict[str, list[Any]]) -> str:
    counts = sorted({len(group) for group in scores.values()})
    spoken = " or ".join(map(str, counts))
    return f"n = {spoken} seed{'' if counts == [1] else 's'} a method"

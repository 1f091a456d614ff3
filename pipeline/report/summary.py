"""The first screen, and how sure its answer is.

First what to use in one sentence, one chart that shows it, and what that rests on. Then methods against the advised
one, which one for which need, and what a small gallery hides.

"Ahead" and "worse" mean that the 95 % interval of the paired difference over seeds and texts excludes zero
(`Comparison.leader`): each figure by itself. `pipeline compare` adjusts for reading many at once, and says "beats" less
often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from pipeline.evaluation.comparison import by_method
from pipeline.evaluation.ranking import Comparison, Ranking, points, rankings
from pipeline.evaluation.recommend import Answer, advice, answer, needed_dims, nothing_told
from pipeline.report import charts
from pipeline.report.collect import ReportData
from pipeline.report.frames import difference_frame
from pipeline.report.html import Figure, Section, grid, numbers, table, tag
from pipeline.report.looks import reach_of, span_of

GALLERY, PUBLISHED = "gallery", "leave-one-out"
_MOST = 6
"""Differences that a small gallery alone shows and that are drawn, at most."""
_ONE_ROW = 4
"""Charts that stand side by side on a wide screen."""


def answer_section(report_data: ReportData) -> Section:
    """The headline, accuracy against dims per level for the advised method and what competes with it, and the basis."""
    entries = report_data.entries[GALLERY]
    found = answer(entries)
    frame = report_data.accuracies.filter(protocol=GALLERY)
    if found is None:
        headline = nothing_told(entries, report_data.levels) or ""
        shown = tuple(dict.fromkeys(frame["method"]))[:3]
    else:
        headline = found.sentence(report_data.levels)
        shown = shown_methods(report_data, found)
    frame = frame.filter(pl.col("method").is_in(shown))
    figures = _charts(frame, shown, report_data)
    rests = tag("p", basis(report_data), class_="note")
    shown_first = [rests, grid(figures)] if len(figures) > _ONE_ROW else [grid(figures), rests]  # on the first screen
    body = tag(
        "div", tag("p", headline, class_="headline"), *shown_first,
        numbers(accuracy_table("Accuracy in % [95 %], gallery", frame, report_data.levels)), class_="answer",
    )  # fmt: skip
    return Section("answer", "Which to use", body, figures)


def shown_methods(report_data: ReportData, found: Answer) -> tuple[str, ...]:
    """The advised method first, then the best of the others, then the best of what takes no training."""
    free = [name for name in report_data.untrained if name not in (found.method, found.rival)]
    frame = report_data.accuracies.filter(protocol=GALLERY)
    means = dict(frame.group_by("method").agg(pl.col("value").mean()).iter_rows())
    free.sort(key=lambda name: -means.get(name, 0.0))
    return tuple(dict.fromkeys(name for name in (found.method, found.rival, *free[:1]) if name is not None))


def basis(report_data: ReportData) -> str:
    """What the figures rest on, in one line."""
    first = report_data.entries[GALLERY][0].predictions
    seeds = report_data.seeds
    several = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed" if seeds else "closed forms, which have no seed"
    return (
        f"{report_data.dataset.name} through {report_data.features.backbone}: {first.queries:,} test texts, each "
        f"compared with {first.gallery:,} training texts (the vote of its {first.k} nearest); classes: "
        f"{report_data.sizes}; {several}. Bands are 95 % intervals."
    )


def accuracy_table(caption: str, frame: pl.DataFrame, levels: Sequence[str], *facts: str) -> Markup:
    """Accuracies of one protocol, a row per method and prefix; `facts`: columns of the frame to stand before."""
    rows = [
        (name, dim, *(part[fact][0] for fact in facts), *(figure(row) for row in part.to_dicts()))
        for (name, dim), part in frame.group_by("method", "dim", maintain_order=True)
    ]
    return table(caption, ("method", "dims", *facts, *levels), rows)


def ends(frame: pl.DataFrame) -> str:
    """Accuracies at the shortest prefix and in full, for who does not see the chart."""
    said = (
        f"{name}: {part['value'][0]:.1f} % at {part['dim'][0]}, {part['value'][-1]:.1f} % at {part['dim'][-1]}"
        for (name,), part in frame.group_by("method", maintain_order=True)
    )
    return "; ".join(said) + "."


def _charts(frame: pl.DataFrame, shown: Sequence[str], report_data: ReportData) -> list[Figure]:
    figures, looks = [], {name: report_data.looks[name] for name in shown}
    for place, level in enumerate(report_data.levels):
        here = frame.filter(level=level)
        spec = charts.answer_chart(here, looks, reach_of(here["low"], here["high"]))
        alt = f"Accuracy on {level} by dimensions kept. {ends(here)}"
        figures.append(Figure(f"answer-{place}", level, alt, spec))
    return figures


def summary(report_data: ReportData) -> Section:
    """How sure the answer is: every method against the advised one, and what a small gallery makes of it."""
    sentences = advice(report_data.entries[GALLERY], report_data.levels, report_data.comparisons[GALLERY] or None)
    ranked = rankings(report_data.comparisons[GALLERY], report_data.levels)
    figures, against = _against(report_data)
    drawn, undone = _undone(report_data)
    body = tag(
        "div",
        tag("p", sentences[0], class_="lead"),
        [tag("p", f"Each method less {against}, in points, over the same texts. Left of the line is worse. Filled: at "
                  f"{report_data.dims[0]} dims; hollow: full vectors. Bars are 95 % intervals of the difference: one "
                  "that crosses the line is no significant difference."),
         grid(figures)] if figures else [],
        numbers(*(tag("p", sentence) for sentence in sentences[1:]), needs_table(report_data, ranked),
                prefix_table(report_data), summary="Which method for which need, in numbers"),
        undone,
        tag("p", sample_sentence(report_data), class_="note"),
    )  # fmt: skip
    return Section("summary", "How sure", body, [*figures, *drawn])


def _against(report_data: ReportData) -> tuple[list[Figure], str]:
    """A chart per level of the differences from the advised method, at the shortest prefix and in full."""
    found = answer(report_data.entries[GALLERY])
    name = report_data.methods[0] if found is None else found.method
    frame = difference_frame(report_data.comparisons[GALLERY], name, report_data.levels)
    if frame.is_empty():
        return [], name
    reach, figures = span_of(frame["low"], frame["high"]), []
    for place, level in enumerate(report_data.levels):
        here = frame.filter(level=level)
        said = "; ".join(f"{r['method']} {r['value']:+.1f} ({r['vectors']})" for r in here.to_dicts())
        alt = f"Difference from {name} on {level} in points. {said}."
        figures.append(Figure(f"against-{place}", level, alt, charts.difference_chart(here, report_data.looks, reach)))
    return figures, name


def _undone(report_data: ReportData) -> tuple[list[Figure], Markup]:
    """What the published protocol's small gallery shows and the realistic one does not: a line per difference."""
    lost = does_not_survive(report_data)
    head = tag("h3", "What does not survive a realistic gallery")
    if not lost:
        few = "No significant difference of the small-gallery protocol is undone by the realistic gallery."
        return [], Markup().join([head, tag("p", few)])
    shown = lost[:_MOST]
    names = [_spelled(report_data, small) for small, _ in shown]
    frame = pl.DataFrame({
        "difference": names,
        "small": [small.mean_difference * 100 for small, _ in shown],
        "large": [large.mean_difference * 100 for _, large in shown],
    })  # fmt: skip
    rows = [
        (_spelled(report_data, small), points(small.mean_difference, small.interval),
         points(large.mean_difference, large.interval))
        for small, large in lost
    ]  # fmt: skip
    said = "; ".join(f"{r['difference']}: {r['small']:+.1f}, then {r['large']:+.1f}" for r in frame.to_dicts())
    caption = "Points of accuracy: hollow in the small gallery, filled in the realistic one"
    first = "Significant in the small gallery and not in the realistic one"
    drawn = f"; the largest {len(shown)} are drawn" if len(lost) > len(shown) else ""
    small_first, large_first = (report_data.scores[name][0] for name in (PUBLISHED, GALLERY))
    counted = (
        f"The published protocol searches {small_first.queries:,} test texts among themselves; an index holds the "
        f"{large_first.gallery:,} training texts. {len(lost)} differences are significant in the first and not in the "
        f"second{drawn}."
    )
    figure = Figure("undone", caption, f"{caption}. {said}.", charts.dumbbell_chart(frame, names))
    inside = numbers(table(first, ("difference", "small gallery", "realistic gallery"), rows))
    return [figure], Markup().join([head, tag("p", counted), figure.markup, inside])


def _spelled(report_data: ReportData, row: Comparison) -> str:
    assert row.level is not None
    return f"{row.a} - {row.b}, {report_data.levels[row.level]}, {row.dim} dims"


def needs_table(report_data: ReportData, ranked: Mapping[tuple[int | None, str], Ranking]) -> Markup:
    """For each level, at the shortest prefix and in full: who is first, and whether that is more than luck."""
    frame = report_data.accuracies.filter(protocol=GALLERY)
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
            others = [row.against_a for row in found.equal] + [f"worse: {row.against_a}" for row in found.worse]
            rows.append((need, take, figure(first), "; ".join(others)))
    methods = by_method(report_data.entries[GALLERY])
    seeds = sorted({len(methods[name]) for name in report_data.methods})
    caption = (
        f"Which method for which need: {report_data.features.backbone}, gallery protocol, accuracy in % with its 95 % "
        f"interval, n = {' or '.join(map(str, seeds))} seed{'' if seeds == [1] else 's'} per method; "
        "what is untrained (*) is compared only with what is trained"
    )
    head = ("need", "take", "accuracy of the first", "the others against it")
    return table(caption, head, rows, text=(0, 1, 3), stacks=True)


def prefix_table(report_data: ReportData) -> Markup:
    """The smallest prefix of every method that loses no more than a point against its full vector, by level."""
    rows = []
    for name, runs in by_method(report_data.entries[GALLERY]).items():
        if name in report_data.methods:
            rows.append((name, *(f"{dim} dims ({dim * 4:,} bytes)" for dim in needed_dims(runs))))
    caption = "Smallest prefix within one point of the full vector (gallery protocol, float32 bytes)"
    return table(caption, ("method", *report_data.levels), rows)


def does_not_survive(report_data: ReportData) -> list[tuple[Comparison, Comparison]]:
    """Leads of the small-gallery protocol between trained methods that the training gallery does not show.

    Pairs of the same difference, there and here, the winner there first; largest first.
    """
    trained = [row for row in report_data.comparisons[PUBLISHED] if not {row.a, row.b} & {*report_data.untrained}]
    ends = (report_data.dims[0], report_data.dims[-1])
    small = [row for row in trained if row.metric == "accuracy" and row.leader and row.dim in ends]
    large = {_place(row): row for row in report_data.comparisons[GALLERY]}
    lost = [(row, large[_place(row)]) for row in small if large[_place(row)].leader != row.leader]
    turned = [(row.seen_from(row.a if row.leader > 0 else row.b), other) for row, other in lost]
    turned.sort(key=lambda pair: -pair[0].mean_difference)
    return [(row, other.seen_from(row.a)) for row, other in turned]


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


def _place(row: Comparison) -> tuple[Any, ...]:
    return row.a, row.b, row.metric, row.dim, row.dim_b, row.level

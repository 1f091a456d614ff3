"""The first screen: what to use in one sentence, one chart that shows it, and what that rests on."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from markupsafe import Markup

from pipeline.evaluation.recommend import Answer, answer, nothing_told
from pipeline.report import charts
from pipeline.report.charts import Spec
from pipeline.report.collect import ReportData
from pipeline.report.html import Section, chart, grid, numbers, table, tag
from pipeline.report.summary import GALLERY, figure

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
    specs, figures = _charts(frame.filter(pl.col("method").is_in(shown)), shown, report_data)
    rests = tag("p", basis(report_data), class_="note")
    shown_first = [rests, grid(figures)] if len(figures) > _ONE_ROW else [grid(figures), rests]  # on the first screen
    body = tag(
        "div", tag("p", headline, class_="headline"), *shown_first,
        numbers(_table(frame.filter(pl.col("method").is_in(shown)), report_data.levels)), class_="answer",
    )  # fmt: skip
    return Section("answer", "Which to use", body, specs)


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
    sizes = " > ".join(
        f"{size:,} {name}" for size, name in zip(report_data.dataset.hierarchy.sizes, report_data.levels, strict=True)
    )
    seeds = report_data.seeds
    several = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed" if seeds else "closed forms, which have no seed"
    return (
        f"{report_data.dataset.name} through {report_data.features.backbone}: {first.queries:,} test texts, each "
        f"compared with {first.gallery:,} training texts (the vote of its {first.k} nearest); classes: {sizes}; "
        f"{several}. Bands are 95 % intervals."
    )


def _table(frame: pl.DataFrame, levels: Sequence[str]) -> Markup:
    rows = [
        (name, dim, *(figure(row) for row in part.to_dicts()))
        for (name, dim), part in frame.group_by("method", "dim", maintain_order=True)
    ]
    return table("Accuracy in % [95 %], gallery", ("method", "dims", *levels), rows)


def _charts(frame: pl.DataFrame, shown: Sequence[str], report_data: ReportData) -> tuple[dict[str, Spec], list[Markup]]:
    looks = charts.styles([*report_data.methods, *report_data.untrained])
    specs, figures = {}, []
    for place, level in enumerate(report_data.levels):
        here = frame.filter(level=level)
        reach = charts.reach_of(here["low"], here["high"])
        specs[f"answer-{place}"] = charts.answer_chart(here, {name: looks[name] for name in shown}, reach)
        ends = "; ".join(
            f"{name}: {part['value'][0]:.1f} % at {part['dim'][0]}, {part['value'][-1]:.1f} % at {part['dim'][-1]}"
            for (name,), part in here.group_by("method", maintain_order=True)
        )
        figures.append(chart(f"answer-{place}", level, f"Accuracy on {level} by dimensions kept. {ends}."))
    return specs, figures

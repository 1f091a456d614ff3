"""Where the finest level goes wrong: below the right parent or not, for which parents, and between which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import polars as pl
from markupsafe import Markup

from pipeline.evaluation.comparison import Entry
from pipeline.evaluation.scores import by_method
from pipeline.report import charts
from pipeline.report.collect import ReportData
from pipeline.report.frames import parent_confusions, parent_errors
from pipeline.report.html import Figure, Section, grid, legend, numbers, table, tag
from pipeline.report.summary import GALLERY

MOST_PARENTS = 24


def confusion(report_data: ReportData) -> Section:
    """Where the finest level goes wrong: below the right parent or not, for which parents, and between which."""
    entries = [entry for entry in report_data.entries[GALLERY] if entry.method in report_data.methods]
    hierarchy = report_data.dataset.hierarchy
    frame = parent_errors(entries, hierarchy)
    coarse, fine = report_data.levels[0], report_data.levels[-1]
    totals, title = _totals(frame), f"What goes wrong: confusion by {coarse}"
    ends = dict.fromkeys((report_data.dims[0], report_data.dims[-1]))
    if not totals["wrong"].max():  # charts of nothing would look broken
        said = (
            f"Nothing: at {' and '.join(map(str, ends))} dims every answer on {fine} in the gallery protocol is right, "
            "by every trained method."
        )
        return Section("confusion", title, tag("div", tag("p", said)))
    kinds, top = [], float(totals["wrong"].max()) * 1.05  # type: ignore[arg-type]
    for i, dim in enumerate(ends):
        here = totals.filter(dim=dim)
        wrong = (
            f"{r['method']} {r['wrong']:.1f} %, {r['sibling']:.1f} of it below the right parent"
            for r in here.to_dicts()
        )
        alt = f"Wrong answers on {fine} at {dim} dims. {'; '.join(wrong)}."
        kinds.append(Figure(f"errors-{i}", f"At {dim} dims", alt, charts.errors_chart(here, report_data.methods, top)))
    short = frame.filter(dim=report_data.dims[0])
    order = short.group_by("parent").agg(pl.col("wrong").mean()).sort("wrong", "parent", descending=[True, False])
    worst = order["parent"].to_list()[:MOST_PARENTS]
    figures = [
        Figure(
            "parents",
            f"Wrong on {fine} by {coarse}, at {report_data.dims[0]} dims",
            f"Share of wrong answers on {fine} by {coarse}; most for {worst[0]}.",
            charts.parents_chart(short.filter(pl.col("parent").is_in(worst)), report_data.looks, worst),
        )
    ]
    if hierarchy.depth > 1 and short["stranger"].max():
        figures.append(_matrix(report_data, entries, worst, totals))
    words = (
        f"Of the answers on {fine} in the gallery protocol: a wrong {fine} below the right {coarse} is a smaller error "
        f"than one below another. Means over seeds."
    )
    key = tag(
        "ul",
        tag("li", tag("span", class_="block near"), f"right {coarse}, wrong {fine}"),
        tag("li", tag("span", class_="block far"), f"wrong {coarse}"),
        class_="legend",
    )
    rows = [
        (r["method"], r["parent"], r["dim"], r["texts"], *(f"{r[c]:.1f}" for c in ("wrong", "sibling", "stranger")))
        for r in frame.to_dicts()
    ]
    head = ("method", coarse, "dims", "texts", "wrong, %", f"right {coarse}, %", f"other {coarse}, %")
    body = tag(
        "div", tag("p", words), key, grid(kinds), legend(report_data.trained_looks), grid(figures),
        numbers(
            _pairs_table(report_data), table(f"Wrong answers on {fine} by {coarse}", head, rows, text=range(2)),
            summary="The numbers as tables, and the most frequent confusions",
        ),
    )  # fmt: skip
    return Section("confusion", title, body, [*kinds, *figures])


def _totals(frame: pl.DataFrame) -> pl.DataFrame:
    """Over all parents: shares of all texts."""
    weighted = [
        (pl.col(name) * pl.col("texts")).sum() / pl.col("texts").sum() for name in ("wrong", "sibling", "stranger")
    ]
    return frame.group_by("method", "dim", maintain_order=True).agg(weighted)


def _matrix(report_data: ReportData, entries: Sequence[Entry], parents: Sequence[str], totals: pl.DataFrame) -> Figure:
    """The heat map of parents taken for one another, of the method with fewest errors at the shortest prefix."""
    coarse, dim = report_data.levels[0], report_data.dims[0]
    method = totals.filter(dim=dim).sort("stranger", maintain_order=True)["method"][0]
    frame = parent_confusions(entries, report_data.dataset.hierarchy, method, dim)
    top = frame.sort("share", descending=True, maintain_order=True).row(0, named=True) if len(frame) else None
    frame = frame.filter(pl.col("truth").is_in(parents), pl.col("answer").is_in(parents))
    caption = f"{method} at {dim} dims: the wrong {coarse} that texts are given"
    most = "" if top is None else f" Most: {top['truth']} taken for {top['answer']}, {top['share']:.1f} % of its texts."
    return Figure("matrix", caption, f"{caption}.{most}", charts.confusion_chart(frame, parents, coarse))


def _pairs_table(report_data: ReportData) -> Markup:
    """The ten most frequent confusions of each method at its shortest prefix."""
    rows = []
    for name, group in by_method(report_data.scores[GALLERY]).items():
        counts: Counter[tuple[str, str, int]] = Counter()
        for one in (one for score in group for one in (score.errors or ())[0].worst):
            counts[one.truth, one.predicted, one.distance] += one.count
        for (truth, answer, distance), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:10]:
            kind = f"same {report_data.levels[-1 - distance]}" if distance < len(report_data.levels) else "nothing"
            rows.append((name, truth, answer, kind, f"{count / len(group):.1f}"))
    caption = f"Most frequent confusions on {report_data.levels[-1]} at {report_data.dims[0]} dims, texts per seed"
    return table(caption, ("method", "truth", "answer", "they share", "texts"), rows, text=range(4))

"""Two-stage search: what a filter by a short prefix keeps, against its cost, as `pipeline retrieve` measured it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline.report import charts
from pipeline.report.collect import ReportData
from pipeline.report.html import Figure, Section, axis_note, bullets, grid, legend, not_yet, numbers, table, tag
from pipeline.report.looks import reach_of, styles

if TYPE_CHECKING:
    from pipeline.retrieval.records import RetrievalResults

TITLE = "What it costs to search"


def recall(report_data: ReportData) -> Section:
    """Recall and label precision against candidates and operations, of the largest corpus searched."""
    if not report_data.retrieval:
        return not_yet("recall", TITLE, "Retrieval was not measured yet", "retrieve", report_data.options)
    frame, finest = retrieval_frame(report_data.retrieval), report_data.levels[-1]
    known = report_data.looks
    looks = {**styles([*known, *frame["method"].unique(maintain_order=True)]), **known}
    shown = {name: look for name, look in looks.items() if name in frame["method"].to_list()}
    filters = sorted(frame["dims"].unique().to_list())
    plans = (
        ("candidates", "recall", f"Recall at 10 against candidates kept by {filters[0]} dims", filters[:1]),
        ("flops", "recall", "Recall at 10 against operations", filters),
        ("flops", "precision", f"{finest}: share of the ten found with the query's label, against operations", filters),
    )
    figures = []
    for i, (cost, value, caption, dims) in enumerate(plans):
        here = frame.filter(pl.col("dims").is_in(dims)).drop_nulls(value)
        if here.is_empty():
            continue
        reach = reach_of(here[value])
        spec, alt = charts.recall_chart(here, shown, cost, value, reach), f"{caption}. {_best(here, value)}"
        figures.append(Figure(f"recall-{i}", f"{caption}. {axis_note(reach)}", alt, spec))
    body = tag(
        "div", tag("p", _words(report_data, filters)), bullets(report_data.retrieval.sentences),
        legend(shown),
        grid(figures), numbers(_table(frame, finest)),
    )  # fmt: skip
    return Section("recall", TITLE, body, figures)


def retrieval_frame(found: RetrievalResults) -> pl.DataFrame:
    """One row per way to search the largest corpus; shares in percent, untrained methods with an asterisk."""
    untrained = {one.method for one in found.methods if one.untrained}
    rows = [
        {
            "method": row.method.removesuffix("*") + "*" * (row.method in untrained),
            "dims": row.filter_dim,
            "candidates": row.candidates,
            "recall": row.recall_at_10 * 100,
            "precision": row.precision_at_10[-1] * 100,
            "flops": float(row.flops_per_query),
            "latency": row.latency_ms,
            "bytes": float(row.bytes_per_document),
        }
        for row in found.of(found.corpora[-1].documents).results
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _words(report_data: ReportData, filters: Sequence[int]) -> str:
    assert report_data.retrieval is not None
    corpus = report_data.retrieval.corpora[-1]
    simulated = f", {corpus.simulated:,} of them simulated" if corpus.simulated else ""
    dash = f" Solid lines filter by {filters[0]} dims, dashed ones by more." if len(filters) > 1 else ""
    return (
        f"{corpus.documents:,} documents{simulated}. A short prefix filters, the full vector ranks again what it lets "
        "through. Recall counts the ten "
        "documents that the same method's full vector finds, so a method can agree with itself and be wrong: the third "
        f"chart counts labels.{dash}"
    )


def _best(frame: pl.DataFrame, value: str) -> str:
    """The best figure of every method, for who does not see the chart."""
    best = frame.sort(value, descending=True, maintain_order=True).unique("method", keep="first", maintain_order=True)
    return "; ".join(
        f"{row['method']} up to {row[value]:.1f} % ({row['dims']} dims, {row['candidates']:,} candidates)"
        for row in best.to_dicts()
    )


def _table(frame: pl.DataFrame, finest: str) -> Any:
    def figure(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    rows = [
        (
            row["method"], row["dims"], f"{row['candidates']:,}", figure(row["recall"], ".1f"),
            figure(row["precision"], ".1f"), figure(row["flops"], ",.0f"), figure(row["latency"], ".3g"),
            figure(row["bytes"], ",.0f"),
        )
        for row in frame.to_dicts()
    ]  # fmt: skip
    head = ("method", "filter dims", "candidates", "recall at 10, %", f"{finest} at 10, %", "FLOPs per query",
            "ms per query", "bytes per document")  # fmt: skip
    return table("Two-stage search", head, rows)

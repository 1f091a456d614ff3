"""What `retrieve` shows in the terminal, made of the records that `--json` prints.

Below the tables stands what they mean, in plain sentences: labels first, and where agreement says otherwise. Methods
are compared over the same queries (`records.SearchComparison`), never by whether their intervals overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from pipeline.evaluation.recommend import joined
from pipeline.evaluation.statistics import sign
from pipeline.retrieval.engines import Engine
from pipeline.retrieval.records import (
    CandidatesNeeded,
    CorpusSize,
    ParetoPoint,
    RetrievalResults,
    SearchComparison,
    SearchResult,
)
from pipeline.retrieval.timing import ROUNDS

COSTS = {"flops_per_query": "F", "bytes_per_document": "B", "latency_ms": "ms"}


@dataclass(frozen=True)
class Wanted:
    """What was asked for by name, None if nothing was: this is shown, and of the rest what answers the question."""

    filters: Sequence[int] | None = None
    candidates: Sequence[int] | None = None
    engines: bool = False


def brief_tables(found: RetrievalResults, wanted: Wanted) -> Iterator[Table | str]:
    """Two stages, storage and what it means in words; the shortest filter and few candidates if not told otherwise."""
    for corpus in found.corpora:
        here = found.of(corpus.documents)
        filters = wanted.filters or (min(row.filter_dim for row in here.results),)
        counts = sorted({row.candidates for row in here.results if row.candidates})
        chosen = counts if wanted.candidates else {counts[0], counts[len(counts) // 2], counts[-1]}
        full = {row.method: row.filter_dim for row in sorted(here.single_stage, key=lambda row: row.filter_dim)}
        single, smaller = (
            [row for row in rows if row.filter_dim in filters or row.filter_dim == full[row.method]]
            for rows in (here.single_stage, here.storage)
        )
        yield _title(found, corpus)
        two = [row for row in here.results if row.filter_dim in filters and row.candidates in chosen]
        yield _results(single, two, found, corpus, brief=True)
        yield _storage(smaller, found.levels)
        if wanted.engines:
            yield _engines(here.engines, found.levels[-1])
    yield from found.sentences


def retrieval_tables(found: RetrievalResults) -> Iterator[Table | str]:
    """Every table of an experiment, corpora outermost, then what it means in words."""
    for corpus in found.corpora:
        here = found.of(corpus.documents)
        yield _title(found, corpus)
        yield _results(here.single_stage, here.results, found, corpus, brief=False)
        yield _storage(here.storage, found.levels)
        if here.engines:
            yield _engines(here.engines, found.levels[-1])
        if here.pareto:
            yield _pareto(here.pareto, found.levels)
        yield from needed_lines(here.candidates_needed)
    yield from found.sentences


def _title(found: RetrievalResults, corpus: CorpusSize) -> str:
    real = f"{corpus.real:,} texts of the training split"
    made = f" and {corpus.simulated:,} simulated copies of them" if corpus.simulated else ""
    return f"\n{corpus.documents:,} documents: {real}{made}; {found.queries:,} queries of the test split"


def _compact(title: str, columns: Sequence[str], left: Sequence[str], levels: Sequence[str] = ()) -> Table:
    """A table whose columns stand close, so that three levels fit 80 columns; names are folded, numbers never."""
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for column in columns:
        named = column in (*left, *levels)
        table.add_column(column, justify="left" if column in left else "right", no_wrap=not named, overflow="fold")
    return table


def _results(
    single: Sequence[SearchResult], double: Sequence[SearchResult], found: RetrievalResults, corpus: CorpusSize,
    *, brief: bool,
) -> Table:  # fmt: skip
    """Labels first, then recall, then what it costs: the spread of the latency if brief, else what the filter keeps."""
    columns = ("method", "dims", "cand.", *found.levels, "recall", *(() if brief else ("kept",)), "ms")
    simulated = ", simulated corpus" if corpus.simulated else ""
    title = f"label precision@10 in % | recall@10 of the full vector's ten{simulated}"
    table = _compact(title, columns, ("method",), found.levels)
    for method in dict.fromkeys(row.method for row in single):
        rows = [row for row in (*single, *double) if row.method == method]
        rows.sort(key=lambda row: (row.filter_dim, row.candidates or 0))
        for i, row in enumerate(rows):
            cells = [f"{value * 100:.1f}" for value in row.precision_at_10]
            kept = "/".join("-" if share is None else f"{share * 100:.0f}" for share in row.level_recall or ())
            candidates = row.candidates
            table.add_row(
                method if i == 0 else "", str(row.filter_dim), "" if candidates is None else f"{candidates:,}",
                *cells, _share(row.recall_at_10, row.recall_ci95), *([_ms(row, spread=True)] if brief else
                [kept, _ms(row, spread=False)]),
            )  # fmt: skip
        table.add_section()
    timed = [row.latency_queries for row in (*single, *double) if row.latency_queries]
    table.caption = "cand.: candidates re-ranked by the full vector; none: one stage.\n± 95 % over seeds and texts."
    if timed:
        asked = f"{min(timed)}" if min(timed) == max(timed) else f"{min(timed)} to {max(timed)}"
        spread = " (of the fastest and slowest round)" if brief else ""
        table.caption += f" ms: a query alone, median of {asked} in {ROUNDS}\nrounds{spread}"
    if not brief:
        table.caption += f"\nkept: % of the query's {', '.join(found.levels)} that pass the filter"
    return table


def _share(value: float, interval: Sequence[float]) -> str:
    half = max(interval[1] - value, value - interval[0])  # at 100 % there is no room above
    return f"{value * 100:.1f}±{half * 100:.1f}"


def _ms(row: SearchResult, *, spread: bool) -> str:
    if row.latency_ms is None:
        return ""
    around = f" ({row.latency_low_ms:.2f}-{row.latency_high_ms:.2f})" if spread else ""
    return f"{row.latency_ms:.2f}{around}"


def _storage(rows: Sequence[SearchResult], levels: Sequence[str]) -> Table:
    kinds = list(dict.fromkeys(row.storage for row in rows))
    title = f"storage, one stage: {levels[-1]} precision@10 / recall@10 in %, bytes per document"
    table = _compact(title, ("method", "dims", *kinds), ("method",))
    found = {(row.method, row.filter_dim, row.storage): row for row in rows}
    for method in dict.fromkeys(row.method for row in rows):
        for i, dim in enumerate(sorted({row.filter_dim for row in rows if row.method == method})):
            of = [found[method, dim, kind] for kind in kinds]
            quality = [f"{row.precision_at_10[-1] * 100:.1f} / {row.recall_at_10 * 100:.1f}" for row in of]
            cells = (f"{good} {row.bytes_per_document:,}" for good, row in zip(quality, of, strict=True))
            table.add_row(method if i == 0 else "", str(dim), *cells)
    return table


def _engines(rows: Sequence[Engine], level: str) -> Table:
    columns = ("engine", "dims", "cand.", "ms", "queries/s", "found", "recall", level, "build", "MB")
    table = _compact("two stages, by the engine of the filter", columns, ("engine",), (level,))
    for row in rows:
        table.add_row(
            row.engine, str(row.filter_dim), f"{row.candidates:,}", f"{row.latency_ms:.2f}",
            f"{row.queries_per_second:,.0f}", f"{row.found:.0%}",
            f"{row.recall_at_10:.1%}", f"{row.precision_at_10[-1]:.1%}", f"{row.build_seconds:.1f} s",
            f"{row.index_bytes / 1e6:,.1f}",
        )  # fmt: skip
    table.caption = (
        "ms: a query alone; queries/s: 256 at once; found: of the exact candidates;\n"
        f"recall@10 and {level} precision@10 after re-ranking, on one run"
    )
    return table


def _pareto(points: Sequence[ParetoPoint], levels: Sequence[str]) -> Table:
    """The points that no other beats on the finest labels, of all methods."""
    columns = ("method", "dims", "cand.", levels[-1], "recall", "MFLOPs", "bytes", "ms", "best at")
    title = f"{levels[-1]} precision@10 that no other search beats at its cost"
    table = _compact(title, columns, ("method", "best at"), levels[-1:])
    best = [point for point in points if point.precision_front]
    for point in sorted(best, key=lambda p: p.flops_per_query):
        candidates = point.candidates
        table.add_row(
            point.method, str(point.filter_dim), "" if candidates is None else f"{candidates:,}",
            f"{point.precision_at_10[-1] * 100:.1f}", f"{point.recall_at_10 * 100:.1f}",
            f"{point.flops_per_query / 1e6:,.1f}", f"{point.bytes_per_document:,}",
            f"{point.latency_ms:.2f}", " ".join(COSTS[cost] for cost in point.precision_front),
        )  # fmt: skip
    table.caption = "best at: F FLOPs, B bytes per document, ms latency of a query alone"
    return table


def needed_lines(rows: Sequence[CandidatesNeeded]) -> Iterator[str]:
    """The candidates that each method needs for the same recall, one line per filter and method."""
    for dim in dict.fromkeys(row.filter_dim for row in rows):
        yield f"candidates needed by a filter of {dim} dims:"
        for method in dict.fromkeys(row.method for row in rows):
            own = [row for row in rows if (row.filter_dim, row.method) == (dim, method)]
            counts = (f"{row.recall_at_10:.0%}: {_count(row)}" for row in own)
            yield f"  {method:<12} recall " + ", ".join(counts)


def _count(row: CandidatesNeeded) -> str:
    return f"over {row.at_most:,}" if row.candidates is None else f"{row.candidates:,.0f}"


def sentences(found: RetrievalResults) -> list[str]:
    """Sentences on the largest corpus: who is ahead at the cheapest search, and how recall moves with the corpus."""
    here = found.of(found.corpora[-1].documents)
    if not here.results:
        return []
    cheapest = min((row.filter_dim, row.candidates or 0) for row in here.results)
    rows = [row for row in here.results if (row.filter_dim, row.candidates) == cheapest]
    best = max(rows, key=lambda row: row.precision_at_10[-1])
    full = max((row for row in here.single_stage if row.method == best.method), key=lambda row: row.filter_dim)
    said = [_ahead(rows, here)] if len(rows) > 1 else []
    return [*said, *_saved(best, full, found.levels[-1]), *_moving(found)]


def _ahead(rows: list[SearchResult], found: RetrievalResults) -> str:
    """Who is ahead by labels, and whether agreement with the own full vector says the same."""
    level, corpus = found.levels[-1], found.corpora[-1]
    by_labels = _first(rows, found, lambda row: row.precision_at_10[-1], lambda row: row.precision_ci95)
    by_recall = _first(rows, found, lambda row: row.recall_at_10, lambda row: row.recall_ci95)
    precisions = {row.method: f"{row.method} {row.precision_at_10[-1]:.1%}" for row in rows}
    recalls = {row.method: f"{row.method} {row.recall_at_10:.1%}" for row in rows}
    simulated = f" ({corpus.simulated:,} simulated)" if corpus.simulated else ""
    where = f"{corpus.documents:,} documents{simulated}, {rows[0].candidates:,} candidates by {rows[0].filter_dim} dims"
    behind = max((row for row in rows if row.method != by_labels[0]), key=lambda row: row.precision_at_10[-1])
    precision = ", ".join(precisions[name] for name in by_labels)
    precision += "" if by_labels[1:] else f", next {precisions[behind.method]}"
    said = f"{where}: by labels {_leading(by_labels)} ({level} precision@10 {precision})"
    recall = ", ".join(recalls[name] for name in by_recall)
    if by_recall == by_labels:
        return f"{said}, and by agreement with its own full vector too (recall@10 {recall})."
    if set(by_recall) & set(by_labels):
        return f"{said}, by agreement with its own full vector {_leading(by_recall)} (recall@10 {recall})."
    labels = ", ".join(precisions[name] for name in by_recall)
    return (
        f"{said}; by agreement with its own full vector {_leading(by_recall)} (recall@10 {recall}; by labels {labels})"
        ". Where the two disagree, trust the labels: an embedding that says little agrees with itself easily."
    )


def _first(
    rows: list[SearchResult],
    found: RetrievalResults,
    value: Callable[[SearchResult], float],
    interval: Callable[[SearchComparison], tuple[float, float]],
) -> list[str]:
    """The best, and those that do not differ significantly from it, highest first."""
    ranked = sorted(rows, key=lambda row: -value(row))
    best = ranked[0].method
    behind = {
        row.b if row.a == best else row.a
        for row in found.comparisons
        if best in (row.a, row.b) and sign(interval(row)) == (1 if row.a == best else -1)
    }
    return [row.method for row in ranked if row.method not in behind]


def _leading(names: list[str]) -> str:
    return f"{names[0]} is ahead" if len(names) == 1 else f"there is no significant difference between {joined(names)}"


def _saved(row: SearchResult, full: SearchResult, level: str) -> Iterator[str]:
    """What the second stage costs and saves, for one method: in operations, and in time, which need not agree."""
    share = row.flops_per_query / full.flops_per_query
    lost = (full.precision_at_10[-1] - row.precision_at_10[-1]) * 100
    said = (
        f"With {row.method}, {row.filter_dim} dims and {row.candidates:,} candidates take {share:.0%} of the FLOPs of "
        f"a search by {full.filter_dim} dims and lose {lost:.1f} points of {level} precision@10"
    )
    if row.latency_ms is None or full.latency_ms is None:
        yield f"{said}."
        return
    slower = "; two stages are slower here" if row.latency_ms > full.latency_ms else ""
    yield f"{said}; a query takes {row.latency_ms:.2f} ms instead of {full.latency_ms:.2f} ms{slower}."


def _moving(found: RetrievalResults) -> Iterator[str]:
    """How recall at the fewest candidates moves with the corpus."""
    if len(found.corpora) < 2:
        return
    for method in dict.fromkeys(row.method for row in found.results):
        own = [row for row in found.results if row.method == method]
        dim = min(row.filter_dim for row in own)
        steps = []
        for corpus in found.corpora:
            here = [row for row in own if (row.documents, row.filter_dim) == (corpus.documents, dim)]
            first = min(here, key=lambda row: row.candidates or 0)
            simulated = " (simulated)" if corpus.simulated else ""
            steps.append(f"{corpus.documents:,}{simulated}: {first.recall_at_10:.1%} with {first.candidates:,}")
        yield f"{method}, recall@10 by {dim} dims as the corpus grows: {', '.join(steps)}."

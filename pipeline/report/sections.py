"""The page's sections below the summary: each says in words what to look at, draws it, and gives the numbers."""

from __future__ import annotations

import polars as pl
from markupsafe import Markup

from pipeline.evaluation.gallery_size import crossing, size_effects
from pipeline.report import charts
from pipeline.report.collect import ReportData
from pipeline.report.confusion import confusion
from pipeline.report.frames import gallery_frame, steerability_frame
from pipeline.report.html import Figure, Section, axis_note, bullets, grid, legend, not_yet, numbers, table, tag
from pipeline.report.looks import reach_of
from pipeline.report.recall import recall
from pipeline.report.summary import GALLERY, accuracy_table, ends, figure


def spoken(report_data: ReportData, protocol: str) -> str:
    """A protocol in words, with what it queried here."""
    if protocol == GALLERY:
        return (
            "Gallery (the indexed set that a query is compared with): the training split, searched for each test text"
        )
    of = report_data.entries[protocol][0].predictions
    samples = f", {of.samples} samples" if of.samples > 1 else ""
    return f"Leave-one-out: {of.queries:,} test texts searched among themselves{samples}"


def sections(report_data: ReportData) -> list[Section]:
    """Every section about the figures, in reading order."""
    makers = (accuracy, galleries, steerability, confusion, recall, training)
    return [section for section in (make(report_data) for make in makers) if section is not None]


def accuracy(report_data: ReportData) -> Section:
    """What each prefix knows of each level, under both protocols, untrained baselines beside."""
    every, body = [], []
    for protocol in report_data.entries:
        figures, frame, said = [], report_data.accuracies.filter(protocol=protocol), spoken(report_data, protocol)
        for i, level in enumerate(report_data.levels):
            here = frame.filter(level=level)
            reach = reach_of(here["low"], here["high"])
            alt = f"{protocol}: accuracy on {level} by dimensions kept. {ends(here)}"
            spec = charts.accuracy_chart(here, report_data.looks, reach)
            figures.append(Figure(f"accuracy-{protocol}-{i}", f"{level}. {axis_note(reach)}", alt, spec))
        every += figures
        rows = accuracy_table(f"{said}: accuracy in % [95 %]", frame, report_data.levels, "n")
        body += [tag("h3", said), grid(figures), numbers(rows)]
    words = (
        "Prefix j is the truncated vector, normalised. Lines are means over seeds, upright bars 95 % intervals; points "
        "are set apart sideways so that no bar hides another. * is untrained: the backbone's features cut short, and "
        "their principal components. Every chart has its own upright scale, said above it."
    )
    content = tag("div", tag("p", words), legend(report_data.looks), *body)
    return Section("accuracy", "How small: accuracy against dims", content, every)


def galleries(report_data: ReportData) -> Section:
    """How accuracy at the shortest prefix depends on the gallery's size and origin."""
    title = "How many indexed texts: accuracy against the gallery's size"
    if not report_data.cells:
        what = "The galleries were not measured for these runs"
        return not_yet("galleries", title, what, "report", report_data.options)
    frame = gallery_frame(report_data.cells, report_data.levels)
    dim = report_data.dims[0]
    figures = []
    for i in dict.fromkeys((0, len(report_data.levels) - 1)):
        where = f"{report_data.levels[i]} at {dim} dims"
        here = frame.filter(level=report_data.levels[i], dim=dim)
        reach = reach_of(here["low"], here["high"])
        alt = f"Accuracy on {where} by size of the gallery. {_sizes(here)}"
        spec = charts.gallery_chart(here, report_data.looks, reach)
        figures.append(Figure(f"galleries-{i}", f"{where}. {axis_note(reach)}", alt, spec))
    words = (
        "The same test texts are asked in every gallery; drawn five times. Solid: rows that the heads were trained on. "
        "Dashed: held-out rows. Where the two lie on one another, it is the size that matters, not the training."
    )
    own = f"own {report_data.levels[-1]}, % of neighbours"
    head = ("method", "rows from", "gallery", "dims", *report_data.levels, own)
    rows = [
        (name, origin, f"{size:,}", width, *(figure(r) for r in part.to_dicts()), f"{part['own'][-1]:.0f}")
        for (name, origin, size, width), part in frame.group_by("method", "rows", "gallery", "dim", maintain_order=True)
    ]
    body = tag(
        "div", tag("p", words), *_crossings(report_data), legend(report_data.trained_looks),
        grid(figures), numbers(table("Accuracy in % [95 %] by gallery", head, rows, text=range(2))),
    )  # fmt: skip
    return Section("galleries", title, body, figures)


def steerability(report_data: ReportData) -> Section | None:
    """S and its two terms; nothing where there is one level or one prefix."""
    trained = {
        name: [entry for entry in found if entry.method in report_data.methods]
        for name, found in report_data.entries.items()
    }
    frame = steerability_frame(trained)
    if frame.is_empty():
        return None
    reach = (min(0.0, float(frame["low"].min())) - 0.5, max(0.0, float(frame["high"].max())) + 0.5)  # type: ignore[arg-type]
    coarse, fine, short, full = report_data.levels[0], report_data.levels[-1], report_data.dims[0], report_data.dims[-1]
    captions = {
        "S": "S, the sum of the two terms",
        "coarse gain": f"Coarse gain: {coarse} at {short} dims minus at {full}",
        "fine gain": f"Fine gain: {fine} at {full} dims minus at {short}",
    }
    figures = []
    for i, (term, caption) in enumerate(captions.items()):
        here = frame.filter(term=term)
        said = "; ".join(f"{r['method']} ({r['protocol']}) {r['value']:+.1f}" for r in here.to_dicts())
        spec = charts.steerability_chart(here, report_data.looks, reach)
        figures.append(Figure(f"steerability-{i}", caption, f"{caption}, in points. {said}.", spec))
    words = (
        "A method can have a high S by losing fine accuracy at short prefixes, so S is never shown without its terms. "
        "Filled points: gallery. Hollow points: leave-one-out, the published protocol."
    )
    rows = [
        (name, protocol, *(f"{r['value']:+.1f} [{r['low']:+.1f}, {r['high']:+.1f}]" for r in part.to_dicts()))
        for (name, protocol), part in frame.group_by("method", "protocol", maintain_order=True)
    ]
    data = table("Steerability in points [95 %]", ("method", "protocol", *captions), rows, text=range(2))
    body = tag("div", tag("p", words), legend(report_data.trained_looks), grid(figures), numbers(data))
    return Section("steerability", "How steerable: coarse and fine gain", body, figures)


def training(report_data: ReportData) -> Section | None:
    """Loss and validation accuracies by epoch; nothing where no run has a history."""
    frame = report_data.histories
    if frame.is_empty():
        return None
    figures = []
    shown = [*dict.fromkeys((report_data.levels[0], report_data.levels[-1])), "loss"]
    for i, quantity in enumerate(name for name in shown if name in frame["quantity"]):
        here = frame.filter(quantity=quantity)
        reach = None if quantity == "loss" else reach_of(here["value"])
        title = "mean loss of the epoch" if reach is None else "accuracy, % of validation texts"
        caption = (
            "Training loss. Methods minimise different sums: compare its course, not its height."
            if reach is None
            else f"{quantity}, full vector, leave-one-out in the validation texts. {axis_note(reach)}"
        )
        spec = charts.training_chart(here, report_data.looks, title, reach)
        kept = here.filter(pl.col("best")).group_by("method", maintain_order=True).agg(pl.col("value").mean())
        means = ", ".join(f"{name} {value:.3g}" for name, value in kept.iter_rows())
        alt = f"{quantity} by epoch. At the epochs kept, mean over seeds: {means}."
        figures.append(Figure(f"training-{i}", caption, alt, spec))
    words = " ".join(["One line per seed; the point marks the epoch that was kept.", *report_data.layers])
    head = ("method", "seed", "quantity", "epoch", "value")
    rows = [
        (*(r[name] for name in head[:-1]), f"{r['value']:.{3 if r['quantity'] == 'loss' else 1}f}")
        for r in frame.to_dicts()
    ]
    data = numbers(table("Training by epoch", head, rows, text=range(3)))
    drawn = {name: report_data.looks[name] for name in frame["method"].unique(maintain_order=True)}
    body = tag("div", tag("p", words), legend(drawn), grid(figures), data)
    return Section("training", "How it was trained", body, figures)


def _sizes(frame: pl.DataFrame) -> str:
    parts = []
    for (name, origin), part in frame.group_by("method", "rows", maintain_order=True):
        first, last = part.row(0, named=True), part.row(-1, named=True)
        ends = (f"{row['value']:.1f} % at {row['gallery']:,}" for row in (first, last))
        parts.append(f"{name}, {origin} rows: {', '.join(ends)}")
    return "; ".join(parts) + "."


def _crossings(report_data: ReportData) -> list[Markup]:
    """Who leads at which sizes: v5 and mrl if both are there, else the first two methods."""
    pair = ("v5", "mrl") if {"v5", "mrl"} <= set(report_data.methods) else report_data.methods[:2]
    seeds = [{entry.seed for entry in report_data.entries[GALLERY] if entry.method == name} for name in pair]
    if len(pair) < 2 or not set.intersection(*seeds):
        return []
    a, b = pair
    sentences = crossing(size_effects(report_data.cells, a, b), a, b, report_data.levels)
    if len(sentences) == 1:
        return [tag("p", sentences[0])]
    note = "Leads are with 95 % confidence over seeds, each size by itself."
    return [bullets(sentences[:-1]), tag("p", note, class_="note")]

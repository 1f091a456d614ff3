"""One run for a person: what determined it, how its training went, what it scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.table import Table
from rich.text import Text

from pipeline.runs import Run
from pipeline.tables import score_table, steerability_lines

Record = Mapping[str, Any]


def run_tables(run: Run, history: Sequence[Record], scores: Sequence[Record]) -> Iterator[Table | str]:
    """Facts, epochs, and the scores that are kept, protocol by protocol."""
    yield _facts(run)
    if history:
        yield _epochs(run, history)
    levels = run.record["levels"]
    for _, group in groupby(scores, key=lambda score: (score["protocol"], score["k"])):
        kept = list(group)
        yield score_table(kept, levels)
        yield from steerability_lines(kept)
    if not scores:
        where = f"--dataset {run.record['dataset']} --backbone {run.record['backbone']}"
        yield f"not scored yet: pipeline score {run.id} {where}"


def _facts(run: Run) -> Table:
    record = run.record
    sizes = zip(record["levels"], record["classes"], strict=True)
    spelled = {
        "run": run.id,
        "dataset": record["dataset"],
        "levels": " > ".join(f"{len(classes):,} {level}" for level, classes in sizes),
        "backbone": record["backbone"],
        "layer": record["layer"],
        "features": record["fingerprint"],
        "prompt": record["prompt"] or "none",
        "method": record["method"],
        "head": f"{record['head']}, {record['parameters']:,} parameters",
        "prefixes": f"{', '.join(map(str, record['dims']))} dims",
        "seed": record["seed"],
        "settings": ", ".join(f"{name} {value}" for name, value in record["hyperparameters"].items()),
        "trained in": f"{record['seconds']:.1f} s",
        "folder": run.folder,
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in spelled.items():
        table.add_row(name, Text(str(value)))
    return table


def _epochs(run: Run, history: Sequence[Record]) -> Table:
    """Loss, learning rate and validation accuracies by epoch, the kept one marked."""
    levels = run.record["levels"]
    table = Table(
        title="training; accuracy of validation texts in %, full vector; * the epoch kept", title_justify="left"
    )
    for column in ("epoch", "loss", "learning rate", *levels):
        table.add_column(Text(column), justify="right")
    for epoch in history:
        kept = "*" if epoch["epoch"] == run.record["best_epoch"] else ""
        accuracies = (epoch.get(f"accuracy_{level}") for level in range(len(levels)))
        table.add_row(
            f"{kept}{epoch['epoch']}", f"{epoch['loss']:.3f}", f"{epoch['lr']:.2g}",
            *("-" if value is None else f"{value * 100:.1f}" for value in accuracies),
        )  # fmt: skip
    return table

"""`pipeline runs`: the trained heads on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from pipeline.terminal.command import Session, command
from pipeline.terminal.console import duration

if TYPE_CHECKING:
    from pipeline.evaluation.scores import Score
    from pipeline.workspace.runs import Run


@command("list", example="pipeline runs list")
def list_runs(session: Session) -> dict[str, Any]:
    """Every trained head, by dataset, backbone, method and seed; what cannot be read is named."""
    from pipeline.workspace.run_names import names
    from pipeline.workspace.runs import scan

    runs, unreadable = scan(session.artifacts.runs)
    table = Table("run", "dataset", "backbone", "method", "seed", "epoch")
    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].no_wrap = True
    for run, name in zip(runs, names([run.record for run in runs]), strict=True):
        r = run.record
        best = f"{r['best_epoch']}/{r['hyperparameters'].get('epochs', '-')}"
        table.add_row(run.id, r["dataset"], r["backbone"], name, str(r["seed"]), best)
    session.console.show(table if runs else f"no runs in {session.artifacts.runs} yet")
    for place in unreadable:
        session.console.say(f"{place.error} ({place.error.remedy})")
    return {
        "runs": [run.summary() for run in runs],
        "damaged": [{"path": str(place.path), "problem": str(place.error)} for place in unreadable],
    }


@command("show", example="pipeline runs show 3f2a")
@click.argument("run_id", metavar="RUN")
def show_run(session: Session, run_id: str) -> dict[str, Any]:
    """One run: what determined it, its training history, its scores."""
    from pipeline.evaluation.score import stored_scores
    from pipeline.workspace.runs import runs_by_id

    (run,) = runs_by_id(session.artifacts, [run_id])
    found = run.history()
    history = [] if found is None else found.to_dicts()
    hidden = ("classes", "features", "format", "digest", "files")
    facts = {name: value for name, value in run.record.items() if name not in hidden}
    scores = stored_scores(run.folder)
    for shown in run_tables(run, history, scores):
        session.console.show(shown)
    return {"run": run.summary(), "record": facts, "history": history, "scores": [score.to_json() for score in scores]}


def run_tables(run: Run, history: Sequence[Mapping[str, Any]], scores: Sequence[Score]) -> Iterator[Table | str]:
    """Facts, epochs, and the scores that are kept, protocol by protocol."""
    from pipeline.terminal.tables import score_table, steerability_lines

    yield _facts(run)
    if history and not run.closed_form:  # which has no epoch
        yield _epochs(run, history)
    levels = run.record["levels"]
    for _, group in groupby(scores, key=lambda score: (score.protocol, score.k)):
        kept = list(group)
        yield score_table(kept, levels)
        yield from steerability_lines(kept)
    if not scores:
        where = f"--dataset {run.record['dataset']} --backbone {run.store}"
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
        "trained in": duration(record["seconds"]),
        "folder": run.folder,
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in spelled.items():
        table.add_row(name, Text(str(value)))
    return table


def _epochs(run: Run, history: Sequence[Mapping[str, Any]]) -> Table:
    """Loss, learning rate and validation accuracies by epoch, the kept one marked."""
    from pipeline.terminal.tables import table_of

    levels = run.record["levels"]
    title = "training; accuracy of validation texts in %, full vector; * the epoch kept"
    table = table_of(title, ("epoch", "loss", "learning rate", *levels), left=0)
    for epoch in history:
        kept = "*" if epoch["epoch"] == run.record["best_epoch"] else ""
        accuracies = (epoch.get(f"accuracy_{level}") for level in range(len(levels)))
        table.add_row(
            f"{kept}{epoch['epoch']}", f"{epoch['loss']:.3f}", f"{epoch['lr']:.2g}",
            *("-" if value is None else f"{value * 100:.1f}" for value in accuracies),
        )  # fmt: skip
    return table


COMMAND = click.Group("runs", commands=[list_runs, show_run], help="Look at trained heads.")

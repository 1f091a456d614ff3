"""`pipeline runs`: the trained heads on disk."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from pipeline.terminal.command import Session, command


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
    from pipeline.terminal.tables import run_tables
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


COMMAND = click.Group("runs", commands=[list_runs, show_run], help="Look at trained heads.")

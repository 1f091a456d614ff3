"""`pipeline search`: the nearest texts at each prefix, in one table."""

from __future__ import annotations

from typing import Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import run_options


@command("search", example='pipeline search "how do I move money to savings" --method joint --top 5')
@click.argument("text")
@run_options
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Texts at each prefix.")
@click.option("--dim", type=int, help="Only at this prefix (default: at each).")
@click.option("--dataset", help="Dataset of the run (default: what `embed` used last).")
@click.option("--backbone", help="Backbone of the run; with --run, where its checkpoint lies now.")
def COMMAND(session: Session, text: str, top: int, dim: int | None, **options: Any) -> dict[str, Any]:
    """Show the training texts nearest to TEXT at every prefix of a head, with their labels.

    One table: a row per text that any prefix finds, with its rank at each prefix.
    """
    from pipeline.errors import PipelineError
    from pipeline.export.vectors import check_dims
    from pipeline.retrieval.semantic_zoom import nearest, zoom_table
    from pipeline.stages.encode import features_of_texts
    from pipeline.stages.run_asked import run_asked
    from pipeline.workspace.features import labelled_features

    if not text.strip():
        raise PipelineError("TEXT is empty", 'give a text in quotes: pipeline search "how warm is it in lima"')
    run = run_asked(session, options)
    record = run.record
    check_dims(run, () if dim is None else (dim,))
    features = labelled_features(session.artifacts, dataset=record["dataset"], backbone=run.store, changed=True)
    if features.dataset.id != record["dataset"]:
        changed = f"texts or labels have changed since this run was trained: what is found is of {features.dataset.id}"
        session.console.say(changed)
    backbone = options["backbone"] if options["run_id"] else None
    with session.console.progress("searching") as bar:
        query, _ = features_of_texts(session.artifacts, run, [text], backbone, lambda p: bar.update(0, None, p.stage))
        found = tuple(zoom for zoom in nearest(run, features, query, top) if dim in (None, zoom.dim))
    levels = features.dataset.levels
    for shown in zoom_table(text, found, levels, session.console.width):
        session.console.show(shown)
    return {
        "query": text,
        "run": run.id,
        "method": run.method,
        "seed": run.seed,
        "dataset": record["dataset"],
        "levels": list(levels),
        "prefixes": [zoom.to_dict(levels) for zoom in found],
    }

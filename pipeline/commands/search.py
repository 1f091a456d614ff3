"""`pipeline search`: the nearest texts at each prefix, in one table."""

from __future__ import annotations

from typing import Any

import click

from pipeline.terminal.command import Session, command


@command("search", example='pipeline search "how do I move money to savings" --method joint --top 5')
@click.argument("text")
@click.option("--method", help="Method of the run (default: the one that the kept scores advise).")
@click.option("--seed", type=int, help="Seed of the run (default: the lowest there is).")
@click.option("--run", "run_id", help="The run itself, instead of method and seed.")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Texts at each prefix.")
@click.option("--dataset", help="Dataset of the run (default: what `embed` used last).")
@click.option("--backbone", help="Backbone of the run; with --run, where its checkpoint lies now.")
def COMMAND(session: Session, text: str, top: int, **options: Any) -> dict[str, Any]:
    """Show the training texts nearest to TEXT at every prefix of a head, with their labels.

    One table: a row per text that any prefix finds, with its rank at each prefix.
    """
    from pipeline.errors import PipelineError
    from pipeline.evaluation.advised_run import advised_run
    from pipeline.retrieval.semantic_zoom import nearest, zoom_table
    from pipeline.stages.encode import features_of_texts
    from pipeline.workspace.features import labelled_features
    from pipeline.workspace.runs import runs_by_id
    from pipeline.workspace.select_run import chosen_line, runs_asked

    if not text.strip():
        raise PipelineError("TEXT is empty", 'give a text in quotes: pipeline search "how warm is it in lima"')
    if options["run_id"] and (options["method"] or options["seed"] is not None):
        raise click.UsageError("--run names a run by itself: leave out --method and --seed")
    method, seed = options["method"], options["seed"]
    if options["run_id"]:
        runs = runs_by_id(session.artifacts, [options["run_id"]])
    else:
        runs = runs_asked(session.artifacts, options["dataset"], options["backbone"])
    run, why = advised_run(runs, method, seed)
    record = run.record
    session.console.say(chosen_line(run, runs, method, seed, why))
    store = f"{record['backbone']}-{record['fingerprint'][:12]}"
    features = labelled_features(session.artifacts, dataset=record["dataset"], backbone=store)
    backbone = options["backbone"] if options["run_id"] else None
    with session.console.progress("searching") as bar:
        query, _ = features_of_texts(session.artifacts, run, [text], backbone, lambda p: bar.update(0, None, p.stage))
        found = nearest(run, features, query, top)
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

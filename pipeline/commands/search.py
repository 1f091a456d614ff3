"""`pipeline search`: the nearest texts at each prefix, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline.artifacts import lasting_source
from pipeline.command import Session, command
from pipeline.options import known_methods

if TYPE_CHECKING:
    from pipeline.runs import Run


@command("search", example='pipeline search "how do I move money to savings" --method joint --top 5')
@click.argument("text")
@click.option("--method", help="Method of the run (default: joint where there is one, else the first).")
@click.option("--seed", type=int, help="Seed of the run (default: the lowest there is).")
@click.option("--run", "run_id", help="The run itself, instead of method and seed.")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Texts at each prefix.")
@click.option("--dataset", help="Dataset of the run (default: what `embed` used last).")
@click.option("--backbone", help="Backbone of the run; with --run, where its checkpoint lies now.")
def COMMAND(session: Session, text: str, top: int, **options: Any) -> dict[str, Any]:
    """Show the training texts nearest to TEXT at every prefix of a head, with their labels.

    Short prefixes are coarse, the full vector is fine: read the columns from left to right.
    """
    from pipeline.encode import features_of_texts
    from pipeline.errors import PipelineError
    from pipeline.features import labelled_features
    from pipeline.retrieval.nearest import nearest
    from pipeline.retrieval.zoom import zoom_table
    from pipeline.runs import runs_by_id

    if not text.strip():
        raise PipelineError("TEXT is empty", 'give a text in quotes: pipeline search "how warm is it in lima"')
    if options["run_id"] and (options["method"] or options["seed"] is not None):
        raise click.UsageError("--run names a run by itself: leave out --method and --seed")
    run = runs_by_id(session.artifacts, [options["run_id"]])[0] if options["run_id"] else _choose(session, options)
    record = run.record
    session.console.say(f"run {run.id}: {run.method}, {record['head']} head, seed {run.seed}, of {record['dataset']}")
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


def _choose(session: Session, options: dict[str, Any]) -> Run:
    """The run that the options leave; of several methods joint, else the first."""
    from pipeline.encode import choose_run
    from pipeline.runs import all_runs

    current = session.artifacts.current()
    dataset = options["dataset"] or current.dataset_id
    name = current.backbone.name if options["backbone"] is None else lasting_source(options["backbone"])
    runs = [
        run
        for run in all_runs(session.artifacts)
        if dataset in (run.record["dataset"], run.record["dataset"].rsplit("-", 1)[0])
        and name in (run.record["backbone"], run.record["backbone_source"])
    ]
    methods = [method for method in ("joint", *known_methods()) if any(run.method == method for run in runs)]
    return choose_run(runs, options["method"] or next(iter(methods), None), options["seed"])

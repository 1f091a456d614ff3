"""`pipeline score`: stage three on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import (
    NameList,
    NumberList,
    backbone_options,
    bits_option,
    force_option,
    known_methods,
    loading_options,
    split_loading,
)
from pipeline.workspace.artifacts import DatasetSource

if TYPE_CHECKING:
    from pipeline.evaluation.embeddings import Scorable
    from pipeline.evaluation.scores import Score


@command("score", example="pipeline score --protocol all")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option(
    "--protocol",
    type=click.Choice(["gallery", "leave-one-out", "all"]),
    default="gallery",
    show_default=True,
    help="Training split as gallery; or the published one, 500 test texts against each other; or both.",
)
@click.option("--k", type=click.IntRange(min=1), default=5, show_default=True, help="Neighbours that vote.")
@click.option(
    "--gallery-size",
    type=NumberList(int),
    help="Instead: galleries of these sizes, from training rows and from held-out rows, one cell each.",
)
@click.option("--errors", is_flag=True, help="Show where the finest level goes wrong: siblings or strangers, and who.")
@click.option(
    "--per-class",
    type=click.Path(path_type=Path),
    metavar="FILE.parquet",
    help="Write the accuracy of every class and of every parent's classes.",
)
@click.option(
    "--embeddings",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE.npy|.parquet",
    help="Score these instead of runs: one vector per row of the dataset, in order or joined by a text column.",
)
@bits_option
@click.option("--dims", type=NumberList(int), help="With --embeddings: the prefixes to score.")
@click.option("--method", "methods", type=NameList(known_methods), help="Only runs of these methods.")
@force_option
@backbone_options
@loading_options
def COMMAND(session: Session, runs: tuple[str, ...], protocol: str, **options: Any) -> dict[str, Any]:
    """Accuracy of every prefix on every level, with 95 % intervals; by default of every run of the current dataset.

    Beside them are embeddings that no one trained: the features cut short, as they are and centred, and their principal
    components. Options from --levels on go with --embeddings of a --dataset that was not embedded here.
    """
    from pipeline.evaluation.score import PROTOCOLS
    from pipeline.stages.with_progress import grid_stage, score_stage
    from pipeline.terminal.tables import grid_table, score_table, steerability_lines

    _check_usage(runs, options)
    scored, beside = _embeddings(session, options) if options["embeddings"] else _runs(session, runs, options)
    levels, scorables = scored[0].hierarchy.names, [*scored, *beside]
    facts = _check_per_class(scored, protocol, options)
    if options["gallery_size"]:
        cells, others = (grid_stage(session, of, options["gallery_size"], options["k"]) for of in (scored, beside))
        session.console.show(grid_table([*cells, *others], levels))
        return _result(cells, others)
    protocols = PROTOCOLS if protocol == "all" else (protocol,)
    scores = score_stage(session, scored, protocols, options["k"])
    baselines = score_stage(session, beside, protocols, options["k"])
    for name in protocols:
        chosen = [record for record in (*scores, *baselines) if record.protocol == name]
        session.console.show(score_table(chosen, levels))
        for line in steerability_lines([one for one in chosen if not one.identity.untrained]):
            session.console.show(line)
        if options["k"] > chosen[0].gallery:
            session.console.say(f"--k {options['k']}: all {chosen[0].gallery:,} texts that there are to search vote")
        if options["errors"]:
            _show_errors(session, chosen, levels)
    if options["per_class"]:
        _write_per_class(session, options["per_class"], scorables, protocols, facts)
    return _result(scores, baselines)


def _result(scores: Sequence[Score], baselines: Sequence[Score]) -> dict[str, Any]:
    return {"scores": [one.to_json() for one in scores], "baselines": [one.to_json() for one in baselines]}


def _check_usage(runs: tuple[str, ...], options: Mapping[str, Any]) -> None:
    if options["embeddings"] and (runs or options["methods"]):
        raise click.UsageError("--embeddings scores a file instead of runs: leave out RUN and --method")
    if not options["embeddings"] and (given := DatasetSource("", **split_loading(dict(options))[0]).options):
        raise click.UsageError(f"{given[0]} goes with --embeddings: runs are of a dataset as it was embedded")
    if options["embeddings"] and (options["backbone"] or options["layer"] != -1):
        raise click.UsageError("--embeddings needs no features: leave out --backbone and --layer")
    if options["per_class"] and options["per_class"].suffix != ".parquet":
        raise click.UsageError("--per-class writes Parquet: name a file that ends in .parquet")
    if options["bits"] and not options["embeddings"]:
        raise click.UsageError("--bits goes with --embeddings")
    if options["dims"] and not options["embeddings"]:
        raise click.UsageError("--dims goes with --embeddings: a run is scored at the prefixes of its head")
    if options["gallery_size"] and (options["errors"] or options["per_class"]):
        raise click.UsageError("--errors and --per-class are of one gallery: leave out --gallery-size")


def _runs(session: Session, ids: tuple[str, ...], options: Mapping[str, Any]) -> tuple[list[Scorable], list[Scorable]]:
    from pipeline.evaluation.embeddings import baselines_of, run_scorable
    from pipeline.stages.with_progress import features_of, runs_to_judge
    from pipeline.workspace.runs import runs_by_id

    features = features_of(session, options)
    runs = runs_by_id(session.artifacts, ids) if ids else runs_to_judge(session, features, options["methods"])
    return [run_scorable(run, features) for run in runs], baselines_of(session.artifacts, features)


def _embeddings(session: Session, options: Mapping[str, Any]) -> tuple[list[Scorable], list[Scorable]]:
    from pipeline.evaluation.embeddings import external_scorables

    loading, _ = split_loading(dict(options))
    dataset = session.artifacts.load_dataset(session.artifacts.source_as_asked(options["dataset"], loading))
    session.console.say(f"embeddings: {options['embeddings']}, of {dataset.id}")
    for warning in dataset.warnings:
        session.console.say(warning)
    given, components = external_scorables(
        options["embeddings"], dataset, options["dims"], session.console.say, bits=options["bits"]
    )
    return [given], [components]


def _show_errors(session: Session, scores: Sequence[Score], levels: Sequence[str]) -> None:
    from pipeline.terminal.tables import confusion_lines, errors_table

    session.console.show(errors_table(scores, levels))
    for line in confusion_lines(scores, levels):
        session.console.show(line)


def _check_per_class(scored: Sequence[Scorable], protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a table of classes is made of: a rerun of the same replaces it unasked, nothing else does."""
    from pipeline.workspace.outputs import check_output, made_by

    of = [scorable.identity.to_json() for scorable in scored]
    facts = {"command": "score", "protocol": protocol, "k": options["k"], "of": of}
    if path := options["per_class"]:
        given = [options["embeddings"]] if options["embeddings"] else []
        check_output(path, force=options["force"], inputs=given, own=made_by(path) == facts)
    return facts


def _write_per_class(
    session: Session, path: Path, scorables: Sequence[Scorable], protocols: Sequence[str], facts: Mapping[str, Any]
) -> None:
    from pipeline.evaluation.error_analysis import per_class_frame
    from pipeline.evaluation.score import predictions_of
    from pipeline.workspace.outputs import write_table

    predicted = [
        (scorable.identity, predictions_of(scorable, name, facts["k"]))
        for name in protocols
        for scorable in scorables
        if scorable.answers(name)
    ]
    frame = per_class_frame(predicted, scorables[0].hierarchy)
    write_table(path, frame, facts)
    session.console.show(f"{frame.height:,} rows by class: {path}")

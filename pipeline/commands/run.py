"""`pipeline run`: the whole path, from texts to a recommendation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import (
    NameList,
    embedding_options,
    fitting_options,
    known_methods,
    loading_options,
    reading_options,
    split_loading,
)
from pipeline.workspace.artifacts import DatasetSource, lasting_source

if TYPE_CHECKING:
    from pipeline.workspace.features import LabelledFeatures


@command("run", example="pipeline run icd10cm --backbone minilm")
@click.argument("dataset")
@click.option("--methods", type=NameList(known_methods), default="v5,mrl,joint", show_default=True)
@embedding_options
@reading_options
@fitting_options
@loading_options
def COMMAND(session: Session, dataset: str, methods: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Embed DATASET, fit a head by each method, score every prefix on every level, say what to choose, and report.

    The report is one HTML page about every run on these features; it needs the extra [report].
    """
    from pipeline.evaluation.embeddings import baselines_of, run_scorable
    from pipeline.evaluation.recommend import advice
    from pipeline.stages.embed_with_progress import embed_stage
    from pipeline.stages.with_progress import fit_stage, score_stage, show_scores

    loading, rest = split_loading(options)
    embedded = embed_stage(session, DatasetSource(lasting_source(dataset), **loading), rest)
    features = embedded.features()
    runs = fit_stage(session, features, methods, rest)
    scores = score_stage(session, [run_scorable(run, features) for run in runs], protocols=("gallery",))
    baselines = score_stage(session, baselines_of(session.artifacts, features), protocols=("gallery",))
    levels = embedded.dataset.levels
    show_scores(session, [*scores, *baselines], levels)
    sentences = advice(scores, levels)
    for sentence in sentences:
        session.console.show(sentence)
    report = _report(session, features)
    for line in next_steps(methods):
        session.console.show(line)
    return {
        "embed": embedded.summary(),
        "runs": [run.summary() for run in runs],
        "scores": scores,
        "baselines": baselines,
        "advice": sentences,
        "report": report,
    }


def _report(session: Session, features: LabelledFeatures) -> dict[str, Any] | None:
    """The page about every run on these features, without galleries that would take long to measure.

    None, and a line that says why, where the libraries for it are not installed: the rest of `run` needs none of them.
    """
    from pipeline.errors import PipelineError
    from pipeline.report.page import check_extra, report_stage
    from pipeline.stages.with_progress import runs_to_judge

    try:
        check_extra()
    except PipelineError as absent:
        session.console.say(f"no report: {absent} ({absent.remedy})")
        return None
    return report_stage(session, features, runs_to_judge(session, features, None), galleries=False)


def next_steps(methods: tuple[str, ...]) -> tuple[str, ...]:
    """The commands to try now, with the methods that were fitted."""
    again = f"  pipeline fit-head --method {','.join(methods)} --seeds 42,123,456"
    compare = f"{again} && pipeline compare    is it luck?" if len(methods) > 1 else again
    return (
        "",
        "Next:",
        "  pipeline score --protocol all    the published small-gallery protocol beside this one",
        "  pipeline report    the page again, with accuracy by gallery size",
        compare,
        f"  pipeline encode FILE --method {methods[-1]} --dim 64    new texts through backbone and head",
    )

"""`pipeline run`: the whole path, from texts to a recommendation."""

from __future__ import annotations

from typing import Any

import click

from pipeline.artifacts import DatasetSource, lasting_source
from pipeline.command import Session, command
from pipeline.options import (
    NameList,
    embedding_options,
    fitting_options,
    known_methods,
    loading_options,
    split_loading,
)


@command("run", example="pipeline run icd10cm --backbone minilm")
@click.argument("dataset")
@click.option("--methods", type=NameList(known_methods), default="v5,mrl", show_default=True)
@embedding_options
@fitting_options
@loading_options
def COMMAND(session: Session, dataset: str, methods: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Embed DATASET, fit a head by each method, score every prefix on every level, and say what to choose."""
    from pipeline.advice import advice
    from pipeline.stages import embed_stage, fit_stage, score_stage, show_scores
    from pipeline.subjects import baselines_of, run_subject

    loading, rest = split_loading(options)
    embedded = embed_stage(session, DatasetSource(lasting_source(dataset), **loading), rest)
    features = embedded.features()
    runs = fit_stage(session, features, methods, rest)
    scores = score_stage(session, [run_subject(run, features) for run in runs], protocols=("gallery",))
    baselines = score_stage(session, baselines_of(session.artifacts, features), protocols=("gallery",))
    levels = embedded.dataset.levels
    show_scores(session, [*scores, *baselines], levels)
    sentences = advice(scores, levels)
    for sentence in (*sentences, *next_steps(methods)):
        session.console.show(sentence)
    return {
        "embed": embedded.summary(),
        "runs": [run.summary() for run in runs],
        "scores": scores,
        "baselines": baselines,
        "advice": sentences,
    }


def next_steps(methods: tuple[str, ...]) -> tuple[str, ...]:
    """The commands to try now, with the methods that were fitted."""
    again = f"  pipeline fit-head --method {','.join(methods)} --seeds 42,123,456"
    compare = f"{again} && pipeline compare    is it luck?" if len(methods) > 1 else again
    return (
        "",
        "Next:",
        "  pipeline score --protocol all    the published small-gallery protocol beside this one",
        compare,
        f"  pipeline encode FILE --method {methods[-1]} --dim 64    new texts through backbone and head",
    )

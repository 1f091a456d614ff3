"""`pipeline run`: the whole path, from texts to a recommendation."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import (
    NameList,
    coarse_option,
    dataset_argument,
    embedding_options,
    fitting_options,
    known_methods,
    loading_options,
    reading_options,
    source_of,
    split_loading,
)

if TYPE_CHECKING:
    from data import Dataset
    from pipeline.evaluation.recommend import Answer
    from pipeline.evaluation.scores import PrefixScore, Score
    from pipeline.workspace.features import LabelledFeatures


@command("run", example="pipeline run icd10cm --backbone minilm")
@dataset_argument
@click.option("--methods", type=NameList(known_methods), default="v5,mrl,joint,lda", show_default=True)
@embedding_options
@reading_options
@fitting_options
@loading_options
@coarse_option
def COMMAND(session: Session, datasets: tuple[str, ...], methods: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Embed DATASET, fit a head by each method, score every prefix on every level, say what to choose, and report.

    The report is one HTML page about every run on these features; it needs the extra [report].
    """
    from pipeline.evaluation.comparison import compare
    from pipeline.evaluation.embeddings import baselines_of, run_scorable
    from pipeline.evaluation.recommend import advice, answer, classifier_ahead
    from pipeline.evaluation.score import PROTOCOLS
    from pipeline.stages.embed import embed_stage
    from pipeline.stages.with_progress import entries_stage, fit_stage, score_stage
    from pipeline.terminal.tables import ends_table

    loading, rest = split_loading(options)
    embedded = embed_stage(session, source_of(datasets, loading), rest)
    features, levels, show = embedded.features(), embedded.dataset.levels, session.console.show
    runs = fit_stage(session, features, methods, rest, PROTOCOLS)
    scorables, beside = [run_scorable(run, features) for run in runs], baselines_of(session.artifacts, features)
    scores = score_stage(session, scorables, protocols=("gallery",))
    baselines = score_stage(session, beside, protocols=("gallery",))
    entries = entries_stage(session, [*scorables, *beside], "gallery")
    found = answer(entries)
    compared = [] if found is None else compare(entries)
    sentences = advice(entries, levels, compared)
    evidence = sentences[0].removeprefix("Training did not pay here: ")
    best = [] if found is None else [found.sentence(levels)]
    classifier = [] if found is None else classifier_ahead(compared, found.method, levels)
    for line in ("", *best, evidence, *classifier, ""):
        show(line)
    show(ends_table(ends(scores, baselines, found), levels))
    for line in outvoted(embedded.dataset, session.artifacts.root):
        show(line)
    report = _report(session, features)
    text = embedded.dataset.texts_of(embedded.dataset.split_rows("test")[:1])[0]
    seeded = tuple(dict.fromkeys(run.method for run in runs if not run.closed_form))
    advised = None if found is None else found.method
    page = report is not None
    for line in next_steps(session.artifacts.root, methods, rest, text, page=page, seeded=seeded, advised=advised):
        show(line)
    return {
        "embed": embedded.summary(),
        "runs": [run.summary() for run in runs],
        "scores": [score.to_json() for score in scores],
        "baselines": [score.to_json() for score in baselines],
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


def outvoted(dataset: Dataset, artifacts: Path) -> list[str]:
    """Which levels have fewer training texts per class than neighbours vote: its answers suffer."""
    import numpy as np

    from pipeline.evaluation.protocols import NEIGHBOURS

    labels = dataset.labels[dataset.split_rows("train")]
    sizes = [len(known) / len(np.unique(known)) if len(known) else 0.0 for known in (one[one >= 0] for one in labels.T)]
    few = [f"{name} {size:.1f}" for name, size in zip(dataset.levels, sizes, strict=True) if 0 < size < NEIGHBOURS]
    nearest = shlex.join(["pipeline", "score", "--k", "1", *_place(artifacts)])
    return [
        f"training texts per class: {', '.join(few)}. {NEIGHBOURS} neighbours vote, so the right class is often "
        f"outvoted: {nearest} asks the nearest alone"
    ][: len(few)]


def ends(scores: Sequence[Score], baselines: Sequence[Score], found: Answer | None) -> list[Score]:
    """The scores cut to the shortest and the full prefix; beside them an untrained embedding and a classifier.

    The untrained one is that of the answer `found`, else the best. The method of the answer keeps the prefix it names.
    """
    from pipeline.evaluation.scores import by_method

    dims = {dim for score in scores for dim in (score.dims[0], score.dims[-1])}
    first = min(dims)
    whole = [score for score in baselines if len(score.dims) == 1]
    cut = [score for score in baselines if first in score.dims] or list(baselines)
    best = max(cut, key=lambda score: mean(level.accuracy for level in _at(score, first).levels))
    named = "" if found is None else found.method
    best = next((score for score in cut if [*by_method([score])] == [named]), best)
    shown = []
    for name, group in by_method([*scores, best]).items():
        kept = dims | ({found.dim} if found is not None and name == named else set())
        shown += [replace(one, prefixes=tuple(p for p in one.prefixes if p.dim in kept)) for one in group]
    return [*shown, *(one for one in whole if one is not best)]


def _at(score: Score, dim: int) -> PrefixScore:
    return next((prefix for prefix in score.prefixes if prefix.dim == dim), score.prefixes[0])


def _place(artifacts: Path) -> list[str]:
    """The option that makes another command look here, where it would not by itself."""
    usual = Path(os.environ.get("PIPELINE_ARTIFACTS") or "artifacts")
    return [] if artifacts == usual else ["--artifacts", str(artifacts)]


_SHOWN = 80  # characters of a text that a command to try shows


def next_steps(
    artifacts: Path,
    methods: Sequence[str],
    options: Mapping[str, Any],
    text: str,
    *,
    page: bool,
    seeded: Sequence[str],
    advised: str | None,
) -> list[str]:
    """Commands to try now, which work as printed: the same artifacts folder and settings, and nothing just done.

    :param text: one of the dataset, to search for: its beginning, on one line.
    :param page: whether the page was made.
    :param seeded: the methods whose heads differ by seed.
    :param advised: what the answer names; an untrained one, such as ``pca*``, is no run yet.
    """
    import heads
    from cache.backbone import SERVED

    place = _place(artifacts)
    settings = [
        word
        for name in ("head", "epochs", "batch_size", "lr", "schedule")
        if options[name] is not None
        for word in (f"--{name.replace('_', '-')}", str(options[name]))
    ]
    served = (options.get("backbone") or "").startswith(SERVED)  # no file of it is here that a model could hold
    kind = ["parquet", "--output", "vectors.parquet"] if served else ["sentence-transformers", "--output", "model"]
    more = ["fit-head", "--method", ",".join(seeded), "--seeds", "42,123,456", *settings]
    untrained = (advised or "").removesuffix("*")
    named = ["--method", untrained] if advised != untrained and untrained in heads.METHODS else []
    searched = " ".join(text.split())[:_SHOWN].rstrip()
    steps: list[tuple[list[str], str]] = [
        *(
            [(["fit-head", *named], "what the answer names, as a head that can search and be exported")]
            if named
            else []
        ),
        (["search", *named, searched], "semantic zoom: the nearest texts at each prefix"),
        (["export", *named, "--format", *kind], f"{'the vectors' if served else 'a model'} for use elsewhere"),
        (["score", "--protocol", "leave-one-out"], "test texts against each other, without the training split"),
    ]
    if seeded and not {42, 123, 456} <= set(options["seeds"]):
        steps.append((more, "three seeds: is it luck?"))
    if len(methods) > 1:
        steps.append((["compare"], "methods against each other, with tests"))
    if page:
        steps.append((["report"], "the page again, with accuracy by number of indexed texts"))
    return ["", "Next:", *(f"  {shlex.join(['pipeline', *words, *place])}    # {why}" for words, why in steps)]

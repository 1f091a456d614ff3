"""`pipeline retrieve`: two-stage search over the embeddings of runs, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import NameList, NumberList, backbone_options, known_methods

if TYPE_CHECKING:
    from pipeline.evaluation.embeddings import Scorable
    from pipeline.retrieval.experiment import Plan

_ENGINES = ("flat", "hnsw", "ivf")
_MOST_FOR_FAISS = 200_000


@command("retrieve", example="pipeline retrieve --filter-dim 64 --candidates 1000 --corpus-size 1000000")
@click.option("--filter-dim", type=NumberList(int), help="Prefixes to filter by (default: 64,128).")
@click.option(
    "--candidates",
    type=NumberList(int),
    help="Documents that the filter lets through (default: 0.1, 0.2, 0.5, 1 and 2 % of the corpus, at least 50).",
)
@click.option(
    "--corpus-size",
    type=NumberList(int),
    help="Documents, several sizes if you like (default: the training split). More than there are: the rest are "
    "simulated, copies jittered by their class's covariance before the head, and new finest classes among them.",
)
@click.option(
    "--queries",
    type=click.IntRange(min=2),
    default=1000,
    show_default=True,
    help="Texts of the test split that are asked, at most.",
)
@click.option("--methods", type=NameList(known_methods), help="Only runs of these methods.")
@click.option(
    "--engines",
    type=NameList(lambda: _ENGINES),
    help="FAISS indexes timed beside our search (default: all where FAISS is installed, up to 200,000 documents).",
)
@click.option(
    "--full",
    is_flag=True,
    help="Show every prefix and number of candidates, the engines, and the searches that no other beats.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@backbone_options
def COMMAND(session: Session, **options: Any) -> dict[str, Any]:
    """Filter by a short prefix, re-rank by the full vector: what that keeps, what it costs.

    Documents are the training split, queries the test split. For each run (mean and interval over seeds and texts), raw
    truncation and PCA: label precision@10 on each level, recall@10 against the full vector, documents of the query's
    class that the filter keeps, latency, FLOPs, bytes, and which ways to search no other beats. Shown are the shortest
    filter and three numbers of candidates, or those that you name; with --full all. The same object as --json prints,
    with everything, is kept in reports/retrieval-DATASET-BACKBONE.json.
    """
    from pipeline.evaluation.embeddings import baselines_of, run_scorable
    from pipeline.report.collect import retrieval_path
    from pipeline.retrieval.experiment import device_of, experiment
    from pipeline.retrieval.results import results_of
    from pipeline.retrieval.tables import Wanted, brief_tables, retrieval_tables, sentences
    from pipeline.stages.with_progress import features_of, runs_to_judge
    from pipeline.workspace.outputs import check_kept
    from pipeline.workspace.records import keep, write_record

    features = features_of(session, options)
    runs, device = runs_to_judge(session, features, options["methods"]), device_of(options["device"])
    scorables = [run_scorable(run, features) for run in runs]
    for one in baselines_of(session.artifacts, features):
        if one.embedder is not None and one.identity.method != "centred":  # as full vectors they are pca's
            scorables.append(one)
    sizes = tuple(sorted(options["corpus_size"] or (len(features.dataset.split_rows("train")),)))
    plan = _plan(session, scorables, sizes, device, options)
    path = retrieval_path(session.artifacts, features)
    check_kept(path)
    with session.console.progress("retrieving") as bar:
        found = experiment(scorables, features, sizes, options["queries"], plan, bar.update)
    result = results_of(found, features.dataset.id, features.backbone, features.layer, plan.device)
    result = replace(result, sentences=tuple(sentences(result)))
    wanted = Wanted(options["filter_dim"], options["candidates"], engines=bool(options["engines"]))
    for shown in retrieval_tables(result) if options["full"] else brief_tables(result, wanted):
        session.console.show(shown)
    if keep(lambda: write_record(path, result.to_json()), path):
        session.console.say(f"kept: {path}" + ("" if options["full"] else " (--full shows all of it)"))
    return result.to_json()


def _plan(
    session: Session, scorables: list[Scorable], sizes: tuple[int, ...], device: str, options: Mapping[str, Any]
) -> Plan:
    """What to measure; says what it chose by itself."""
    from pipeline.errors import PipelineError
    from pipeline.retrieval.engines import faiss_is_there
    from pipeline.retrieval.experiment import Plan

    full = scorables[0].dim
    filters = options["filter_dim"] or tuple(dim for dim in (64, 128) if dim < full)
    wrong = [dim for dim in filters if not 0 < dim < full]
    if wrong:
        raise PipelineError(
            f"--filter-dim {wrong[0]} is no prefix shorter than the full {full} dimensions",
            f"give 1 to {full - 1}; a search by all {full} stands beside it anyway",
        )
    few = [size for size in sizes if size < 10]
    low = [count for count in options["candidates"] or () if not 10 <= count <= min(sizes)]
    if few or low:
        raise PipelineError(
            f"--corpus-size {few[0]} holds no ten documents" if few else f"--candidates {low[0]} cannot be re-ranked",
            "give 10 documents or more" if few else f"give 10 candidates or more, at most {min(sizes):,}",
        )
    engines = options["engines"]
    if engines is None:
        engines = _ENGINES if faiss_is_there() and max(sizes) <= _MOST_FOR_FAISS else ()
        why = "not installed: pip install faiss-cpu" if not faiss_is_there() else "--engines times it"
        session.console.say(f"FAISS: {', '.join(engines) + ' (--full shows them)' if engines else why}")
    session.console.say(f"device: {device}")
    return Plan(tuple(sorted(filters)), options["candidates"], engines=engines, device=device)

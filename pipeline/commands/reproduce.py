"""`pipeline reproduce`: the published claims against what is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import backbone_options, fitting_options

if TYPE_CHECKING:
    from pipeline.claims.published import Measurement
    from pipeline.workspace.features import LabelledFeatures
    from pipeline.workspace.runs import Run


@command("reproduce", example="pipeline reproduce --seeds 42,123,456,789,1011")
@click.option(
    "--corpus-size",
    type=click.IntRange(min=1000),
    default=100_000,
    show_default=True,
    help="Documents of the two-stage search; published were 1000000, which take about a minute per run.",
)
@fitting_options
@backbone_options
def COMMAND(session: Session, corpus_size: int, **options: Any) -> dict[str, Any]:
    """Every published claim beside what is measured here, and a verdict.

    Fits v5 and mrl for the seeds that have no run yet. Accuracy is measured under two protocols, the published one and
    the whole training split as gallery; search in a corpus of --corpus-size documents (beyond the training split they
    are simulated: see `pipeline retrieve --help`); cost is counted from the shapes of the published backbone. Then
    shows how the difference between the two methods depends on the gallery, its size and its origin apart.
    """
    from pipeline.claims.format import claim_lines, claims_table
    from pipeline.claims.verdicts import judge
    from pipeline.evaluation.embeddings import run_scorable
    from pipeline.evaluation.gallery_size import crossing, size_effects
    from pipeline.evaluation.score import PROTOCOLS
    from pipeline.stages.with_progress import entries_stage, features_of, fit_stage, grid_stage
    from pipeline.terminal.tables import size_table

    features = features_of(session, options)
    runs = fit_stage(session, features, ("v5", "mrl"), options)
    scorables = [run_scorable(run, features) for run in runs]
    others = {**_cost(options["head"] or "paper"), **_search(session, features, runs, corpus_size)}
    claims = judge({protocol: entries_stage(session, scorables, protocol) for protocol in PROTOCOLS}, others)
    effects = size_effects(grid_stage(session, scorables, None), "v5", "mrl")
    levels = features.dataset.levels
    session.console.show(claims_table(claims))
    for line in claim_lines(claims):
        session.console.show(line)
    session.console.show(size_table(effects, levels, "v5", "mrl"))
    for sentence in crossing(effects, "v5", "mrl", levels):
        session.console.show(sentence)
    return {
        "dataset": features.dataset.id,
        "claims": [claim.to_dict() for claim in claims],
        "gallery_size": [effect.to_dict() for effect in effects],
    }


def _cost(head: str) -> Mapping[str, Measurement]:
    from pipeline.claims.cost import cost_measurements

    return cost_measurements(head)


def _search(
    session: Session, features: LabelledFeatures, runs: Sequence[Run], corpus_size: int
) -> Mapping[str, Measurement]:
    """Measure the claims on search, shown as it goes."""
    from pipeline.claims.search import plan_for_claims, search_measurements
    from pipeline.retrieval.embeddings import trained
    from pipeline.retrieval.experiment import device_of, experiment

    plan = plan_for_claims(device_of("auto"))
    embedders = [trained(run, features, plan.device) for run in runs]
    with session.console.progress(f"searching {corpus_size:,} documents") as bar:
        found = experiment(embedders, features, (corpus_size,), 1000, plan, bar.update)
    return search_measurements(found)

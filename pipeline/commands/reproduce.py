"""`pipeline reproduce`: the published claims against what is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import backbone_options, fitting_options

if TYPE_CHECKING:
    from pipeline.claims.published import Measurement
    from pipeline.workspace.features import LabelledFeatures
    from pipeline.workspace.runs import Run

_ITS_OWN = dict.fromkeys(("head", "epochs", "batch_size", "lr", "schedule"))
"""No setting but the method's own."""


@command("reproduce", example="pipeline reproduce --seeds 42,123,456,789,1011")
@click.option(
    "--corpus-size",
    type=click.IntRange(min=1000),
    help="Search in a corpus of so many documents too, partly simulated if the training split is smaller (published "
    "were 1000000, which take about a minute per run); verdicts rest on the training split.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.json",
    help="Also write the result with machine and versions, numbers only.",
)
@fitting_options
@backbone_options
def COMMAND(session: Session, corpus_size: int | None, output: Path | None, **options: Any) -> dict[str, Any]:
    """Every published claim beside what is measured here, and a verdict.

    Fits v5 and mrl for the seeds that have no run yet, and lda, a closed form, once. Accuracy is measured under two
    protocols, the published one and the whole training split as gallery; search in the training split's documents; cost
    is counted from the shapes of the published backbone. Beside them is what takes no training. Then shows how the
    difference between the two methods depends on the gallery, its size and its origin apart.
    """
    from pipeline.claims.cost import cost_measurements
    from pipeline.claims.format import claim_lines, claims_table
    from pipeline.claims.verdicts import judge
    from pipeline.evaluation.embeddings import baselines_of, run_scorable
    from pipeline.evaluation.gallery_size import crossing, size_effects
    from pipeline.evaluation.score import PROTOCOLS
    from pipeline.evaluation.scores import to_json
    from pipeline.report.collect import reproduced_path
    from pipeline.stages.with_progress import entries_stage, features_of, fit_stage, grid_stage
    from pipeline.terminal.tables import size_table
    from pipeline.workspace.outputs import check_kept, check_output
    from pipeline.workspace.records import keep, write_json, write_record

    features = features_of(session, options)
    if output is not None:
        check_output(output, own=True)
    kept = reproduced_path(session.artifacts, features)
    check_kept(kept)
    runs = fit_stage(session, features, ("v5", "mrl"), options)
    scorables = [run_scorable(run, features) for run in runs]
    closed = fit_stage(session, features, ("lda",), {**options, **_ITS_OWN, "seeds": options["seeds"][:1]})
    beside = [*(run_scorable(run, features) for run in closed), *baselines_of(session.artifacts, features)]
    others = {**cost_measurements(options["head"] or "paper"), **_search(session, features, runs, corpus_size)}
    claims = judge({name: entries_stage(session, [*scorables, *beside], name) for name in PROTOCOLS}, others)
    effects = size_effects(grid_stage(session, scorables, None), "v5", "mrl")
    levels = features.dataset.levels
    session.console.show(claims_table(claims))
    for line in claim_lines(claims):
        session.console.show(line)
    session.console.show(size_table(effects, levels, "v5", "mrl"))
    for sentence in crossing(effects, "v5", "mrl", levels):
        session.console.show(sentence)
    result = {
        "dataset": features.dataset.id,
        "fingerprint": features.fingerprint,
        "layer": features.layer,
        "claims": [to_json(claim) for claim in claims],
        "gallery_size": [to_json(effect) for effect in effects],
    }
    if output is not None:
        seeds = sorted({run.seed for run in runs})
        write_json(output, {**_about(features, str(runs[0].record["head"]), seeds), **result})
        session.console.say(f"written: {output}")
    keep(lambda: write_record(kept, {**result, "runs": [run.id for run in runs]}), kept)
    return result


def _search(
    session: Session, features: LabelledFeatures, runs: Sequence[Run], corpus_size: int | None
) -> Mapping[str, Measurement]:
    """Measure the claims on search, shown as it goes."""
    from pipeline.claims.search import plan_for_claims, search_measurements
    from pipeline.evaluation.embeddings import run_scorable
    from pipeline.retrieval.experiment import device_of, experiment

    found = []
    device = device_of("auto")
    for documents in sorted({len(features.dataset.split_rows("train")), *filter(None, (corpus_size,))}):
        plan = plan_for_claims(device, documents)
        with session.console.progress(f"searching {documents:,} documents") as bar:
            scorables = [run_scorable(run, features) for run in runs]
            found.append(experiment(scorables, features, (documents,), 1000, plan, bar.update))
    return search_measurements(found)


def _about(features: LabelledFeatures, head: str, seeds: Sequence[int]) -> dict[str, Any]:
    """What the figures were made of and with, and by which code, without a path or a text."""
    import os
    import platform
    from importlib.metadata import version

    from pipeline.cost.measure import commit, processor

    return {
        "backbone": features.backbone,
        "head": head,
        "seeds": list(seeds),
        "commit": commit(),
        "machine": processor(),
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scipy")},
        },
    }

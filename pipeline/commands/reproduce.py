"""`pipeline reproduce`: the published claims against what is measured here."""

from __future__ import annotations

from typing import Any

from pipeline.command import Session, command
from pipeline.options import backbone_options, fitting_options


@command("reproduce", example="pipeline reproduce --seeds 42,123,456,789,1011")
@fitting_options
@backbone_options
def COMMAND(session: Session, **options: Any) -> dict[str, Any]:
    """Every published claim beside what is measured here, under two protocols, and a verdict.

    Fits v5 and mrl for the seeds that have no run yet. Then shows how the difference between the two depends on the
    gallery, its size and its origin apart. Claims on cost, search and retrieval say "not measured here".
    """
    from pipeline.gallery_size import crossing, size_effects
    from pipeline.score import PROTOCOLS
    from pipeline.stages import entries_stage, features_of, fit_stage, grid_stage
    from pipeline.subjects import run_subject
    from pipeline.tables import claims_table, size_table
    from pipeline.verdicts import judge

    features = features_of(session, options)
    subjects = [run_subject(run, features) for run in fit_stage(session, features, ("v5", "mrl"), options)]
    claims = judge({protocol: entries_stage(session, subjects, protocol) for protocol in PROTOCOLS})
    effects = size_effects(grid_stage(session, subjects, None), "v5", "mrl")
    levels = features.dataset.levels
    session.console.show(claims_table(claims))
    session.console.show(size_table(effects, levels, "v5", "mrl"))
    for sentence in crossing(effects, "v5", "mrl", levels):
        session.console.show(sentence)
    return {
        "dataset": features.dataset.id,
        "claims": [claim.to_dict() for claim in claims],
        "gallery_size": [effect.to_dict() for effect in effects],
    }

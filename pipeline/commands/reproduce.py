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

    Fits v5 and mrl for the seeds that have no run yet. Claims on cost, search and retrieval say "not measured here"
    until the commands that measure them exist.
    """
    from pipeline.claims import judge
    from pipeline.score import PROTOCOLS
    from pipeline.stages import entries_stage, features_of, fit_stage
    from pipeline.tables import claims_table

    features = features_of(session, options)
    runs = fit_stage(session, features, ("v5", "mrl"), options)
    claims = judge({protocol: entries_stage(session, features, runs, protocol) for protocol in PROTOCOLS})
    session.console.show(claims_table(claims))
    return {"dataset": features.dataset.id, "claims": [claim.to_dict() for claim in claims]}

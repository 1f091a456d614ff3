"""`pipeline fit-head`: stage two on the command line."""

from __future__ import annotations

from typing import Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import NameList, backbone_options, fitting_options, known_methods


@command("fit-head", example="pipeline fit-head --method v5,mrl --seeds 42,123,456")
@click.option(
    "--method",
    "methods",
    type=NameList(known_methods),
    required=True,
    help="joint, lda, mrl, v5, pca, features, or an ablation.",
)
@fitting_options
@backbone_options
def COMMAND(session: Session, methods: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Train heads on stored features: no backbone in the loop.

    A run that exists already, with the same data, features, method, settings and seed, is not trained again.
    """
    from pipeline.stages.layers import layer_sentences
    from pipeline.stages.with_progress import features_of, fit_stage
    from pipeline.workspace.runs import runs_on

    features = features_of(session, options)
    runs = fit_stage(session, features, methods, options)
    layers = layer_sentences(runs_on(session.artifacts, features.dataset.id, features.backbone, methods))
    for sentence in layers:
        session.console.show(sentence)
    return {"runs": [run.summary() for run in runs], "layers": layers}

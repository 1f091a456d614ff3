"""`pipeline fit-head`: stage two on the command line."""

from __future__ import annotations

from typing import Any

import click

from pipeline.command import Session, command
from pipeline.options import NameList, backbone_options, fitting_options, known_methods


@command("fit-head", example="pipeline fit-head --method v5,mrl --seeds 42,123,456")
@click.option(
    "--method", "methods", type=NameList(known_methods), required=True, help="v5, mrl, joint, or an ablation."
)
@fitting_options
@backbone_options
def COMMAND(session: Session, methods: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Train heads on stored features: no backbone in the loop.

    A run that exists already, with the same data, features, method, settings and seed, is not trained again.
    """
    from pipeline.features import labelled_features
    from pipeline.fit import FitSettings, fit
    from pipeline.tables import fit_line

    artifacts, console = session.artifacts, session.console
    features = labelled_features(
        artifacts, dataset=options["dataset"], backbone=options["backbone"], layer=options["layer"]
    )
    console.say(f"features: {features.dataset.id} in {features.store.folder}")
    settings = FitSettings(options["head"], options["epochs"], options["batch_size"], options["lr"])
    runs = []
    for method in methods:
        with console.progress(f"fitting {method}") as bar:
            fitted = fit(
                artifacts,
                features,
                method,
                options["seeds"],
                settings,
                backbone_source=artifacts.backbone_source(features.backbone),
                progress=lambda p, bar=bar: bar.update(
                    (p.epoch - 1) * p.steps + p.step, p.epochs * p.steps, f"epoch {p.epoch}/{p.epochs}"
                ),
            )
        runs += fitted.runs
        console.show(fit_line(method, fitted))
    return {"runs": [run.summary() for run in runs]}

"""`pipeline score`: stage three on the command line."""

from __future__ import annotations

from typing import Any

import click

from pipeline.command import Session, command
from pipeline.options import IntegerList, NameList, backbone_options, known_methods


@command("score", example="pipeline score --protocol all")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option(
    "--protocol",
    type=click.Choice(["gallery", "leave-one-out", "all"]),
    default="gallery",
    show_default=True,
    help="Training split as gallery; or the published one, 500 test texts against each other; or both.",
)
@click.option("--k", type=click.IntRange(min=1), default=5, show_default=True, help="Neighbours that vote.")
@click.option(
    "--gallery-size",
    type=IntegerList(),
    help="Instead: galleries of these sizes, from training rows and from held-out rows, a cell each.",
)
@click.option("--method", "methods", type=NameList(known_methods), help="Only runs of these methods.")
@backbone_options
def COMMAND(session: Session, runs: tuple[str, ...], protocol: str, **options: Any) -> dict[str, Any]:
    """Accuracy of every prefix on every level, with 95 % intervals; by default of every run of the current dataset."""
    from pipeline.runs import runs_by_id
    from pipeline.score import PROTOCOLS, score_grid
    from pipeline.stages import features_of, runs_to_judge, score_stage, show_scores
    from pipeline.tables import grid_table

    features = features_of(session, options)
    chosen = runs_by_id(session.artifacts, runs) if runs else runs_to_judge(session, features, options["methods"])
    if options["gallery_size"]:
        cells = [cell for run in chosen for cell in score_grid(run, features, options["gallery_size"], options["k"])]
        session.console.show(grid_table(cells, features.dataset.levels))
        return {"scores": cells}
    protocols = PROTOCOLS if protocol == "all" else (protocol,)
    scores = score_stage(session, features, chosen, protocols, options["k"])
    for name in protocols:
        show_scores(session, [s for s in scores if s["protocol"] == name], features.dataset.levels)
    return {"scores": scores}

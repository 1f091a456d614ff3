"""`pipeline compare`: methods against each other over seeds."""

from __future__ import annotations

from typing import Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import NameList, backbone_options, known_methods


@command("compare", example="pipeline compare --methods v5,mrl --protocol leave-one-out")
@click.option("--protocol", type=click.Choice(["gallery", "leave-one-out"]), default="gallery", show_default=True)
@click.option("--methods", type=NameList(known_methods), help="Default: every method that has runs.")
@click.option("--k", type=click.IntRange(min=1), default=5, show_default=True, help="Neighbours that vote.")
@backbone_options
def COMMAND(session: Session, protocol: str, **options: Any) -> dict[str, Any]:
    """Differences between methods, paired by seed: t-test, Holm over all rows, Cohen's d, bootstrap over texts.

    Embeddings that no one trained, marked with an asterisk, are among the methods.
    """
    from pipeline.evaluation.comparison import compare
    from pipeline.evaluation.embeddings import baselines_of, run_scorable
    from pipeline.stages.with_progress import entries_stage, features_of, runs_to_judge
    from pipeline.terminal.tables import comparison_table

    features = features_of(session, options)
    runs = runs_to_judge(session, features, options["methods"])
    scorables = [*(run_scorable(run, features) for run in runs), *baselines_of(session.artifacts, features)]
    rows = compare(entries_stage(session, scorables, protocol, options["k"]))
    levels = features.dataset.levels
    session.console.show(comparison_table(rows, levels))
    session.console.say(
        "shortest and longest prefix of each pair; --json has every prefix. n: seeds, of which a test takes several; "
        "d: Cohen's d, over seeds"
    )
    for row in rows:
        if row.prefix == 1 and not row.b.endswith("*"):
            session.console.show(row.sentence(levels))
    return {"protocol": protocol, "comparisons": [row.to_json() for row in rows]}

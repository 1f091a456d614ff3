"""`pipeline report`: one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import NameList, backbone_options, force_option, known_methods


@command("report", example="pipeline report --dataset clinc --backbone minilm")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Default: reports/<dataset id>-<backbone>.html in the artifacts folder.",
)
@click.option("--methods", type=NameList(known_methods), help="Default: every method that has runs.")
@force_option
@backbone_options
def COMMAND(session: Session, output: Path | None, methods: tuple[str, ...] | None, **options: Any) -> dict[str, Any]:
    """Everything measured on a dataset and backbone as one HTML page that opens from disk and needs no network.

    Scores, answers and galleries kept beside the runs are read; what is missing is measured, galleries at ten
    seconds or more per run. Recall against cost is there once `pipeline retrieve` has run.
    """
    from pipeline.report.page import check_extra, is_page_of, report_stage
    from pipeline.stages.with_progress import features_of, runs_to_judge
    from pipeline.workspace.outputs import check_output

    check_extra()
    if output is not None and output.suffix not in (".html", ".htm"):
        raise click.BadParameter(f"{output} does not end in .html, which is what is written", param_hint="--output")
    features = features_of(session, options)
    if output is not None:
        check_output(output, force=options["force"], own=is_page_of(output, features))
    return report_stage(session, features, runs_to_judge(session, features, methods), output)

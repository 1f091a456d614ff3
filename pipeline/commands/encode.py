"""`pipeline encode`: new texts through backbone and head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import force_option, run_options


@command("encode", example="pipeline encode new.csv --dim 64 --output new.parquet")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@run_options
@click.option("--dim", type=int, help="Dimensions of the embedding, a prefix (default: all).")
@click.option("--text", default="text", show_default=True, help="Text column of a CSV, Parquet or JSONL file.")
@click.option("--output", type=click.Path(path_type=Path), help="Default: FILE.encoded.parquet.")
@click.option("--dataset", help="Dataset of the run (default: what `embed` used last).")
@click.option("--backbone", help="Backbone of the run; with --run, where its checkpoint lies now.")
@force_option
def COMMAND(session: Session, file: Path, **options: Any) -> dict[str, Any]:
    """Write the embedding and the predicted label of each level, with its confidence, of every text in FILE.

    Labels and confidences are those of the head's own classifiers at that many dimensions ("classifier" in
    `score --json`), not of nearest neighbours. FILE is CSV, Parquet or JSONL with a text column, whose other columns
    are kept, or .txt with one text per line. A column of FILE that is called like a level gets `_given` added.
    """
    from pipeline.stages.embed import progress_on
    from pipeline.stages.encode import beside, encode, read_input
    from pipeline.stages.run_asked import run_asked
    from pipeline.workspace.outputs import check_output, made_by, write_table
    from pipeline.workspace.records import file_digest

    console = session.console
    output = options["output"] or file.with_name(f"{file.name}.encoded.parquet")
    if output.suffix != ".parquet":
        raise click.BadParameter(f"{output} does not end in .parquet, which is what is written", param_hint="--output")
    given = read_input(file, options["text"])
    run = run_asked(session, options)
    dim = run.record["dims"][-1] if options["dim"] is None else options["dim"]
    facts = {"command": "encode", "run": run.id, "dim": dim, "input": file_digest(file.read_bytes())}
    facts |= {"text": options["text"]} if options["text"] != "text" else {}
    check_output(output, force=options["force"], inputs=[file], own=made_by(output) == facts)
    given = beside(given, run.record["levels"], file)
    with console.progress("embedding") as bar:
        encoded = encode(
            session.artifacts,
            run,
            given,
            dim,
            backbone=options["backbone"] if options["run_id"] else None,
            progress=progress_on(bar),
        )
    write_table(output, encoded.frame, facts)
    console.show(f"{len(given.texts):,} texts, {dim} dims, columns {', '.join(encoded.frame.columns)}: {output}")
    return {
        "output": str(output),
        "texts": len(given.texts),
        "computed": encoded.report.computed,
        "dim": dim,
        "run": run.id,
        "columns": encoded.frame.columns,
    }

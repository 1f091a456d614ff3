"""`pipeline encode`: new texts through backbone and head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import force_option


@command("encode", example="pipeline encode new.csv --method mrl --seed 42 --dim 64 --output new.parquet")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--method", help="Method of the run (default: the one that the kept scores advise).")
@click.option("--seed", type=int, help="Seed of the run (default: the lowest there is).")
@click.option("--run", "run_id", help="The run itself, instead of method and seed.")
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
    from pipeline.evaluation.advised_run import advised_run
    from pipeline.stages.embed_with_progress import rate_of
    from pipeline.stages.encode import beside, encode, read_input
    from pipeline.workspace.outputs import check_output, made_by, write_table
    from pipeline.workspace.runs import file_digest, runs_by_id
    from pipeline.workspace.select_run import chosen_line, runs_asked

    console = session.console
    output = options["output"] or file.with_name(f"{file.name}.encoded.parquet")
    if output.suffix != ".parquet":
        raise click.BadParameter(f"{output} does not end in .parquet, which is what is written", param_hint="--output")
    if options["run_id"] and (options["method"] or options["seed"] is not None):
        raise click.UsageError("--run names a run by itself: leave out --method and --seed")
    given = read_input(file, options["text"])
    method, seed = options["method"], options["seed"]
    if options["run_id"]:
        runs = runs_by_id(session.artifacts, [options["run_id"]])
    else:
        runs = runs_asked(session.artifacts, options["dataset"], options["backbone"])
    run, why = advised_run(runs, method, seed)
    console.say(chosen_line(run, runs, method, seed, why))
    dim = run.record["dims"][-1] if options["dim"] is None else options["dim"]
    facts = {"command": "encode", "run": run.id, "dim": dim, "input": file_digest(file.read_bytes())}
    check_output(output, force=options["force"], inputs=[file], own=made_by(output) == facts)
    given = beside(given, run.record["levels"], file)
    with console.progress("embedding") as bar:
        encoded = encode(
            session.artifacts,
            run,
            given,
            dim,
            backbone=options["backbone"] if options["run_id"] else None,
            progress=lambda p: bar.update(p.done, p.total, rate_of(p)),
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

"""`pipeline data`: what a dataset holds, and whether it can be used."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import dataset_argument, force_option, loading_options, source_of, split_loading
from pipeline.workspace.artifacts import DatasetSource, lasting_source

if TYPE_CHECKING:
    from data.summary import Spread, Summary


@command("list", example="pipeline data list")
def list_datasets(session: Session) -> dict[str, Any]:
    """The built-in datasets, and those embedded in this artifacts folder."""
    import data

    embedded = sorted(path.stem for path in session.artifacts.datasets.glob("*.json"))
    for name, built_in in data.BUILT_IN.items():
        session.console.show(f"{name:10} {built_in.title}; {built_in.origin}")
    for name in embedded:
        session.console.show(f"{name} (embedded here)")
    return {"built_in": list(data.BUILT_IN), "embedded": embedded}


@command("show", example="pipeline data show clinc")
@dataset_argument
@click.option("--rows", is_flag=True, help="Print the rows that are used instead, as CSV, in their order.")
@click.option("--backbone", help="Count its tokens too (default: the backbone that `embed` used last, if any).")
@loading_options
def show_dataset(
    session: Session, datasets: tuple[str, ...], rows: bool, backbone: str | None, **options: Any
) -> dict[str, Any]:
    """Rows, classes and entropy of each level, balance, lengths, duplicates of DATASET.

    A dataset that was embedded here is read with the options of that `embed`, as by every other command, unless options
    are given. The vectors of `score --embeddings FILE.npy` stand in the order of --rows.
    """
    import cache
    import data

    loading, _ = split_loading(options)
    asked = source_of(datasets, loading)
    as_embedded = len(datasets) == 1 and asked == DatasetSource(asked.source)
    source = session.artifacts.dataset_source(datasets[0]) if as_embedded else asked
    if source.options and as_embedded:
        session.console.say(f"read as it was embedded here: {' '.join(source.options)}")
    loaded = session.artifacts.load_dataset(source)
    if rows:
        for warning in loaded.warnings:
            session.console.say(warning)
        if not session.console.as_json:
            session.console.write(loaded.frame.write_csv())
        return {"dataset": loaded.id, "rows": loaded.frame.to_dicts()}
    if backbone is None and session.artifacts.embedded_before:
        backbone = session.artifacts.current().backbone.source
        from cache.backbone import GIVEN, SERVED

        backbone = None if backbone.startswith((GIVEN, SERVED)) else backbone
    tokens = backbone and partial(cache.batching.token_lengths, backbone=cache.resolve(lasting_source(backbone)))
    summary = data.summarize(loaded, tokens or None)
    for line in dataset_lines(summary):
        session.console.show(line)
    for warning in loaded.warnings:
        session.console.say(warning)
    return summary.to_dict()


def dataset_lines(summary: Summary) -> list[str | Table]:
    """What a dataset is made of: rows, levels with their entropies, balance, lengths, duplicates."""
    splits = ", ".join(f"{split} {rows:,}" for split, rows in summary.splits.items())
    lines: list[str | Table] = [f"{summary.id}: {summary.rows:,} rows ({splits})"]
    if summary.out_of_scope:
        lines.append("out of scope, left out: " + ", ".join(f"{s} {n:,}" for s, n in summary.out_of_scope.items()))
    table = Table(
        "level", "classes", "children per class", "rows per class", "balance", "bits", "bits given the level above"
    )
    for level in summary.levels:
        children = _spread(level.branching) if level.branching else "-"
        bits = f"H = {level.entropy:.2f}"
        given = f"{level.conditional_entropy:.2f}"
        table.add_row(
            level.name, f"{level.classes:,}", children, _spread(level.rows), f"{level.balance:.3f}", bits, given
        )
    lines.append(table)
    for unit, spread in summary.lengths.items():
        lines.append(
            f"{unit} per text: mean {spread.mean:.1f}, median {spread.median}, 95 % {spread.p95}, max {spread.max}"
        )
    lines.append(
        f"{summary.distinct:,} distinct texts; {summary.duplicates:,} rows repeat one, {summary.in_two_splits:,} texts "
        f"stand in two splits, {summary.contradictions:,} under different labels"
    )
    return lines


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.0f}" if spread.min == spread.max else f"{spread.mean:.1f} ({spread.min}-{spread.max})"


@command("check", example="pipeline data check my.csv --levels area,topic")
@dataset_argument
@loading_options
def check_dataset(session: Session, datasets: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Whether DATASET can be used: everything wrong or unusual with it, with the offending rows."""
    import data
    from pipeline.errors import PipelineError

    loading, _ = split_loading(options)
    source = source_of(datasets, loading)
    arguments = {name: value for name, value in source.arguments.items() if name != "limit"}
    found = data.check(source.source, folder=session.artifacts.datasets, **arguments)
    errors = [finding for finding in found if finding.severity == "error"]
    loaded = None
    refused = PipelineError(errors[0].problem, errors[0].remedy) if errors else None
    if refused is None:
        try:
            loaded = session.artifacts.load_dataset(source)
        except data.DataError as error:  # of the limit, which is not checked
            refused = PipelineError(error.problem, error.remedy)
    problems = {finding.problem for finding in found}
    for note in () if loaded is None else loaded.warnings:  # first what was understood: it explains what follows
        if note not in problems:
            session.console.say(note)
    for finding in found:
        if finding not in errors[:1]:
            session.console.say(f"{finding.severity}: {finding.problem}\n   do: {finding.remedy}")
    if any(re.search(r"\brows? \d", problem) for problem in problems):
        session.console.say("rows are counted from 1, below the header")
    if refused is not None:
        raise refused
    assert loaded is not None
    counts = " > ".join(
        f"{len(classes):,} {name}" for name, classes in zip(loaded.levels, loaded.hierarchy.classes, strict=True)
    )
    said = f"no errors, {len(found)} warning{'' if len(found) == 1 else 's'}" if found else "no faults found"
    session.console.show(f"{loaded.id}: {loaded.frame.height:,} rows, {counts}: {said}")
    return {
        "dataset": loaded.id,
        "rows": loaded.frame.height,
        "findings": [finding.to_dict() for finding in found],
    }


@command("convert", example="pipeline data convert my.xlsx --output clean.parquet")
@dataset_argument
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A Parquet file.")
@force_option
@loading_options
def convert_dataset(
    session: Session, datasets: tuple[str, ...], output: Path, force: bool, **options: Any
) -> dict[str, Any]:
    """Write DATASET as it was understood: Parquet with a text column, one column per level, and the split."""
    from pipeline.workspace.outputs import check_output, write_table

    if output.suffix != ".parquet":
        raise click.BadParameter(f"{output} does not end in .parquet, which is what is written", param_hint="--output")
    loading, _ = split_loading(options)
    source = source_of(datasets, loading)
    check_output(output, force=force, inputs=map(Path, source.files))
    loaded = session.artifacts.load_dataset(source)
    for warning in loaded.warnings:
        session.console.say(warning)
    write_table(output, loaded.frame, {"command": "data convert", "dataset": loaded.id})
    session.console.show(f"{loaded.frame.height:,} rows, columns {', '.join(loaded.frame.columns)}: {output}")
    return {"output": str(output), "rows": loaded.frame.height, "columns": loaded.frame.columns}


COMMAND = click.Group(
    "data", commands=[list_datasets, show_dataset, check_dataset, convert_dataset], help="Look at datasets."
)

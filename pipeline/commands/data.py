"""`pipeline data`: what a dataset holds, and whether it can be used."""

from __future__ import annotations

from typing import Any

import click

from pipeline.command import Session, command
from pipeline.options import dataset_source, loading_options, split_loading


@click.group("data")
def COMMAND() -> None:
    """Look at datasets."""


@command("list", example="pipeline data list")
def list_datasets(session: Session) -> dict[str, Any]:
    """The built-in datasets, and those embedded in this artifacts folder."""
    import data

    embedded = sorted(path.stem for path in session.artifacts.data.glob("*.json")) if session.artifacts.data else []
    for built_in in data.BUILT_IN.values():
        session.console.show(f"{built_in.name:10} {built_in.summary}")
    for name in embedded:
        session.console.show(f"{name} (embedded here)")
    return {"built_in": list(data.BUILT_IN), "embedded": embedded}


@command("show", example="pipeline data show clinc")
@click.argument("dataset")
@click.option("--rows", is_flag=True, help="Print the rows instead, in the order that `score --embeddings` expects.")
@loading_options
def show_dataset(session: Session, dataset: str, rows: bool, **options: Any) -> dict[str, Any]:
    """Rows, classes and entropy of each level, balance, lengths, duplicates of DATASET."""
    import data

    loading, _ = split_loading(options)
    loaded = session.artifacts.load_dataset(dataset_source(dataset, loading))
    if rows:
        session.console.show(loaded.frame.write_csv().rstrip("\n"))
        return {"dataset": loaded.id, "rows": loaded.frame.to_dicts()}
    summary = data.summarize(loaded)
    for line in summary.lines():
        session.console.show(line)
    for warning in loaded.warnings:
        session.console.say(warning)
    return summary.to_dict()


@command("check", example="pipeline data check my.csv --levels area,topic")
@click.argument("dataset")
@loading_options
def check_dataset(session: Session, dataset: str, **options: Any) -> dict[str, Any]:
    """Whether DATASET can be used: a broken hierarchy is refused with the offending rows."""
    loading, _ = split_loading(options)
    loaded = session.artifacts.load_dataset(dataset_source(dataset, loading))
    for warning in loaded.warnings:
        session.console.say(f"warning: {warning}")
    counts = " > ".join(
        f"{len(classes):,} {name}" for name, classes in zip(loaded.levels, loaded.hierarchy.classes, strict=True)
    )
    session.console.show(f"{loaded.id}: {loaded.frame.height:,} rows, {counts}: sound")
    return {"dataset": loaded.id, "rows": loaded.frame.height, "warnings": list(loaded.warnings)}


for _command in (list_datasets, show_dataset, check_dataset):
    COMMAND.add_command(_command)

"""`pipeline embed`: stage one on the command line."""

from __future__ import annotations

from typing import Any

import click

from pipeline.artifacts import DatasetSource, lasting_source
from pipeline.command import Session, command
from pipeline.options import IntegerList, embedding_options, loading_options, split_loading


@command("embed", example="pipeline embed clinc --backbone minilm")
@click.argument("dataset")
@embedding_options
@click.option(
    "--layers", type=IntegerList(), default="-1", show_default=True, help="Layers to store, from the same pass."
)
@loading_options
def COMMAND(session: Session, dataset: str, layers: tuple[int, ...], **options: Any) -> dict[str, Any]:
    """Compute the missing features of DATASET, once.

    DATASET is a built-in name (clinc, icd10cm) or a path or URL of a CSV, Parquet or JSONL file with a text column, one
    column a level (level0, level1, ... coarsest first) and, if it has one, a split column (train, val, test).
    """
    from pipeline.stages import embed_stage

    loading, rest = split_loading(options)
    return embed_stage(session, DatasetSource(lasting_source(dataset), **loading), rest, layers).summary()

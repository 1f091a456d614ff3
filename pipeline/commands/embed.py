"""`pipeline embed`: stage one on the command line."""

from __future__ import annotations

from typing import Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import IntegerList, embedding_options, loading_options, split_loading
from pipeline.workspace.artifacts import DatasetSource, lasting_source

ENGINES = ("local", "ray")


@command("embed", example="pipeline embed clinc --backbone minilm")
@click.argument("dataset")
@embedding_options
@click.option(
    "--layers", type=IntegerList(), default="-1", show_default=True, help="Layers to store, from the same pass."
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="local",
    show_default=True,
    help="ray: on a Ray cluster whose nodes share --artifacts; needs the extra [ray].",
)
@click.option(
    "--ray-address", help="Of a running cluster, or auto. Default: RAY_ADDRESS, else one is started here and ended."
)
@loading_options
def COMMAND(session: Session, dataset: str, layers: tuple[int, ...], **options: Any) -> dict[str, Any]:
    """Compute the missing features of DATASET, once.

    DATASET is a built-in name (clinc, icd10cm) or a path or URL of a CSV, Parquet or JSONL file with a text column, one
    column per level (level0, level1, ... coarsest first) and, if it has one, a split column (train, val, test).

    With --engine ray it may also be Parquet without labels: a file, a folder, a quoted pattern or a URL of either. Such
    texts are read on the cluster and embedded, nothing else: there is nothing to fit a head on. --devices auto takes
    every GPU of the cluster, else one actor per node; cpu:N takes N actors per node.
    """
    from pipeline.stages.embed_with_progress import corpus_stage, embed_stage

    loading, rest = split_loading(options)
    source = DatasetSource(lasting_source(dataset), **loading)
    if rest["engine"] != "ray":
        if rest["ray_address"]:
            raise click.UsageError("--ray-address goes with --engine ray.")
        return embed_stage(session, source, rest, layers).summary()
    from pipeline.stages.embed import corpus_of

    corpus = corpus_of(source)
    if corpus is None:
        return embed_stage(session, source, rest, layers).summary()
    return corpus_stage(session, corpus, rest, layers).summary()

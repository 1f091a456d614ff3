"""`pipeline embed`: stage one on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import (
    NumberList,
    bits_option,
    coarse_option,
    dataset_argument,
    embedding_options,
    engine_options,
    loading_options,
    reading_options,
    source_of,
    split_loading,
)


@command("embed", example="pipeline embed clinc --backbone minilm")
@dataset_argument
@embedding_options
@reading_options
@click.option(
    "--store-dtype", type=click.Choice(["float16", "float32", "bfloat16"]), help="Default: float16, float32 inside."
)
@click.option("--verify", is_flag=True, help="Read every byte of the weights again, instead of a sample of blocks.")
@click.option(
    "--embeddings",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Vectors made elsewhere (.npy, .parquet, .safetensors) as the features, instead of a backbone.",
)
@bits_option
@click.option("--name", help="With --embeddings: what to call them. Default: the file's name.")
@click.option(
    "--layers", type=NumberList(int), default="-1", show_default=True, help="Layers to store, from the same pass."
)
@engine_options
@loading_options
@coarse_option
def COMMAND(session: Session, datasets: tuple[str, ...], layers: tuple[int, ...], **options: Any) -> dict[str, Any]:
    """Compute the missing features of DATASET, once.

    DATASET is a built-in name (clinc, icd10cm) or your own file, files, folder or URL: CSV, JSON, Parquet, Excel, text.
    Which columns hold texts, labels (coarsest first) and splits is found and said, or named by options.

    With --engine ray it may also be Parquet without labels: a file, a folder, a quoted pattern or a URL of either. Such
    texts are read on the cluster and embedded, nothing else: there is nothing to fit a head on. --devices auto takes
    every GPU of the cluster, else one actor per node; cpu:N takes N actors per node.

    A backbone may also be a .gguf file (extra [gguf]), or openai:MODEL behind --endpoint. With --embeddings nothing is
    computed: the vectors of a file become the features, and heads are trained and scored on them as on any others.
    """
    from pipeline.stages.embed import corpus_of, corpus_stage, embed_stage
    from pipeline.stages.given_features import given_stage

    loading, rest = split_loading(options)
    source = source_of(datasets, loading)
    if rest["embeddings"] is not None:
        refuse_beside_embeddings()
        return given_stage(session, source, rest["embeddings"], rest["name"], rest).summary()
    if rest["name"] is not None or rest["bits"]:
        raise click.UsageError(f"--{'bits' if rest['bits'] else 'name'} goes with --embeddings.")
    if rest["verify"]:
        from cache.backbone import forget_hashes

        forget_hashes(session.artifacts.features)
    if rest["engine"] != "ray" and rest["ray_address"]:
        raise click.UsageError("--ray-address goes with --engine ray.")
    corpus = corpus_of(source) if rest["engine"] == "ray" else None
    if corpus is None:
        return embed_stage(session, source, rest, layers).summary()
    if rest["make_coarse"] is not None:
        raise click.UsageError("--make-coarse derives a level of labels, and these texts have none.")
    return corpus_stage(session, corpus, rest, layers).summary()


def refuse_beside_embeddings() -> None:
    """Refuse options of a backbone where vectors are given: they would change nothing."""
    context = click.get_current_context()
    options = ("backbone", "dtype", "devices", "pooling", "prompt", "end_token", "endpoint", "store_dtype", "verify")
    for name in (*options, "layers", "engine", "ray_address"):
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} is about a backbone; leave it out with --embeddings.")

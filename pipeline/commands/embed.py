"""`pipeline embed`: stage one on the command line."""

from __future__ import annotations

from typing import Any

import click

from pipeline.command import Session, command
from pipeline.options import IntegerList, dataset_source, embedding_options, loading_options, split_loading


@command("embed", example="pipeline embed clinc --backbone minilm")
@click.argument("dataset")
@embedding_options
@click.option(
    "--layers", type=IntegerList(), default="-1", show_default=True, help="Layers to store, from the same pass."
)
@loading_options
def COMMAND(session: Session, dataset: str, **options: Any) -> dict[str, Any]:
    """Compute the missing features of DATASET, once.

    DATASET is a built-in name (clinc, icd10cm) or a path or URL of a CSV, Parquet or JSONL file with a text column, one
    column a level (level0, level1, ... coarsest first) and, if it has one, a split column (train, val, test).
    """
    from pipeline.embed import embed

    loading, rest = split_loading(options)
    source = dataset_source(dataset, loading)
    with session.console.progress("embedding") as bar:
        embedded = embed(
            session.artifacts,
            source,
            rest["backbone"],
            layers=rest["layers"],
            dtype=rest["dtype"],
            devices=rest["devices"],
            progress=lambda p: bar.update(p.done, p.total, f"{p.texts_per_second:,.0f} texts/s"),
        )
    report = embedded.report
    for line in (*embedded.dataset.warnings, *report.notes):
        session.console.say(line)
    session.console.show(_summary(embedded))
    stores = [
        {"layer": layer.layer, "fingerprint": layer.fingerprint, "store": str(layer.folder)} for layer in report.stores
    ]
    return {
        "dataset": embedded.dataset.id,
        "backbone": embedded.backbone.name,
        "fingerprint": stores[0]["fingerprint"],
        "texts": report.texts,
        "computed": report.computed,
        "reused": report.reused,
        "tokens": report.tokens,
        "nodes": report.nodes,
        "padding": report.padding,
        "seconds": report.seconds,
        "texts_per_second": report.computed / report.seconds if report.seconds else 0.0,
        "store": stores[0]["store"],
        "stores": stores,
        "stages": report.stages,
        "dtype": report.dtype,
        "device": report.device,
    }


def _summary(embedded: Any) -> str:
    report = embedded.report
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.stages.items() if seconds >= 0.05)
    lines = [
        f"{embedded.dataset.id} through {embedded.backbone.name}: {report.texts:,} texts, "
        f"{report.computed:,} computed, {report.reused:,} reused, {report.seconds:.1f} s"
    ]
    if report.computed:
        lines.append(
            f"{report.tokens:,} tokens in {report.nodes:,} nodes, padding {report.padding:.1%}, "
            f"{report.computed / report.seconds:,.0f} texts/s on {report.device} in {report.dtype}"
        )
        lines.append(f"time: {stages}")
    lines += [f"layer {layer.layer}: {layer.folder}" for layer in report.stores]
    return "\n".join(lines)

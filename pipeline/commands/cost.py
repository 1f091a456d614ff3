"""`pipeline cost`: what training, encoding, searching and storing cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from heads.presets import PRESETS
from pipeline.terminal.command import Session, command
from pipeline.terminal.options import NameList, known_methods


@command("cost", example="pipeline cost --dataset clinc --backbone qwen3-0.6b --tokens 128 --no-measure")
@click.option("--dataset", help="Dataset: name, id or path (default: what `embed` used last).")
@click.option(
    "--backbone",
    help="Backbone: name, hub id, or a folder with config.json and a tokenizer; needs no weights "
    "(default: what `embed` used last).",
)
@click.option("--methods", type=NameList(known_methods), default="v5,mrl,joint", show_default=True)
@click.option("--head", type=click.Choice(tuple(PRESETS)), default="paper", show_default=True, help="Head preset.")
@click.option("--batch-size", type=click.IntRange(min=2), help="Default: each method's own.")
@click.option("--epochs", type=click.IntRange(min=1), help="Default: each method's own.")
@click.option("--tokens", type=click.IntRange(min=1), help="Count every text as so long (default: its real length).")
@click.option("--measure/--no-measure", default=True, show_default=True, help="Also run, for seconds, what can be run.")
def COMMAND(session: Session, dataset: str | None, backbone: str | None, **options: Any) -> dict[str, Any]:
    """FLOPs, bytes and seconds of training with and without the cache, of encoding, search and storage.

    Counted from the shapes of the real modules and the lengths of the dataset's texts; nothing has to be embedded or
    trained before, and the backbone's weights need not be here. Seconds are measured on this machine, a few in all.
    """
    import cache
    from pipeline.claims.cost import recounted
    from pipeline.cost import tables
    from pipeline.cost.report import cost, setting_of
    from pipeline.workspace.artifacts import lasting_source

    loaded = session.artifacts.load_dataset(session.artifacts.dataset_source(dataset))
    artifacts = session.artifacts
    source = artifacts.current().backbone if backbone is None else artifacts.backbone_source(lasting_source(backbone))
    resolved = replace(cache.resolve(source.source), prompt=source.prompt)
    session.console.say(f"{loaded.id} through {resolved.name}, {options['head']} head")
    setting = setting_of(
        loaded, resolved, head=options["head"], batch=options["batch_size"], epochs=options["epochs"],
        tokens=options["tokens"],
    )  # fmt: skip
    with session.console.progress("measuring") as bar:
        result = cost(setting, loaded, resolved, options["methods"], measure=options["measure"], progress=bar.update)
    result["claims"] = recounted()
    show = session.console.show
    length = result["tokens"]
    show(
        f"tokens per text: mean {length['mean']:.1f}, median {length['median']}, 95 % {length['p95']}, "
        f"max {length['max']}"
    )
    show(tables.step_table(result["training"]))
    show(tables.fit_table(result["training"]))
    show(tables.encoding_table(result["encoding"], result["speed"]))
    show(tables.search_table(result["search"], result["storage"]))
    show(tables.claims_table(result["claims"]))
    for line in tables.notes(result):
        show(line)
    return result

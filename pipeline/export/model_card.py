"""The README.md of an exported model: how to load each prefix, how good it is, how it was made.

The words are in `model_card.md`, a template that `huggingface_hub` fills; here are the values. All come from the run
and its scores. Nothing of the machine that it was made on (paths) and no text of the data gets into it, and what a
person named (folders, labels, datasets) is quoted where it would be code or Markdown.
"""

from __future__ import annotations

import shlex
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cache
from cache.backbone import package_folder
from pipeline.export.head_modules import head_class, is_linear
from pipeline.terminal.escape import code_literal, code_span, markdown_text
from pipeline.workspace.runs import Run

LICENCES = {
    "qwen3-embedding-0.6b": "apache-2.0",
    "qwen3-0.6b": "apache-2.0",
    "minilm": "apache-2.0",
    "bge-small": "mit",
    "e5-small": "mit",
}
"""Licences of the weights, as their publishers state them on the hub."""
TEMPLATE = Path(__file__).with_name("model_card.md")
_TITLES = {
    "gallery": "Test texts, nearest neighbours in the training split",
    "leave-one-out": "Test texts against each other",
}
_STOCK = "Every module is sentence-transformers' own: nothing has to be trusted, no other package is needed."
_OWN = (
    "The head is `embedding_head.py` in this folder, some lines of torch: sentence-transformers asks for "
    "`trust_remote_code=True` before it runs per file of a model. No other package is needed."
)


def card_text(run: Run, scores: Sequence[Mapping[str, Any]], folder: str) -> str:
    """Write the whole card, Markdown with front matter.

    :param scores: records of `pipeline.evaluation.score`, one per protocol.
    :param folder: the name under which the model will be found.
    """
    from huggingface_hub import ModelCard, ModelCardData

    record, features, head = run.record, run.record["features"], run.load()
    backbone = _known(record)
    hub = _hub(record, backbone)
    licence = None if backbone is None else LICENCES.get(backbone.name)
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "feature-extraction", "matryoshka"],
        base_model=hub,
        license=licence,
    )
    dataset = str(record["dataset"]).rsplit("-", 1)[0]
    end = features["end_token"]
    values = {
        "run": run,
        "record": record,
        "features": features,
        "backbone": markdown_text(record["backbone"]),
        "dataset": markdown_text(dataset),
        "levels": " > ".join(
            f"{len(classes):,} {markdown_text(name)}"
            for name, classes in zip(record["levels"], record["classes"], strict=True)
        ),
        "parameters": f"{record['parameters']:,}",
        "folder": code_literal(folder),
        "folder_word": shlex.quote(folder),
        "trust": "" if is_linear(head) else ", trust_remote_code=True",
        "code": _STOCK if is_linear(head) else _OWN,
        "k": scores[0]["k"],
        "tables": [_table(score) for score in scores],
        "names": [markdown_text(name) for name in record["levels"]],
        "max_length": f"{features['max_length']:,}",
        "end_token": f", end token {end} appended" if end is not None else "",
        "prompt": f", {markdown_text(code_literal(record['prompt']))} before each text" if record["prompt"] else "",
        "hidden_size": f"{features['hidden_size']:,}",
        "head_module": head_class(head).rpartition(".")[2],
        "settings": ", ".join(
            f"{name} {markdown_text(str(value))}" for name, value in record["hyperparameters"].items()
        ),
        "dataset_id": code_span(record["dataset"]),
        "origin": f"[{markdown_text(hub)}](https://huggingface.co/{urllib.parse.quote(hub)})"
        if hub
        else "a local checkpoint",
        "licence": f"licence {licence}" if licence else "see its own card for the licence",
        "labels": "CLINC150 by Larson et al. (2019), CC BY 3.0" if dataset == "clinc" else markdown_text(dataset),
    }
    return str(ModelCard.from_template(data, template_path=str(TEMPLATE), **values))


def _known(record: Mapping[str, Any]) -> cache.backbone.Backbone | None:
    """The table's row of the backbone; None for any other, such as a folder that happens to be called like one."""
    row = cache.backbone.BACKBONES.get(str(record["backbone"]))
    if row is None:
        return None
    packaged = package_folder(row.package) if row.package is not None else None
    return row if record["backbone_source"] in (row.name, row.source, str(packaged)) else None


def _hub(record: Mapping[str, Any], known: cache.backbone.Backbone | None) -> str | None:
    """Hub id of the backbone, None for a checkpoint by path."""
    source = str(record["backbone_source"])
    if known is not None:
        return known.source
    return None if Path(source).is_absolute() else source


def _table(score: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        {"dim": prefix["dim"], "cells": [_cell(level) for level in prefix["levels"]]} for prefix in score["prefixes"]
    ]
    counts = {name: f"{score[name]:,}" for name in ("queries", "gallery")}
    return {"title": _TITLES[score["protocol"]], "rows": rows, **counts}


def _cell(level: Mapping[str, Any]) -> str:
    low, high = level["ci95"]
    return f"{level['accuracy'] * 100:.1f} [{low * 100:.1f}, {high * 100:.1f}]"

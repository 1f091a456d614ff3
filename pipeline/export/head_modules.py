"""A head as modules of sentence-transformers: stock ones where it is a linear map, one file of torch where it is not.

A linear head needs no code from anywhere: `Normalize` (heads take features of length one), `Dense`, `Normalize`. Any
other takes `embedding_head.py` along in its folder, which sentence-transformers runs once it is told to trust it.

sentence-transformers cuts a vector after the last module, and normalises it only if asked: a prefix of a unit vector is
shorter than one. No stock module can know the prefix, so whoever encodes passes `normalize_embeddings=True`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from heads import FractalHead

_MODULES = "sentence_transformers.models"  # their place since version 2, which later versions still answer to
TRANSFORMER, POOLING = f"{_MODULES}.Transformer", f"{_MODULES}.Pooling"
DENSE, NORMALIZE = f"{_MODULES}.Dense", f"{_MODULES}.Normalize"
FILE = "embedding_head.py"
NETWORK, MLP = "embedding_head.EmbeddingHead", "embedding_head.MlpHead"


def is_linear(head: FractalHead) -> bool:
    """Whether stock modules say it all, so that no code has to be trusted."""
    return not head.shape.transformer and not head.shape.mlp


def head_class(head: FractalHead) -> str:
    """The class that computes a head, as `modules.json` names it."""
    if is_linear(head):
        return DENSE
    return MLP if head.shape.mlp else NETWORK


def write_head(folder: Path, head: FractalHead, first: int) -> list[dict[str, Any]]:
    """Write a head's modules into a model's folder, numbered from `first`; return their rows of `modules.json`."""
    rows: list[dict[str, Any]] = []
    for number, kind in enumerate((NORMALIZE, head_class(head), NORMALIZE), start=first):
        path = f"{number}_{kind.rpartition('.')[2]}"
        (folder / path).mkdir()
        rows.append({"idx": number, "name": str(number), "path": path, "type": kind})
    for row in (rows[0], rows[2]):
        write_json(folder / row["path"] / "config.json", {"module_input_name": "sentence_embedding"})
    config, tensors = _WRITERS[head_class(head)](head)
    place = folder / rows[1]["path"]
    write_json(place / "config.json", config)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, place / "model.safetensors")
    if not is_linear(head):
        shutil.copyfile(Path(__file__).with_name(FILE), folder / FILE)
    return rows


def _centred(head: FractalHead, name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear map that sees a head's centred and scaled features, for features as they are.

    W s (x - c) + b is (s W) x + (b - s W c); taken in float64, since the two terms nearly cancel.
    """
    weight, bias = (head.named()[f"{name}.{part}"].double() for part in ("weight", "bias"))
    if head.centre is None:
        return weight.float(), bias.float()
    weight = weight * head.scale
    return weight.float(), (bias - weight @ head.centre.double()).float()


def _linear(head: FractalHead) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weight, bias = _centred(head, "input")
    config = {
        "in_features": head.shape.inputs,
        "out_features": head.shape.dim,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    return config, {"linear.weight": weight, "linear.bias": bias}


def _mlp(head: FractalHead) -> tuple[dict[str, Any], dict[str, Tensor]]:
    shape, named = head.shape, head.named()
    config = {"inputs": shape.inputs, "hidden": shape.mlp, "dim": shape.dim, "factor": head.scale}
    parts = {"input": "input", "expand": "mlp.expand", "contract": "mlp.contract"}
    tensors = {f"{new}.{part}": named[f"{old}.{part}"] for new, old in parts.items() for part in ("weight", "bias")}
    return config, {**tensors, "centre": torch.zeros(shape.inputs) if head.centre is None else head.centre}


def _network(head: FractalHead) -> tuple[dict[str, Any], dict[str, Tensor]]:
    shape = head.shape
    config = {
        "inputs": shape.inputs,
        "width": shape.width,
        "hidden": shape.hidden,
        "scales": shape.scales,
        "scale_dim": shape.scale_dim,
        "blocks": shape.blocks,
        "residuals": [shape.residual(scale) for scale in range(shape.scales)],
    }
    kept = {name: tensor for name, tensor in head.named().items() if name.split(".")[0] in ("input", "block", "scale")}
    kept["input.weight"], kept["input.bias"] = _centred(head, "input")
    return config, kept


_WRITERS: dict[str, Callable[[FractalHead], tuple[dict[str, Any], dict[str, Tensor]]]] = {
    DENSE: _linear, MLP: _mlp, NETWORK: _network,
}  # fmt: skip


def write_json(path: Path, content: Any) -> None:
    """Write a file that a person may read."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""A backbone's matrix products by the length of a text, from its configuration alone.

transformers builds the real modules on torch's meta device, which has shapes and no numbers, so a backbone whose
weights are not here is counted as well as one whose are, in a second and without memory. A text of T tokens costs

    T x (every linear map of the layers) + pairs x (4 x heads x head length x layers) + once the pooler, if it has one

where `pairs` are the pairs of tokens that attend: T^2, and T (T + 1) / 2 for a causal backbone. Torch's flop counter
counts T^2 for both, as a kernel that masks computes; the tests hold the formula to it on real modules. The alternative,
2 x parameters a token, counts the embedding table, which is looked up and not multiplied, and forgets attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import cache
from cache.backbones import is_causal, read_json
from cache.hub import fetch_small_files
from pipeline.cost.elementwise import Elementwise, elementwise_of
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

QWEN3_06B: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
}
"""Qwen3-0.6B's published shape (its config.json), for machines that have none of its files."""
_SHAPES = {"qwen3-0.6b": QWEN3_06B, "qwen3-embedding-0.6b": QWEN3_06B}


@dataclass(frozen=True)
class BackboneCount:
    """Operations of a backbone: `linear` a token, `attention` a pair of tokens, `once` a text.

    `hidden` is the length H of a feature; `parameters` counts all weights, `embedding` those that are looked up.
    `other` counts what is no product (norms, activations, softmax).
    """

    name: str
    linear: int
    attention: int
    once: int
    causal: bool
    layers: int
    hidden: int
    parameters: int
    embedding: int
    other: Elementwise

    def products(self, lengths: NDArray[np.int64] | int, *, masked: bool = False) -> int:
        """Count texts of these lengths, a text each, without padding.

        :param masked: count the pairs that a causal backbone masks too.
        """
        tokens = np.atleast_1d(np.asarray(lengths, np.int64))
        pairs = tokens * tokens if masked or not self.causal else tokens * (tokens + 1) // 2
        return int(self.linear * tokens.sum() + self.attention * pairs.sum() + self.once * len(tokens))

    def attention_share(self, lengths: NDArray[np.int64] | int) -> float:
        """Share of the products that is attention, which grows with the square of the length."""
        tokens = np.atleast_1d(np.asarray(lengths, np.int64))
        plain = int(self.linear * tokens.sum() + self.once * len(tokens))
        whole = self.products(lengths)
        return (whole - plain) / whole


def count_backbone(backbone: cache.Backbone) -> BackboneCount:
    """Count a backbone from its configuration: that of its files, or the published shape where they are not here.

    :raises cache.CacheError: if its configuration can neither be read nor fetched.
    :raises PipelineError: if transformers knows no such architecture.
    """
    return count_config(backbone.name, config_of(backbone))


def config_of(backbone: cache.Backbone) -> dict[str, Any]:
    """Read a backbone's config.json; of a table's row whose files are not here, the published shape."""
    try:
        config = read_json(small_files(backbone) / "config.json")
    except cache.CacheError:
        if backbone.name in _SHAPES:
            return _SHAPES[backbone.name]
        raise
    if not isinstance(config, dict):
        raise cache.CacheError(f"backbone {backbone.name}: no config.json", "fetch the whole checkpoint")
    return config


def small_files(backbone: cache.Backbone) -> Path:
    """Return the folder of a backbone's configuration and tokenizer, without its weights.

    :raises cache.CacheError: if they are not here and cannot be had.
    """
    folder = Path(backbone.source)
    return folder if folder.is_dir() else fetch_small_files(backbone.source)


def count_config(name: str, config: dict[str, Any]) -> BackboneCount:
    """Count the real modules of a configuration, on the meta device.

    :raises PipelineError: if transformers knows no such architecture.
    """
    model = build(name, config)
    text = model.config.get_text_config()
    heads = int(text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    linear, once = _linear_maps(model)
    tables = sum(m.weight.numel() for m in model.modules() if type(m).__name__.endswith("Embedding") and _weighs(m))
    return BackboneCount(
        name=name,
        linear=linear,
        attention=4 * heads * width * int(text.num_hidden_layers),
        once=once,
        causal=is_causal(config),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        parameters=sum(p.numel() for p in model.parameters()),
        embedding=tables,
        other=elementwise_of(model),
    )


def build(name: str, config: dict[str, Any]) -> Any:
    """Build the real modules of a configuration without memory for them.

    :raises PipelineError: if transformers knows no such architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    fields = {key: value for key, value in config.items() if key != "model_type"}
    try:
        made = AutoConfig.for_model(str(config.get("model_type")), **fields)
        with torch.device("meta"):
            return AutoModel.from_config(made, attn_implementation="sdpa").eval()
    except (KeyError, TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PipelineError(
            f"backbone {name}: transformers cannot build {config.get('model_type')} ({reason})",
            "count a backbone of an architecture that the installed transformers knows",
        ) from error


def _linear_maps(model: Any) -> tuple[int, int]:
    """Operations of all linear maps: those of every token, and those of the pooler, which sees one token a text."""
    every, once = 0, 0
    for name, module in model.named_modules():
        if type(module).__name__ in ("Linear", "Conv1D"):
            flops = 2 * module.weight.numel()
            every, once = (every, once + flops) if "pooler" in name.split(".") else (every + flops, once)
    return every, once


def _weighs(module: Any) -> bool:
    return getattr(module, "weight", None) is not None

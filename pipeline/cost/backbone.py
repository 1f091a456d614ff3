"""A backbone's matrix products by the length of a text, from its configuration alone.

transformers builds the real modules on torch's meta device, which has shapes and no numbers, so a backbone whose
weights are not here is counted as well as one whose are, in a second and without memory. A text of T tokens costs

    T x linear + pairs x attention + once

where `linear` are the linear maps of the layers as often as they are applied, `pairs` the pairs of tokens that attend
and `once` is the pooler, if there is one. The three are learnt from torch's flop counter at three lengths and must
foretell a fourth. It counts T^2 pairs for a causal backbone too, as a kernel that masks computes; needed are
T (T + 1) / 2. A formula over the modules would miss what an architecture does otherwise (ALBERT applies one layer
twelve times); 2 x parameters per token counts the embedding table, which is looked up and not multiplied, and forgets
attention. What asks for a number while it runs (DeBERTa, mixtures of experts) cannot be counted so, and is refused.

Torch's counter knows products alone. What it leaves out (additions, norms, activations, softmax) is counted beside:
every other operation that makes numbers counts the elements that it makes, times what one of them takes (a norm 7,
softmax 5, GELU or SiLU 5, anything else 1; an exponential or a division counts as one). That is a convention, good for
a share and not for a third digit: it says how much the products leave out. A backbone runs on the meta device, on
shapes only; its counts are exact polynomials of a text's length, learnt from three lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import cache
from cache.backbone import fetch_small_files, is_causal, read_json
from pipeline.errors import PipelineError

_WEIGHTS = {
    "native_layer_norm": 7, "native_layer_norm_backward": 12, "_softmax": 5, "_safe_softmax": 5, "_log_softmax": 5,
    "gelu": 5, "gelu_backward": 9, "silu": 5,
}  # fmt: skip
_REDUCTIONS = {"sum", "mean", "amax", "amin", "max", "min", "linalg_vector_norm", "dot", "any", "all", "cumsum"}
_NO_ARITHMETIC = {
    "mm", "bmm", "addmm", "baddbmm", "empty", "empty_like", "empty_strided", "new_empty", "zeros", "zeros_like",
    "new_zeros", "ones", "new_ones", "full", "full_like", "new_full", "arange", "scalar_tensor", "clone", "_to_copy",
    "copy_", "fill_", "cat", "stack", "index", "index_select", "gather", "take", "embedding", "constant_pad_nd",
    "repeat", "tril", "where", "_unsafe_view", "_reshape_alias", "lift_fresh",
}  # fmt: skip


class ElementCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts elements computed inside a `with` block, in `elements`; products, views and copies count nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if name not in _NO_ARITHMETIC and not func.is_view:
            self.elements += _elements(name, args, out)
        return out


def _elements(name: str, args: Any, out: Any) -> int:
    first = args[0] if name in _REDUCTIONS else out[0] if isinstance(out, (tuple, list)) and out else out
    return int(first.numel()) * _WEIGHTS.get(name, 1) if isinstance(first, torch.Tensor) else 0


@dataclass(frozen=True)
class Elementwise:
    """Operations that are no products, of a text of T tokens: a + b T + c T^2."""

    a: float
    b: float
    c: float

    def count(self, lengths: NDArray[np.int64] | int) -> int:
        """Count texts of these lengths."""
        tokens = np.atleast_1d(np.asarray(lengths, np.float64))
        return round(float((self.a + self.b * tokens + self.c * tokens * tokens).sum()))


def _count_pass(model: Any, length: int) -> tuple[int, int]:
    """Run a text of `length` tokens through a model on the meta device; count its products and what is none."""
    ids = torch.zeros(1, length, dtype=torch.int64, device="meta")
    # the inner counter sees what the model calls, the outer one what that decomposes to
    with torch.no_grad(), FlopCounterMode(display=False) as products, ElementCounter() as others:
        model(input_ids=ids)
    return products.get_total_flops(), others.elements


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
_STEP = 16
_LENGTHS = (_STEP, 2 * _STEP, 3 * _STEP, 4 * _STEP)


@dataclass(frozen=True)
class BackboneCount:
    """Products of a backbone: `linear` per token, `attention` per pair of tokens, `once` per text.

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
        """Count texts of these lengths, without padding.

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


def config_of(backbone: cache.backbone.Backbone) -> dict[str, Any]:
    """Read a backbone's config.json; of a table's row whose files are not here, the published shape.

    :raises cache.CacheError: if it can neither be read nor fetched.
    """
    try:
        config = read_json(small_files(backbone) / "config.json")
    except cache.CacheError:
        if backbone.name in _SHAPES:
            return _SHAPES[backbone.name]
        raise
    if not isinstance(config, dict):
        raise cache.CacheError(f"backbone {backbone.name}: no config.json", "fetch the whole checkpoint")
    return config


def small_files(backbone: cache.backbone.Backbone) -> Path:
    """Return the folder of a backbone's configuration and tokenizer, without its weights.

    :raises cache.CacheError: if they are not here and cannot be had.
    """
    folder = Path(backbone.source)
    return folder if folder.is_dir() else fetch_small_files(backbone.source)


def count_config(name: str, config: dict[str, Any]) -> BackboneCount:
    """Count the real modules of a configuration, on the meta device.

    :raises PipelineError: if transformers knows no such architecture, or it does not run on shapes alone.
    """
    try:
        return _count(name, build(config), causal=is_causal(config))
    except Exception as error:  # transformers' configurations, modules and torch's meta kernels each raise their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PipelineError(
            f"backbone {name}: a {config.get('model_type')} cannot be counted ({reason})",
            "count another backbone of its size: an encoder or decoder of text that runs without asking for numbers",
        ) from error


def build(config: dict[str, Any]) -> Any:
    """Build the real modules of a configuration without memory for them, with the attention that transformers prefers.

    :raises Exception: whatever transformers raises where it cannot.
    """
    from transformers import AutoConfig, AutoModel

    fields = {key: value for key, value in config.items() if key not in ("model_type", "_attn_implementation")}
    made = AutoConfig.for_model(str(config.get("model_type")), **fields)
    with torch.device("meta"):
        return AutoModel.from_config(made).eval()


def _count(name: str, model: Any, *, causal: bool) -> BackboneCount:
    if any(type(module).__name__.endswith("Experts") for module in model.modules()):
        raise ValueError("which of its experts compute depends on the text")
    text = model.config.get_text_config()
    products, elements = zip(*(_count_pass(model, length) for length in _LENGTHS), strict=True)
    once, linear, attention = _quadratic(products)
    c, b, a = np.linalg.solve(np.vander(np.array(_LENGTHS[:3], float), 3), np.array(elements[:3], float))
    tables = (m for m in model.modules() if type(m).__name__.endswith("Embedding"))
    return BackboneCount(
        name=name,
        linear=linear,
        attention=attention,
        once=once,
        causal=causal,
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        parameters=sum(p.numel() for p in model.parameters()),
        embedding=sum(m.weight.numel() for m in tables if getattr(m, "weight", None) is not None),
        other=Elementwise(float(a), float(b), float(c)),
    )


def _quadratic(products: Sequence[int]) -> tuple[int, int, int]:
    """Find the whole numbers a, b, c of a + b T + c T^2 that give these products at `_LENGTHS`."""
    first, second, third = products[:3]
    c = (third - 2 * second + first) // (2 * _STEP**2)
    b = (second - first) // _STEP - 3 * _STEP * c
    a = first - b * _STEP - c * _STEP**2
    if [a + b * length + c * length**2 for length in _LENGTHS] != list(products):
        raise ValueError("its products are no polynomial of a text's length")
    return a, b, c

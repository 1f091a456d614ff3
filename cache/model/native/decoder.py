"""The forward pass of Qwen3, Qwen2, Llama and Mistral over packed nodes, on weights read here.

Four families differ in little: root-mean-square norms, rotary positions, grouped heads, a gated feed-forward; with or
without norms of the heads (Qwen3), biases (Qwen2), local windows (Mistral). For these, and for these only, the layers
are run here: one product makes query, key and value, one makes gate and up, what lies between is fused
(`cache.model.native.ops`), residuals are added by the product itself, and the last layer's feed-forward runs on the few
nodes whose states are pooled. On an H100 that is the difference between half and three fifths of the matrix-product
peak. `cache.model.native.config` says which configurations are understood, and tests hold every family to what
transformers computes for each text alone (`tests/cache/model/test_encoder.py`). Every other architecture runs in
transformers' own layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from cache.batching.packing import Batch
from cache.model.attention import Blocks, Chain
from cache.model.native.bert import Weights
from cache.model.native.config import DecoderShape
from cache.model.native.ops import EAGER, Kernels, Rotary
from cache.model.pooling import pool

_PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_OUTPUT = "self_attn.o_proj"
_BEFORE, _BETWEEN = "input_layernorm", "post_attention_layernorm"
_WIDE, _NARROW = ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"
_HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")


@dataclass(frozen=True)
class _Layer:
    """One layer's weights, products joined: `qkv` [(heads + 2 kv_heads) * dim, H], `gate_up` [2 * width, H]."""

    before: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    heads_norm: Tensor | None
    output: Tensor
    between: Tensor
    gate_up: Tensor
    down: Tensor
    window: int | None


class Decoder:
    """Runs the layers on packed nodes, every distinct prefix of a batch once.

    `fused` kernels, where there are any, run the batches that are laid out for them.
    """

    layout = "trie"

    def __init__(
        self, weights: Weights, shape: DecoderShape, rotary: Rotary, layers: Sequence[int], device: str, pooling: str
    ) -> None:
        """Read the tensors that the layers need, joined layer by layer, to answer for `layers`, absolute.

        :raises KeyError: one is missing.
        """
        self.windowed = any(shape.windows)
        self.fused: Kernels | None = None
        self._shape, self._rotary = shape, rotary
        self._wanted, self._device, self._pooling = layers, device, pooling
        self._embedding = weights["embed_tokens.weight"]
        self._norm = weights["norm.weight"]
        self._layers = [_read(weights, number, shape) for number in range(shape.layers)]

    @torch.inference_mode()
    def features(self, batch: Batch) -> Tensor:
        """Return float32 [layers, texts, H]."""
        assert batch.last is not None
        assert batch.end is not None
        last = self._pooling == "last"
        if batch.laid_out is not None and self.fused is not None:
            trie = batch.laid_out.on(self._device)
            at = trie["last"] if last else torch.arange(len(trie["ids"]), device=self._device)
            states = self._states(trie["ids"], trie["positions"], trie, at, self.fused)
        else:
            read = batch.last if last else np.arange(len(batch.ids))
            ids, positions, at = (
                torch.from_numpy(array).to(self._device) for array in (batch.ids, batch.positions, read)
            )
            alone = len(batch.rows) == 1
            plan = Chain() if alone else Blocks.of(batch.end, batch.positions, self._device)
            states = self._states(ids, positions, plan, at, EAGER)
        found = (states[layer] for layer in self._wanted)
        return torch.stack([one.float() if last else pool(one, batch, self._pooling) for one in found])

    def _states(self, ids: Tensor, positions: Tensor, plan: Any, at: Tensor, kernels: Kernels) -> dict[int, Tensor]:
        """Return the hidden states of the nodes `at` [texts], as [texts, H], by layer.

        `ids` and `positions` [nodes]. Hidden state 0 is the embedding, the last is after the norm. Nothing past the
        highest layer is computed. `plan` is what `kernels` attend by.
        """
        states = self._embedding[ids]
        tables = self._rotary.tables(positions)
        heads, eps, scale = (self._shape.heads, self._shape.kv_heads), self._shape.eps, self._shape.dim**-0.5
        highest = max(self._wanted)
        found = {}
        for number, layer in enumerate(self._layers[:highest]):
            if number in self._wanted:
                found[number] = states[at]
            normed = kernels.rms_norm(states, layer.before, eps)
            joint = linear(normed, layer.qkv, layer.qkv_bias)
            mixed = kernels.attend(joint, heads, tables, layer.heads_norm, eps, plan, scale, layer.window)
            if number + 1 == highest:
                states, mixed = states[at], mixed[at]
            states.addmm_(mixed, layer.output.T)
            normed = kernels.rms_norm(states, layer.between, eps)
            states.addmm_(kernels.gate(linear(normed, layer.gate_up)), layer.down.T)
        if highest == 0:
            states = states[at]
        found[highest] = kernels.rms_norm(states, self._norm, eps) if highest == self._shape.layers else states
        return found


def _read(weights: Weights, number: int, shape: DecoderShape) -> _Layer:
    at = f"layers.{number}"

    def joined(names: Sequence[str], kind: str = "weight") -> Tensor:
        return weights.joined([f"{at}.{name}.{kind}" for name in names])

    norms = None
    if shape.normed:
        each = zip(_HEAD_NORMS, (shape.heads, shape.kv_heads), strict=True)
        norms = torch.cat([weights[f"{at}.{name}.weight"].expand(count, -1) for name, count in each]).contiguous()
    return _Layer(
        before=weights[f"{at}.{_BEFORE}.weight"],
        qkv=joined(_PROJECTIONS),
        qkv_bias=joined(_PROJECTIONS, "bias") if shape.biased else None,
        heads_norm=norms,
        output=weights[f"{at}.{_OUTPUT}.weight"],
        between=weights[f"{at}.{_BETWEEN}.weight"],
        gate_up=joined(_WIDE),
        down=weights[f"{at}.{_NARROW}.weight"],
        window=shape.windows[number],
    )


def expected(shape: DecoderShape) -> dict[str, list[int]]:
    """Return the tensors that such a decoder has, and nothing beside them but an `lm_head`: shapes by name."""
    hidden, width = shape.hidden, shape.width
    rows = (shape.heads * shape.dim, shape.kv_heads * shape.dim, shape.kv_heads * shape.dim)
    layer = {f"{name}.weight": [count, hidden] for name, count in zip(_PROJECTIONS, rows, strict=True)}
    layer |= {f"{name}.weight": [hidden] for name in (_BEFORE, _BETWEEN)}
    layer |= {f"{name}.weight": [width, hidden] for name in _WIDE}
    layer |= {f"{_OUTPUT}.weight": [hidden, rows[0]], f"{_NARROW}.weight": [hidden, width]}
    if shape.biased:
        layer |= {f"{name}.bias": [count] for name, count in zip(_PROJECTIONS, rows, strict=True)}
    if shape.normed:
        layer |= {f"{name}.weight": [shape.dim] for name in _HEAD_NORMS}
    found = {"embed_tokens.weight": [shape.vocabulary, hidden], "norm.weight": [hidden]}
    return found | {f"layers.{i}.{name}": sizes for i in range(shape.layers) for name, sizes in layer.items()}

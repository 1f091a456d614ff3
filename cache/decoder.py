"""The forward pass of Qwen3's kin over packed nodes, on weights that transformers loaded.

Four families differ in little: root-mean-square norms, rotary positions, grouped heads, a gated feed-forward; with or
without norms of the heads (Qwen3), biases (Qwen2), local windows (Mistral). For these, and for these only, the layers
are run here: one product makes query, key and value, one makes gate and up, what lies between is fused
(`cache.kernels`), residuals are added by the product itself, and the last layer's feed-forward runs on the few nodes
whose states are pooled. On an H100 that is the difference between half and three fifths of the matrix-product peak;
configuration, weights and rotary tables stay transformers' own, and `cache.encoder` compares the result with
transformers' before believing it. Every other architecture runs in transformers' own layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import linear

from cache.kernels import EAGER, Kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from cache.attention import Plan

FAMILIES = ("Qwen3Model", "Qwen2Model", "LlamaModel", "MistralModel")


@dataclass(frozen=True)
class _Layer:
    """One layer's weights, products joined: `qkv` [(heads + 2 kv_heads) * dim, H], `gate_up` [2 * width, H]."""

    before: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    heads_norm: Tensor | None
    output: Tensor
    output_bias: Tensor | None
    between: Tensor
    gate_up: Tensor
    down: Tensor
    scale: float
    window: int | None


class Decoder:
    """Runs the layers of a loaded model, whose own it takes apart."""

    def __init__(self, model: Any) -> None:
        """Join the weights layer by layer, freeing transformers' copies, so that memory never doubles."""
        config = model.config
        self.depth = int(config.num_hidden_layers)
        self._embedding: Tensor = model.embed_tokens.weight
        self._rotary = model.rotary_emb
        self._norm: Tensor = model.norm.weight
        self._eps = float(config.rms_norm_eps)
        attention = model.layers[0].self_attn
        self._dim = int(attention.head_dim)
        self._kv_heads = attention.k_proj.out_features // self._dim
        self._heads = attention.q_proj.out_features // self._dim
        self._layers = []
        for i in range(self.depth):
            self._layers.append(_take(model.layers[i], self._heads, self._kv_heads))
            model.layers[i] = torch.nn.Identity()

    @torch.inference_mode()
    def states(
        self,
        ids: Tensor,
        positions: Tensor,
        plan: Plan,
        at: Tensor,
        layers: Sequence[int],
        kernels: Kernels = EAGER,
    ) -> dict[int, Tensor]:
        """Return hidden state `layer` of the nodes `at` [texts], as [texts, H], for each of `layers`.

        `ids` and `positions` int64 [nodes]. Hidden state 0 is the embedding, the last is after the norm. Nothing past
        the highest layer is computed.
        """
        states = self._embedding[ids]
        cos, sin = self._tables(positions)
        found = {}
        for number, layer in enumerate(self._layers[: max(layers)]):
            if number in layers:
                found[number] = states[at]
            mixed = self._attend(layer, states, cos, sin, plan, kernels)
            if number + 1 == max(layers):
                states, mixed = states[at], mixed[at]
                kernels = EAGER  # as many nodes as texts: not the shape that was compiled
            states = self._finish(layer, states, mixed, kernels)
        if max(layers) == 0:
            states = states[at]
        found[max(layers)] = EAGER.rms_norm(states, self._norm, self._eps) if max(layers) == self.depth else states
        return found

    def _tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return transformers' rotary tables in float32 [nodes, dim], the first half of the sines negated."""
        like = torch.empty(0, dtype=torch.float32, device=positions.device)
        cos, sin = (table[0] for table in self._rotary(like, positions[None]))
        half = self._dim // 2
        return cos, torch.cat((-sin[:, :half], sin[:, half:]), dim=1)

    def _attend(self, layer: _Layer, states: Tensor, cos: Tensor, sin: Tensor, plan: Plan, kernels: Kernels) -> Tensor:
        """Return the attention output [nodes, heads * dim] before its projection."""
        normed = kernels.rms_norm(states, layer.before, self._eps)
        joint = linear(normed, layer.qkv, layer.qkv_bias).view(len(states), -1, self._dim)
        rotated = kernels.rotate(joint[:, : -self._kv_heads], cos, sin, layer.heads_norm, self._eps)
        parts = (rotated[:, : self._heads], rotated[:, self._heads :], joint[:, -self._kv_heads :])
        query, key, value = (part.transpose(0, 1)[None] for part in parts)
        return plan.attend(query, key, value, layer.scale, layer.window).reshape(len(states), -1)

    def _finish(self, layer: _Layer, states: Tensor, mixed: Tensor, kernels: Kernels) -> Tensor:
        """Return the states after projection and feed-forward; `states` is overwritten."""
        states.addmm_(mixed, layer.output.T)
        if layer.output_bias is not None:
            states += layer.output_bias
        normed = kernels.rms_norm(states, layer.between, self._eps)
        return states.addmm_(kernels.gate(linear(normed, layer.gate_up)), layer.down.T)


def _take(layer: Any, heads: int, kv_heads: int) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    biased = attention.q_proj.bias is not None
    norms = None
    if hasattr(attention, "q_norm"):
        norms = torch.cat(
            [attention.q_norm.weight.expand(heads, -1), attention.k_norm.weight.expand(kv_heads, -1)]
        ).contiguous()
    window = getattr(attention, "sliding_window", None)
    if window is None and type(attention).__name__ == "MistralAttention":
        window = getattr(attention.config, "sliding_window", None)
    return _Layer(
        before=layer.input_layernorm.weight,
        qkv=torch.cat([p.weight for p in projections]),
        qkv_bias=torch.cat([p.bias for p in projections]) if biased else None,
        heads_norm=norms,
        output=attention.o_proj.weight,
        output_bias=attention.o_proj.bias,
        between=layer.post_attention_layernorm.weight,
        gate_up=torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        down=mlp.down_proj.weight,
        scale=float(attention.scaling),
        window=window,
    )

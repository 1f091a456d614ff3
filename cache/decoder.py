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
        dim = int(attention.head_dim)
        self._heads = (attention.q_proj.out_features // dim, attention.k_proj.out_features // dim)
        self._layers = []
        for i in range(self.depth):
            self._layers.append(_take(model.layers[i], *self._heads))
            model.layers[i] = torch.nn.Identity()

    @torch.inference_mode()
    def states(
        self, ids: Tensor, positions: Tensor, plan: Any, at: Tensor, layers: Sequence[int], kernels: Kernels = EAGER
    ) -> dict[int, Tensor]:
        """Return hidden state `layer` of the nodes `at` [texts], as [texts, H], for each of `layers`.

        `ids` and `positions` [nodes]. Hidden state 0 is the embedding, the last is after the norm. Nothing past the
        highest layer is computed. `plan` is what `kernels` attend by.
        """
        states = self._embedding[ids]
        rotary = self._rotary(torch.empty(0, dtype=torch.float32, device=ids.device), positions[None])
        cos, sin = (table[0].contiguous() for table in rotary)
        highest = max(layers)
        found = {}
        for number, layer in enumerate(self._layers[:highest]):
            if number in layers:
                found[number] = states[at]
            normed = kernels.rms_norm(states, layer.before, self._eps)
            joint = linear(normed, layer.qkv, layer.qkv_bias)
            mixed = kernels.attend(
                joint, self._heads, (cos, sin), layer.heads_norm, self._eps, plan, layer.scale, layer.window
            )
            if number + 1 == highest:
                states, mixed = states[at], mixed[at]
            states.addmm_(mixed, layer.output.T)
            if layer.output_bias is not None:
                states += layer.output_bias
            normed = kernels.rms_norm(states, layer.between, self._eps)
            states.addmm_(kernels.gate(linear(normed, layer.gate_up)), layer.down.T)
        if highest == 0:
            states = states[at]
        found[highest] = kernels.rms_norm(states, self._norm, self._eps) if highest == self.depth else states
        return found


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

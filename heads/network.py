"""The head's arithmetic, for any number of seeds at once; gradients are autograd's.

The idea: a head is small, so a training step is bound by the number of operations started, not by arithmetic. Every
tensor carries a leading seed dimension, so that ten heads cost the launches of one. The alternative, modules of
`torch.nn`, would be started once per seed.

A sequence of one token attends to itself alone with weight 1, so self-attention is its value and output projections,
exactly; those two are all that is computed.

Shapes: S seeds, R rows, H feature length, W width, F feed-forward width, D embedding length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from heads.presets import HeadShape
from heads.products import linear
from heads.training.sampling import Streams

_MLP_START = 0.1  # what the MLP's last layer is multiplied by at the start


def named(flat: Tensor, shape: HeadShape) -> dict[str, Tensor]:
    """Parameters or gradients by name: views [S, ...] of flat vectors [S, P], or views [...] of one [P]."""
    return {
        slot.name: flat[..., slot.offset : slot.offset + slot.size].view(*flat.shape[:-1], *slot.shape)
        for slot in shape.tensors()
    }


def initial_weights(shape: HeadShape, streams: Sequence[Streams], start: Mapping[str, Tensor] | None = None) -> Tensor:
    """Draw each seed's first weights, float32 [S, P], on the CPU so that they are the same on every device.

    Linear maps start as torch's do, uniform within 1 / sqrt(fan-in); norms as the identity.
    """
    flat = torch.zeros(len(streams), shape.parameters)
    for s, stream in enumerate(streams):
        for slot in shape.tensors():
            part = flat[s, slot.offset : slot.offset + slot.size]
            if slot.fan_in:
                bound = slot.fan_in**-0.5
                part.uniform_(-bound, bound, generator=stream["weights"])
            elif slot.name.endswith("weight"):
                part.fill_(1)
            if start is not None and slot.name in start:
                part.copy_(start[slot.name].flatten())
            elif slot.name.startswith("mlp.contract"):  # the head starts at its linear map
                part.mul_(_MLP_START)
    return flat


def forward(weights: Mapping[str, Tensor], shape: HeadShape, inputs: Tensor, dropout: Tensor | None = None) -> Tensor:
    """Map features to concatenated blocks, not yet normalised.

    :param weights: float32, by name, [S, ...]; of one seed [...], for which the library has fused operations.
    :param inputs: L2-normalised features, float32 [S, R, H].
    :param dropout: multipliers of the feed-forward layers, float32 [S, scales, R, F]: 0 or 1 / keep; None for none.
    :returns: float32 [S, R, D].
    """

    def hidden(expand: str, rows: Tensor, layer: int) -> Tensor:
        active = functional.gelu(_linear(weights, expand, rows))
        return active if dropout is None else active * dropout[:, layer]

    projected = _linear(weights, "input", inputs)
    if shape.mlp:
        normed = functional.layer_norm(inputs, inputs.shape[2:])
        return projected + _linear(weights, "mlp.contract", hidden("mlp.expand", normed, 0))
    if not shape.transformer:
        return projected
    state, blocks = projected, []
    for scale in range(shape.scales):
        block = f"block.{0 if shape.shared else scale}"
        value = _linear(weights, f"{block}.value", _layer_norm(weights, f"{block}.norm1", state))
        state = state + _linear(weights, f"{block}.output", value)
        active = hidden(f"{block}.expand", _layer_norm(weights, f"{block}.norm2", state), scale)
        state = state + _linear(weights, f"{block}.contract", active)
        state = state.add(projected, alpha=shape.residual(scale))
        blocks.append(_linear(weights, f"scale.{scale}.linear", _layer_norm(weights, f"scale.{scale}.norm", state)))
    return torch.cat(blocks, dim=2)


def classify(weights: Mapping[str, Tensor], level: int, embeddings: Tensor) -> Tensor:
    """Score the classes of a level, [S, R, C], by LayerNorm + Linear.

    :param embeddings: normalised prefixes, zero-padded, float32 [S, R, D].
    """
    normed = _layer_norm(weights, f"classifier.{level}.norm", embeddings)
    return _linear(weights, f"classifier.{level}.linear", normed)


def logits(weights: Mapping[str, Tensor], shape: HeadShape, level: int, prefixes: Tensor) -> Tensor:
    """Score the classes of a level, [S, R, C], by normalised prefixes [S, R, d], whichever classifier the head has."""
    dim = prefixes.shape[2]
    if shape.proxy_temperature is None:
        return classify(weights, level, functional.pad(prefixes, (0, shape.dim - dim)))
    proxies = functional.normalize(weights[f"proxies.{level}"][..., :dim], dim=-1)
    return torch.matmul(prefixes, proxies.mT) / shape.proxy_temperature


def _linear(weights: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if weight.dim() == 2:
        return linear(rows, weight, bias)
    return torch.baddbmm(bias[:, None], rows, weight.mT)


def _layer_norm(weights: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor:
    gain, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if gain.dim() == 1:
        return functional.layer_norm(rows, gain.shape, gain, shift)
    return torch.addcmul(shift[:, None], functional.layer_norm(rows, rows.shape[2:]), gain[:, None])

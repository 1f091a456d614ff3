"""The head's arithmetic, forward and backward, for any number of seeds at once.

The idea: a head is small, so a training step is bound by the number of operations started, not by arithmetic. Here the
gradient is written out by hand: no graph of operations is recorded, every gradient is written straight to its place in
one flat vector, and every tensor carries a leading seed dimension, so that ten heads cost the launches of one. It costs
this file: whoever changes the forward pass must change the backward pass with it (a test compares it with autograd).
The alternative, autograd on `torch.nn` modules, starts three times as many operations.

A sequence of one token attends to itself alone with weight 1, so self-attention is its value and output projections,
exactly; those two are all that is computed.

Shapes: S seeds, R rows, H feature length, W width, F feed-forward width, D embedding length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from heads.presets import HeadShape

EPSILON = 1e-5  # of LayerNorm, torch's default

Tensors = Mapping[str, Tensor]


def views(flat: Tensor, shape: HeadShape) -> dict[str, Tensor]:
    """Name the tensors of flat parameters (or gradients) [S, P]: views [S, ...] of the same memory."""
    return {slot.name: flat[:, slot.offset : slot.offset + slot.size].view(-1, *slot.shape) for slot in shape.tensors()}


class _Normed(NamedTuple):
    """What LayerNorm's backward pass needs: its input, the same standardised (with several seeds), the statistics."""

    inputs: Tensor
    standard: Tensor
    mean: Tensor
    rstd: Tensor


class _Block(NamedTuple):
    """What the backward pass of one scale needs."""

    norm1: _Normed
    normed1: Tensor
    value: Tensor
    norm2: _Normed
    normed2: Tensor
    expanded: Tensor
    active: Tensor
    norm3: _Normed
    normed3: Tensor


class Tape(NamedTuple):
    """What the backward pass of a head needs."""

    inputs: Tensor
    scales: list[_Block]
    dropout: Tensor | None


def forward(weights: Tensors, shape: HeadShape, inputs: Tensor, dropout: Tensor | None = None) -> tuple[Tensor, Tape]:
    """Map features to concatenated blocks, not yet normalised.

    :param weights: tensors by name, [S, ...] float32.
    :param inputs: L2-normalised features, float32 [S, R, H].
    :param dropout: multipliers of the feed-forward layers, float32 [S, scales, R, F]: 0 or 1 / keep; None for none.
    :returns: float32 [S, R, D], and what `backward` needs.
    """
    projected = _linear(weights, "input", inputs)
    if not shape.transformer:
        return projected, Tape(inputs, [], None)
    state, tape, outputs = projected, [], []
    for scale in range(shape.scales):
        block = f"block.{0 if shape.shared else scale}"
        normed1, norm1 = _layer_norm(weights, f"{block}.norm1", state)
        value = _linear(weights, f"{block}.value", normed1)
        state = state + _linear(weights, f"{block}.output", value)
        normed2, norm2 = _layer_norm(weights, f"{block}.norm2", state)
        expanded = _linear(weights, f"{block}.expand", normed2)
        active = functional.gelu(expanded)
        if dropout is not None:
            active = active * dropout[:, scale]
        state = state + _linear(weights, f"{block}.contract", active)
        state.add_(projected, alpha=shape.residual(scale))
        normed3, norm3 = _layer_norm(weights, f"scale.{scale}.norm", state)
        outputs.append(_linear(weights, f"scale.{scale}.linear", normed3))
        tape.append(_Block(norm1, normed1, value, norm2, normed2, expanded, active, norm3, normed3))
    return torch.cat(outputs, dim=2), Tape(inputs, tape, dropout)


def backward(weights: Tensors, grads: Tensors, shape: HeadShape, tape: Tape, upstream: Tensor) -> None:
    """Write the gradients of every tensor that `forward` used into `grads`, over what stands there.

    :param upstream: gradient of the loss by the concatenated blocks, float32 [S, R, D].
    """
    if not shape.transformer:
        _linear_grads(grads, "input", tape.inputs, upstream, add=False)
        return
    by_state = torch.zeros_like(tape.scales[-1].normed3)
    by_projected = torch.zeros_like(by_state)
    for scale in reversed(range(shape.scales)):
        block, kept = f"block.{0 if shape.shared else scale}", tape.scales[scale]
        add = shape.shared and scale < shape.scales - 1
        by_block = upstream[:, :, scale * shape.scale_dim : (scale + 1) * shape.scale_dim].contiguous()
        by_normed = _linear_backward(weights, grads, f"scale.{scale}.linear", kept.normed3, by_block, add=False)
        by_normed = _layer_norm_backward(weights, grads, f"scale.{scale}.norm", kept.norm3, by_normed, add=False)
        by_state = by_normed.add_(by_state)
        by_projected.add_(by_state, alpha=shape.residual(scale))

        by_active = _linear_backward(weights, grads, f"{block}.contract", kept.active, by_state, add=add)
        if tape.dropout is not None:
            by_active.mul_(tape.dropout[:, scale])
        by_expanded = torch.ops.aten.gelu_backward(by_active, kept.expanded)
        by_normed = _linear_backward(weights, grads, f"{block}.expand", kept.normed2, by_expanded, add=add)
        by_state = by_state + _layer_norm_backward(weights, grads, f"{block}.norm2", kept.norm2, by_normed, add=add)

        by_value = _linear_backward(weights, grads, f"{block}.output", kept.value, by_state, add=add)
        by_normed = _linear_backward(weights, grads, f"{block}.value", kept.normed1, by_value, add=add)
        by_state = by_state + _layer_norm_backward(weights, grads, f"{block}.norm1", kept.norm1, by_normed, add=add)
    _linear_grads(grads, "input", tape.inputs, by_projected.add_(by_state), add=False)


class ClassifierTape(NamedTuple):
    """What the backward pass of one level's classifier needs."""

    norm: _Normed
    normed: Tensor


def classify(weights: Tensors, level: int, embeddings: Tensor) -> tuple[Tensor, ClassifierTape]:
    """Score the classes of a level: LayerNorm + Linear.

    :param embeddings: normalised prefixes, zero-padded, float32 [S, R, D].
    :returns: logits [S, R, C], and what `classify_backward` needs.
    """
    normed, norm = _layer_norm(weights, f"classifier.{level}.norm", embeddings)
    return _linear(weights, f"classifier.{level}.linear", normed), ClassifierTape(norm, normed)


def classify_backward(weights: Tensors, grads: Tensors, level: int, tape: ClassifierTape, upstream: Tensor) -> Tensor:
    """Write the gradients of a level's classifier into `grads`; return those by the embeddings, [S, R, D]."""
    by_normed = _linear_backward(weights, grads, f"classifier.{level}.linear", tape.normed, upstream, add=False)
    return _layer_norm_backward(weights, grads, f"classifier.{level}.norm", tape.norm, by_normed, add=False)


def logits(weights: Tensors, shape: HeadShape, level: int, prefixes: Tensor) -> Tensor:
    """Score the classes of a level, [S, R, C], by normalised prefixes [S, R, d], whichever classifier the head has."""
    dim = prefixes.shape[2]
    if shape.proxy_temperature is None:
        return classify(weights, level, functional.pad(prefixes, (0, shape.dim - dim)))[0]
    proxies = functional.normalize(weights[f"proxies.{level}"][:, :, :dim], dim=2)
    return torch.bmm(prefixes, proxies.mT) / shape.proxy_temperature


def _linear(weights: Tensors, name: str, inputs: Tensor) -> Tensor:
    return torch.baddbmm(weights[f"{name}.bias"][:, None], inputs, weights[f"{name}.weight"].mT)


def _linear_grads(grads: Tensors, name: str, inputs: Tensor, upstream: Tensor, *, add: bool) -> None:
    weight, bias = grads[f"{name}.weight"], grads[f"{name}.bias"]
    if add:
        torch.baddbmm(weight, upstream.mT, inputs, out=weight)
        bias.add_(upstream.sum(1))
    else:
        torch.bmm(upstream.mT, inputs, out=weight)
        torch.sum(upstream, 1, out=bias)


def _linear_backward(
    weights: Tensors, grads: Tensors, name: str, inputs: Tensor, upstream: Tensor, *, add: bool
) -> Tensor:
    _linear_grads(grads, name, inputs, upstream, add=add)
    return torch.bmm(upstream, weights[f"{name}.weight"])


def _layer_norm(weights: Tensors, name: str, inputs: Tensor) -> tuple[Tensor, _Normed]:
    """Normalise rows; one seed takes the library's fused operation, several have a gain and a shift each."""
    gain, shift, size = weights[f"{name}.weight"], weights[f"{name}.bias"], [inputs.shape[-1]]
    if len(gain) == 1:
        outputs, mean, rstd = torch.native_layer_norm(inputs, size, gain[0], shift[0], EPSILON)
        return outputs, _Normed(inputs, outputs, mean, rstd)
    standard, mean, rstd = torch.native_layer_norm(inputs, size, None, None, EPSILON)
    return torch.addcmul(shift[:, None], standard, gain[:, None]), _Normed(inputs, standard, mean, rstd)


def _layer_norm_backward(
    weights: Tensors, grads: Tensors, name: str, kept: _Normed, upstream: Tensor, *, add: bool
) -> Tensor:
    gain, shift, size = weights[f"{name}.weight"], weights[f"{name}.bias"], [upstream.shape[-1]]
    backward_of_rows = torch.ops.aten.native_layer_norm_backward
    if len(gain) == 1:
        by_inputs, by_gain, by_shift = backward_of_rows(
            upstream, kept.inputs, size, kept.mean, kept.rstd, gain[0], shift[0], [True, True, True]
        )
    else:
        scaled = upstream * gain[:, None]
        by_inputs, _, _ = backward_of_rows(
            scaled, kept.inputs, size, kept.mean, kept.rstd, None, None, [True, False, False]
        )
        by_gain, by_shift = (upstream * kept.standard).sum(1), upstream.sum(1)
    for part, new in (("weight", by_gain), ("bias", by_shift)):
        if add:
            grads[f"{name}.{part}"].add_(new)
        else:
            grads[f"{name}.{part}"].copy_(new)
    return cast(Tensor, by_inputs)

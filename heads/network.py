"""The head's arithmetic, for any number of seeds at once; gradients are autograd's.

The idea: a head is small, so a training step is bound by the number of operations started, not by arithmetic. Every
tensor carries a leading seed dimension, so that ten heads cost the launches of one. The alternative, modules of
`torch.nn`, would be started once per seed.

A sequence of one token attends to itself alone with weight 1, so self-attention is its value and output projections,
exactly; those two are all that is computed.

Products on a CPU are oneDNN's (`linear`). torch multiplies float32 by MKL there, which uses half the vector width of an
AMD processor: some 100 GFLOP/s on a core of an EPYC (Zen 5), where oneDNN reaches 200 on the shapes of a training step.
torch brings oneDNN along for bfloat16 and for what its compiler makes of float32. The operation is the compiler's and
has no gradient of its own; a linear map's gradients are two more products. On a GPU, or where torch has no such
operation, torch's own products are taken.

Shapes: S seeds, R rows, H feature length, W width, F feed-forward width, D embedding length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from heads.presets import HeadShape
from heads.training.sampling import Streams

_MLP_START = 0.1  # what the MLP's last layer is multiplied by at the start
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # builds for some processors have none


def named(flat: Tensor, shape: HeadShape) -> dict[str, Tensor]:
    """Parameters or gradients by name: views [S, ...] of flat vectors [S, P], or views [...] of one [P]."""
    return {
        slot.name: flat[..., slot.offset : slot.offset + slot.size].view(*flat.shape[:-1], *slot.shape)
        for slot in shape.tensors
    }


def initial_weights(shape: HeadShape, streams: Sequence[Streams], start: Mapping[str, Tensor] | None = None) -> Tensor:
    """Draw each seed's first weights, float32 [S, P], on the CPU so that they are the same on every device.

    Linear maps start as torch's do, uniform within 1 / sqrt(fan-in); norms as the identity.
    """
    flat = torch.zeros(len(streams), shape.parameters)
    for s, stream in enumerate(streams):
        for slot in shape.tensors:
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
        active = functional.gelu(_affine(weights, expand, rows))
        return active if dropout is None else active * dropout[:, layer]

    projected = _affine(weights, "input", inputs)
    if shape.mlp:
        normed = functional.layer_norm(inputs, inputs.shape[2:])
        return projected + _affine(weights, "mlp.contract", hidden("mlp.expand", normed, 0))
    if not shape.transformer:
        return projected
    state, blocks = projected, []
    for scale in range(shape.scales):
        block = f"block.{0 if shape.shared else scale}"
        value = _affine(weights, f"{block}.value", _layer_norm(weights, f"{block}.norm1", state))
        state = state + _affine(weights, f"{block}.output", value)
        active = hidden(f"{block}.expand", _layer_norm(weights, f"{block}.norm2", state), scale)
        state = state + _affine(weights, f"{block}.contract", active)
        state = state.add(projected, alpha=shape.residual(scale))
        blocks.append(_affine(weights, f"scale.{scale}.linear", _layer_norm(weights, f"scale.{scale}.norm", state)))
    return torch.cat(blocks, dim=2)


def classify(weights: Mapping[str, Tensor], level: int, embeddings: Tensor) -> Tensor:
    """Score the classes of a level, [S, R, C], by LayerNorm + Linear.

    :param embeddings: normalised prefixes, zero-padded, float32 [S, R, D].
    """
    normed = _layer_norm(weights, f"classifier.{level}.norm", embeddings)
    return _affine(weights, f"classifier.{level}.linear", normed)


def logits(weights: Mapping[str, Tensor], shape: HeadShape, level: int, prefixes: Tensor) -> Tensor:
    """Score the classes of a level, [S, R, C], by normalised prefixes [S, R, d], whichever classifier the head has."""
    dim = prefixes.shape[2]
    if shape.proxy_temperature is None:
        return classify(weights, level, functional.pad(prefixes, (0, shape.dim - dim)))
    proxies = functional.normalize(weights[f"proxies.{level}"][..., :dim], dim=-1)
    return torch.matmul(prefixes, proxies.mT) / shape.proxy_temperature


def _affine(weights: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if weight.dim() == 2:
        return linear(rows, weight, bias)
    return torch.baddbmm(bias[:, None], rows, weight.mT)


def _layer_norm(weights: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor:
    gain, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if gain.dim() == 1:
        return functional.layer_norm(rows, gain.shape, gain, shift)
    return torch.addcmul(shift[:, None], functional.layer_norm(rows, rows.shape[2:]), gain[:, None])


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return rows [..., k] times weight.mT plus bias: [..., m], for weight [m, k] and bias [m], float32."""
    plain = rows.device.type != "cpu" or rows.dtype != torch.float32 or rows.dim() < 2 or not rows.numel()
    if _ONEDNN is None or plain:
        return functional.linear(rows, weight, bias)
    found: Tensor = _Linear.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    return found


class _Linear(Function):
    """`functional.linear` and its gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply, and keep what the gradients need."""
        rows, weight = _dense(rows), _dense(weight)
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients by rows, weight and bias, each where it is asked for."""
        rows, weight = ctx.saved_tensors
        by_rows, by_weight, by_bias = ctx.needs_input_grad
        grad = _dense(grad)
        flat = grad.reshape(-1, grad.shape[-1])
        return (
            _product(grad, weight.mT) if by_rows else None,
            _product(flat.mT, rows.reshape(len(flat), -1).mT) if by_weight else None,
            flat.sum(0) if by_bias else None,
        )


def _dense(matrix: Tensor) -> Tensor:
    """The same without gaps between rows: oneDNN takes a thousand times as long over part of a wider matrix."""
    return matrix if matrix.is_contiguous() or matrix.mT.is_contiguous() else matrix.contiguous()


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    assert _ONEDNN is not None
    found: Tensor = _ONEDNN(rows, weight, bias, "none", [], "")
    return found

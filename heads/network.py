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

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from heads.presets import HeadShape

EPSILON = 1e-5  # of LayerNorm, torch's default

_layer_norm_backward_op = torch.ops.aten.native_layer_norm_backward.default
_gelu_backward_op = torch.ops.aten.gelu_backward.default


class _Linear(NamedTuple):
    """Weight [S, out, in] and bias [S, out] of a linear map, and as a product with rows takes them."""

    weight: Tensor
    bias: Tensor
    transposed: Tensor
    row: Tensor


class _Norm(NamedTuple):
    """Gain and shift [S, width] of a LayerNorm, those of the first seed [width], and the width as a list."""

    gain: Tensor
    shift: Tensor
    first_gain: Tensor
    first_shift: Tensor
    size: list[int]


class Tensors(dict[str, Tensor]):
    """Parameters or gradients by name, views [S, ...] of one flat vector, and the layers that they make up.

    A step uses every layer some times, and making a view costs it as much as adding two small tensors: some hundredths
    of its time on a CPU. They are made once.
    """

    def __init__(self, flat: Tensor, shape: HeadShape) -> None:
        """View `flat`, [S, P]."""
        super().__init__(
            {
                slot.name: flat[:, slot.offset : slot.offset + slot.size].view(-1, *slot.shape)
                for slot in shape.tensors()
            }
        )
        self.linear: dict[str, _Linear] = {}
        self.norm: dict[str, _Norm] = {}
        for name in (name.removesuffix(".weight") for name in self if name.endswith(".weight")):
            weight, bias = self[f"{name}.weight"], self[f"{name}.bias"]
            if weight.dim() == 3:
                self.linear[name] = _Linear(weight, bias, weight.mT, bias[:, None])
            else:
                self.norm[name] = _Norm(weight, bias, weight[0], bias[0], [weight.shape[1]])


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


class _Mlp(NamedTuple):
    """What the backward pass of the MLP needs; its LayerNorm has no weights, and nothing is learnt from its input."""

    normed: Tensor
    expanded: Tensor
    active: Tensor


class Tape(NamedTuple):
    """What the backward pass of a head needs."""

    inputs: Tensor
    scales: list[_Block]
    dropout: Tensor | None
    mlp: _Mlp | None = None


def forward(weights: Tensors, shape: HeadShape, inputs: Tensor, dropout: Tensor | None = None) -> tuple[Tensor, Tape]:
    """Map features to concatenated blocks, not yet normalised.

    :param weights: float32.
    :param inputs: L2-normalised features, float32 [S, R, H].
    :param dropout: multipliers of the feed-forward layers, float32 [S, scales, R, F]: 0 or 1 / keep; None for none.
    :returns: float32 [S, R, D], and what `backward` needs.
    """
    projected = _linear(weights, "input", inputs)
    if shape.mlp:
        normed = functional.layer_norm(inputs, [shape.inputs], eps=EPSILON)
        expanded = _linear(weights, "mlp.expand", normed)
        active = functional.gelu(expanded)
        if dropout is not None:
            active = active * dropout[:, 0]
        outputs = _linear(weights, "mlp.contract", active).add_(projected)
        return outputs, Tape(inputs, [], dropout, _Mlp(normed, expanded, active))
    if not shape.transformer:
        return projected, Tape(inputs, [], None)
    state, tape, blocks = projected, [], []
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
        blocks.append(_linear(weights, f"scale.{scale}.linear", normed3))
        tape.append(_Block(norm1, normed1, value, norm2, normed2, expanded, active, norm3, normed3))
    return torch.cat(blocks, dim=2), Tape(inputs, tape, dropout)


class _OfLinear(NamedTuple):
    """What a use of a linear map adds to its gradient: input and upstream gradient, [S, R, ...]."""

    inputs: Tensor
    upstream: Tensor

    def write(self, grads: Tensors, name: str, *, add: bool) -> None:
        weight, bias, _, _ = grads.linear[name]
        if add:
            torch.baddbmm(weight, self.upstream.mT, self.inputs, out=weight)
            bias.add_(self.upstream.sum(1))
        else:
            torch.bmm(self.upstream.mT, self.inputs, out=weight)
            torch.sum(self.upstream, 1, out=bias)


class _OfNorm(NamedTuple):
    """What a use of a LayerNorm adds to its gradient: by gain and shift, [S, width] or [width]."""

    by_gain: Tensor
    by_shift: Tensor

    def write(self, grads: Tensors, name: str, *, add: bool) -> None:
        of_layer = grads.norm[name]
        for part, new in ((of_layer.gain, self.by_gain), (of_layer.shift, self.by_shift)):
            if add:
                part.add_(new)
            else:
                part.copy_(new)


class Uses:
    """What every use of every linear map and LayerNorm adds to its gradient, by name, not added up yet.

    Adding up is most of the arithmetic and needs nothing but itself, so that it can be shared out by names.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, list[_OfLinear | _OfNorm]] = {}

    @property
    def names(self) -> list[str]:
        """Names of what was used."""
        return list(self._by_name)

    def add(self, name: str, use: _OfLinear | _OfNorm) -> None:
        """Note a use."""
        self._by_name.setdefault(name, []).append(use)

    def with_more(self, more: Uses) -> Uses:
        """Return these uses followed by those of other rows."""
        both = Uses()
        both._by_name = {name: [*uses, *more._by_name[name]] for name, uses in self._by_name.items()}
        return both

    def write(self, grads: Tensors, names: Sequence[str] | None = None) -> None:
        """Write the gradients of `names`, by default all, over what stands in `grads`."""
        for name in self._by_name if names is None else names:
            for count, use in enumerate(self._by_name[name]):
                use.write(grads, name, add=count > 0)


def backward(weights: Tensors, grads: Tensors, shape: HeadShape, tape: Tape, upstream: Tensor) -> None:
    """Write the gradients of every tensor that `forward` used into `grads`, over what stands there.

    :param upstream: gradient of the loss by the concatenated blocks, float32 [S, R, D].
    """
    propagate(weights, shape, tape, upstream).write(grads)


def propagate(weights: Tensors, shape: HeadShape, tape: Tape, upstream: Tensor) -> Uses:
    """Carry the gradient back through the head; what it does to each tensor is left to be added up."""
    uses = Uses()
    if tape.mlp is not None:
        by_active = _linear_backward(weights, uses, "mlp.contract", tape.mlp.active, upstream)
        if tape.dropout is not None:
            by_active.mul_(tape.dropout[:, 0])
        uses.add("mlp.expand", _OfLinear(tape.mlp.normed, _gelu_backward_op(by_active, tape.mlp.expanded)))
    if not shape.transformer:
        uses.add("input", _OfLinear(tape.inputs, upstream))
        return uses
    by_state = torch.zeros_like(tape.scales[-1].normed3)
    by_projected = torch.zeros_like(by_state)
    for scale in reversed(range(shape.scales)):
        block, kept = f"block.{0 if shape.shared else scale}", tape.scales[scale]
        by_block = upstream[:, :, scale * shape.scale_dim : (scale + 1) * shape.scale_dim].contiguous()
        by_normed = _linear_backward(weights, uses, f"scale.{scale}.linear", kept.normed3, by_block)
        # a gradient that was noted is read when all is added up: from here on nothing noted is changed
        by_state = by_state + _layer_norm_backward(weights, uses, f"scale.{scale}.norm", kept.norm3, by_normed)
        by_projected.add_(by_state, alpha=shape.residual(scale))

        by_active = _linear_backward(weights, uses, f"{block}.contract", kept.active, by_state)
        if tape.dropout is not None:
            by_active.mul_(tape.dropout[:, scale])
        by_expanded = _gelu_backward_op(by_active, kept.expanded)
        by_normed = _linear_backward(weights, uses, f"{block}.expand", kept.normed2, by_expanded)
        by_state = by_state + _layer_norm_backward(weights, uses, f"{block}.norm2", kept.norm2, by_normed)

        by_value = _linear_backward(weights, uses, f"{block}.output", kept.value, by_state)
        by_normed = _linear_backward(weights, uses, f"{block}.value", kept.normed1, by_value)
        by_state = by_state + _layer_norm_backward(weights, uses, f"{block}.norm1", kept.norm1, by_normed)
    uses.add("input", _OfLinear(tape.inputs, by_projected.add_(by_state)))
    return uses


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
    uses = Uses()
    by_normed = _linear_backward(weights, uses, f"classifier.{level}.linear", tape.normed, upstream)
    by_inputs = _layer_norm_backward(weights, uses, f"classifier.{level}.norm", tape.norm, by_normed)
    uses.write(grads)
    return by_inputs


def logits(weights: Tensors, shape: HeadShape, level: int, prefixes: Tensor) -> Tensor:
    """Score the classes of a level, [S, R, C], by normalised prefixes [S, R, d], whichever classifier the head has."""
    dim = prefixes.shape[2]
    if shape.proxy_temperature is None:
        return classify(weights, level, functional.pad(prefixes, (0, shape.dim - dim)))[0]
    proxies = functional.normalize(weights[f"proxies.{level}"][:, :, :dim], dim=2)
    return torch.bmm(prefixes, proxies.mT) / shape.proxy_temperature


def _linear(weights: Tensors, name: str, inputs: Tensor) -> Tensor:
    layer = weights.linear[name]
    return torch.baddbmm(layer.row, inputs, layer.transposed)


def _linear_backward(weights: Tensors, uses: Uses, name: str, inputs: Tensor, upstream: Tensor) -> Tensor:
    uses.add(name, _OfLinear(inputs, upstream))
    return torch.bmm(upstream, weights.linear[name].weight)


def _layer_norm(weights: Tensors, name: str, inputs: Tensor) -> tuple[Tensor, _Normed]:
    """Normalise rows; one seed takes the library's fused operation, several have a gain and a shift each."""
    gain, shift, first_gain, first_shift, size = weights.norm[name]
    if len(gain) == 1:
        outputs, mean, rstd = torch.native_layer_norm(inputs, size, first_gain, first_shift, EPSILON)
        return outputs, _Normed(inputs, outputs, mean, rstd)
    standard, mean, rstd = torch.native_layer_norm(inputs, size, None, None, EPSILON)
    return torch.addcmul(shift[:, None], standard, gain[:, None]), _Normed(inputs, standard, mean, rstd)


def _layer_norm_backward(weights: Tensors, uses: Uses, name: str, kept: _Normed, upstream: Tensor) -> Tensor:
    gain, _, first_gain, first_shift, size = weights.norm[name]
    if len(gain) == 1:
        by_inputs, by_gain, by_shift = _layer_norm_backward_op(
            upstream, kept.inputs, size, kept.mean, kept.rstd, first_gain, first_shift, [True, True, True]
        )
    else:
        scaled = upstream * gain[:, None]
        by_inputs, _, _ = _layer_norm_backward_op(
            scaled, kept.inputs, size, kept.mean, kept.rstd, None, None, [True, False, False]
        )
        by_gain, by_shift = (upstream * kept.standard).sum(1), upstream.sum(1)
    uses.add(name, _OfNorm(by_gain, by_shift))
    return cast(Tensor, by_inputs)

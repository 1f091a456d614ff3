"""Matrix products of a head on a CPU, by oneDNN.

torch multiplies float32 by MKL there, which uses half the vector width of an AMD processor: some 100 GFLOP/s on a core
of an EPYC (Zen 5), where oneDNN reaches 200 on the shapes of a training step. torch brings oneDNN along for bfloat16
and for what its compiler makes of float32. The operation is the compiler's and has no gradient of its own; a linear
map's gradients are two more products. On a GPU, or where torch has no such operation, torch's own products are taken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # builds for some processors have none


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

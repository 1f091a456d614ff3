"""What a decoder layer does between its matrix products: three functions, each one pass over memory when compiled.

Eagerly they cost a kernel an operation, some twenty a layer; compiled (a few seconds, kept between processes by torch's
own cache) each becomes one kernel that reads its input once and computes in float32, whatever it reads and writes.
Compiling the pieces rather than the layer leaves the products to cuBLAS, which adds a residual in place: compiled as a
whole, a layer copies it first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import silu

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return states [..., H] over their root mean square, times `weight` [H]."""
    exact = states.float()
    return (exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps) * weight.float()).to(states.dtype)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Return heads [nodes, heads, dim] rotated by position, normalised first where there is a `weight` [heads, dim].

    `cos` and `sin` float32 [nodes, dim]; the first half of `sin` is negated already. Halves are swapped by an index,
    not by concatenation, so that the compiled kernel reads a row once.
    """
    exact = heads.float()
    if weight is not None:
        exact = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps) * weight.float()
    halves = exact.view(*exact.shape[:-1], 2, -1)
    swapped = halves.flip(-2).view(exact.shape)
    return (exact * cos[:, None] + swapped * sin[:, None]).to(heads.dtype)


def gate(both: Tensor) -> Tensor:
    """Return silu(first half) * second half of [nodes, 2 * width]."""
    first, second = both.chunk(2, dim=-1)
    return (silu(first.float()) * second.float()).to(both.dtype)


@dataclass(frozen=True)
class Kernels:
    """The three functions, eager or compiled."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    rotate: Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]
    gate: Callable[[Tensor], Tensor]


EAGER = Kernels(rms_norm, rotate, gate)


def compiled() -> Kernels:
    """Return the functions compiled for the one shape that they will see."""
    return Kernels(*(torch.compile(function, dynamic=False) for function in (rms_norm, rotate, gate)))

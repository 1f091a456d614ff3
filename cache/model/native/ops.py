"""What a decoder layer does between its matrix products, in plain torch: the reference, and what runs on the CPU.

Eagerly these cost a kernel an operation, some twenty a layer; on a GPU `cache.model.native.triton_ops` does each in
one. Both compute in float32, whatever they read and write.

Rotary positions: the angles by which a decoder turns its heads at each depth (Su et al. 2021, section 3.2.2).

Plain ones take one line; of the scaled kinds whose frequencies do not depend on a batch's length, transformers'
own functions say the frequencies, so that there is one definition of each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from cache.model.native.config import DecoderShape

_CACHED_ROWS = 64


class Rotary:
    """Frequencies float32 [dim / 2] and the factor by which cosines and sines are scaled."""

    def __init__(self, frequencies: Tensor, factor: float = 1.0) -> None:
        self._frequencies = frequencies
        self._factor = factor

    @classmethod
    def of(cls, shape: DecoderShape, folder: Path, device: str) -> Rotary:
        """Return the rotary positions of a checkpoint in `folder`."""
        if shape.rope == "default":
            steps = torch.arange(0, shape.dim, 2, dtype=torch.int64).float() / shape.dim
            return cls((1.0 / shape.theta**steps).to(device))
        from transformers import AutoConfig
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        frequencies, factor = ROPE_INIT_FUNCTIONS[shape.rope](config, torch.device("cpu"))
        return cls(frequencies.float().to(device), float(factor))

    def tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines float32 [nodes, dim] at `positions` [nodes]; the second half repeats the first."""
        angles = positions[:, None].float() * self._frequencies
        both = torch.cat((angles, angles), dim=-1)
        return both.cos() * self._factor, both.sin() * self._factor


# cosines and sines float32 [nodes, dim], of which the second half repeats the first
RotaryTables = tuple["Tensor", "Tensor"]


def rotate(heads: Tensor, rotary: RotaryTables) -> Tensor:
    """Return heads [nodes, heads, dim] turned by their nodes' positions."""
    first, second = heads.float().chunk(2, dim=-1)
    half = first.shape[-1]
    cos, sin = (table[:, None, :half] for table in rotary)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(heads.dtype)


class Kernels:
    """What a decoder runs on; on a GPU `cache.model.native.triton_ops.FusedKernels` takes its place."""

    def rms_norm(self, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return states [..., H] over their root mean square, times `weight` [H] or [..., H]."""
        exact = states.float()
        return (exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps) * weight.float()).to(states.dtype)

    def gate(self, both: Tensor) -> Tensor:
        """Return silu(first half) * second half of [nodes, 2 * width].

        On the CPU a few rows at once, whose float32 values stay in the cache: the same bits.
        """
        rows = _CACHED_ROWS if both.device.type == "cpu" else len(both)
        halves = (part.chunk(2, dim=-1) for part in torch.split(both, rows))
        return torch.cat([(silu(first.float()) * second.float()).to(both.dtype) for first, second in halves])

    def attend(
        self,
        joint: Tensor,
        heads: tuple[int, int],
        rotary: RotaryTables,
        norms: Tensor | None,
        eps: float,
        plan: Any,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """Return the attention output [nodes, heads * dim] of `joint`, which may be overwritten.

        `joint` [nodes, (heads + 2 kv_heads) * dim] holds query, key and value; `heads` are (heads, kv_heads). Queries
        and keys are normalised first where there are `norms` [heads + kv_heads, dim]. Who sees whom is for `plan` to
        say, here a `cache.model.attention.Plan`.
        """
        query_heads, kv_heads = heads
        parts = joint.view(len(joint), query_heads + 2 * kv_heads, -1)
        turned = parts[:, :-kv_heads]
        turned = rotate(turned if norms is None else self.rms_norm(turned, norms, eps), rotary)
        query, key, value = (
            part.transpose(0, 1)[None]
            for part in (turned[:, :query_heads], turned[:, query_heads:], parts[:, -kv_heads:])
        )
        attended: Tensor = plan.attend(query, key, value, scale, window)
        return attended.reshape(len(joint), -1)


EAGER = Kernels()

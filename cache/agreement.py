"""When two ways to compute the same features count as equal: what rounding alone may do in a number format."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}


def agree(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether the largest relative difference of features [..., H], computed in `dtype`, is rounding."""
    return bool(((one - other).norm(dim=-1) <= _TOLERANCE[dtype] * other.norm(dim=-1)).all())

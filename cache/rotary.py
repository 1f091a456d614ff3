"""Rotary positions: the angles by which a decoder turns its heads at each depth (Su et al. 2021, section 3.2.2).

Plain ones take one line; of the scaled kinds whose frequencies do not depend on a batch's length, transformers'
own functions say the frequencies, so that there is one definition of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from cache.shapes import DecoderShape


class Rotary:
    """Frequencies float32 [dim / 2] and the factor by which cosines and sines are scaled."""

    def __init__(self, frequencies: Tensor, factor: float = 1.0) -> None:
        """Keep them on their device."""
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

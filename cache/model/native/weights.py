"""A checkpoint's tensors by name, read from its safetensors files straight to the device, one when it is asked for.

Nothing is pickled and nothing held twice: a layer's matrices are joined as they come. The alternative, building
transformers' model first and taking it apart, costs its import.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor


class Weights:
    """Tensors of some safetensors files, without the prefix that a model with a task's head puts before names."""

    def __init__(self, files: Sequence[Path], prefix: str, dtype: torch.dtype, device: str) -> None:
        """Open `files`; tensors come as `dtype` on `device`. `prefix` is dropped from names that have it."""
        self._dtype = dtype
        self._files: list[Any] = [safe_open(file, framework="pt", device=device) for file in files]
        self._places: dict[str, tuple[Any, str]] = {
            name.removeprefix(prefix): (file, name)
            for file in self._files
            for name in file.keys()  # noqa: SIM118
        }

    def names(self) -> set[str]:
        """Return every tensor's name."""
        return set(self._places)

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor.

        :raises KeyError: there is none of that name.
        """
        file, full = self._places[name]
        tensor: Tensor = file.get_tensor(full)
        return tensor.to(self._dtype)

    def shape(self, name: str) -> list[int]:
        """Return a tensor's shape without reading it."""
        file, full = self._places[name]
        return [int(size) for size in file.get_slice(full).get_shape()]

    def joined(self, names: Sequence[str]) -> Tensor:
        """Return some tensors below one another."""
        return torch.cat([self[name] for name in names])

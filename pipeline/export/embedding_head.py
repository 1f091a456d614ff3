"""The head of this model: pooled features of length one in, embeddings out. Needs sentence-transformers alone.

`pipeline export` writes this file into the folder of a model whose head is more than one linear map. It holds the
modules of the trained head under their names in `model.safetensors`, and no other behaviour.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Module
from torch import Tensor, nn


class Block(nn.Module):
    """A pre-norm transformer block of a sequence of one: attention to itself is a value and an output projection."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, state: Tensor) -> Tensor:
        """Float32 [n, width] to the same."""
        state = state + self.output(self.value(self.norm1(state)))
        state = state + self.contract(nn.functional.gelu(self.expand(self.norm2(state))))
        return state


class Scale(nn.Module):
    """LayerNorm and a linear map to one block of the embedding."""

    def __init__(self, width: int, scale_dim: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, scale_dim)

    def forward(self, state: Tensor) -> Tensor:
        """Float32 [n, width] to [n, scale_dim]."""
        block: Tensor = self.linear(self.norm(state))
        return block


class _Head(Module):  # type: ignore[misc]
    """Saved and loaded by configuration and weights; subclasses name the keys of the configuration."""

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write configuration and weights, and this file beside the folder: that is where it is looked for."""
        shutil.copyfile(__file__, Path(output_path).parent / Path(__file__).name)
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Any:
        """Read them from a folder or a hub repository."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        where = {name: kwargs[name] for name in names if name in kwargs}
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **where)
        return cls.load_torch_weights(model_name_or_path, subfolder=subfolder, model=cls(**config), **where)


class EmbeddingHead(_Head):
    """Transformer blocks: features [n, inputs] to embeddings [n, scales * scale_dim], not normalised."""

    config_keys = ("inputs", "width", "hidden", "scales", "scale_dim", "blocks", "residuals")

    def __init__(
        self, inputs: int, width: int, hidden: int, scales: int, scale_dim: int, blocks: int, residuals: list[float]
    ) -> None:
        super().__init__()
        self.inputs, self.width, self.hidden, self.blocks = inputs, width, hidden, blocks
        self.scales, self.scale_dim, self.residuals = scales, scale_dim, residuals
        self.input = nn.Linear(inputs, width)
        self.block = nn.ModuleList(Block(width, hidden) for _ in range(blocks))
        self.scale = nn.ModuleList(Scale(width, scale_dim) for _ in range(scales))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Replace `sentence_embedding`, features, by embeddings."""
        projected = state = self.input(features["sentence_embedding"].float())
        parts = []
        for number, scale in enumerate(self.scale):
            state = self.block[number % self.blocks](state) + self.residuals[number] * projected
            parts.append(scale(state))
        return {**features, "sentence_embedding": torch.cat(parts, dim=1)}

    def get_embedding_dimension(self) -> int:
        """Length of the full vector."""
        return self.scales * self.scale_dim


class MlpHead(_Head):
    """A linear map plus a hidden layer on the normalised input: [n, inputs] to [n, dim], not normalised."""

    config_keys = ("inputs", "hidden", "dim", "factor")

    def __init__(self, inputs: int, hidden: int, dim: int, factor: float) -> None:
        super().__init__()
        self.inputs, self.hidden, self.dim, self.factor = inputs, hidden, dim, factor
        self.register_buffer("centre", torch.zeros(inputs))
        self.input = nn.Linear(inputs, dim)
        self.expand, self.contract = nn.Linear(inputs, hidden), nn.Linear(hidden, dim)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Replace `sentence_embedding`, features, by embeddings."""
        inputs = (features["sentence_embedding"].float() - self.centre) * self.factor
        normed = nn.functional.layer_norm(inputs, [self.inputs])
        hidden = nn.functional.gelu(self.expand(normed))
        return {**features, "sentence_embedding": self.input(inputs) + self.contract(hidden)}

    def get_embedding_dimension(self) -> int:
        """Length of the full vector."""
        return self.dim

"""Dense modules behind the pooling, as sentence-transformers applies them: a linear map and an activation each.

LaBSE and EmbeddingGemma end in such maps. They belong to the last layer's feature; inner layers have none. Which
settings they may have is checked by `cache.backbone.settings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from cache.backbone.settings import check_dense
from cache.errors import CacheError


class DenseModules:
    """The maps of one checkpoint, in float32 on one device."""

    def __init__(self, folders: Sequence[Path], device: str) -> None:
        """Read their weights.

        :raises CacheError: weights that are missing, damaged, or of another shape than the settings say.
        """
        self._maps = [_read(folder, device) for folder in folders]

    @torch.inference_mode()
    def __call__(self, features: Tensor) -> Tensor:
        """Return features float32 [texts, D] of pooled states float32 [texts, H]."""
        for made in self._maps:
            features = made(features)
        return features


def _read(folder: Path, device: str) -> torch.nn.Module:
    settings = check_dense(folder)
    path = folder / "model.safetensors"
    inputs, outputs, biased = settings.count("in_features"), settings.count("out_features"), settings.flag("bias", True)
    linear = torch.nn.Linear(inputs, outputs, bias=biased)
    try:
        weights = {name.removeprefix("linear."): weight for name, weight in load_file(path).items()}
        linear.load_state_dict(weights)
    except Exception as error:  # safetensors and torch raise their own
        reason = " ".join(str(error).split())[:200]
        raise CacheError(
            f"{path} does not fit {folder / 'config.json'}: {reason}", "fetch the checkpoint again"
        ) from error
    name = settings.text("activation_function", "Tanh") or "Tanh"
    activation = getattr(torch.nn, name.rsplit(".", 1)[-1])()
    return torch.nn.Sequential(linear, activation).float().eval().requires_grad_(False).to(device)

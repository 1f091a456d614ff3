"""From the states of packed nodes to one feature a text: last token, mean over its tokens, or first token.

A mean is summed in float32 whatever the states are in, over every token of the text, special ones included, as
sentence-transformers does. Features are raw: not normalised.

Behind the pooling come Dense modules, as sentence-transformers applies them: a linear map and an activation each. LaBSE
and EmbeddingGemma end in such maps. They belong to the last layer's feature; inner layers have none. Which settings
they may have is checked by `cache.backbone.settings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from cache.backbone.settings import check_dense
from cache.batching.packing import Batch
from cache.errors import CacheError, one_line

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}


def within_tolerance(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether the largest relative difference of features [..., H], computed in `dtype`, is rounding."""
    return bool(((one - other).norm(dim=-1) <= _TOLERANCE[dtype] * other.norm(dim=-1)).all())


def pool(states: Tensor, batch: Batch, pooling: str) -> Tensor:
    """Return features float32 [texts, H], in the order of `batch.rows`.

    `states` are [nodes, H] for packed layouts, [texts, longest, H] for the padded one.
    """
    if batch.layout == "padded":
        return _pool_padded(states, batch, pooling)
    if batch.last is not None:
        return _pool_trie(states, batch, pooling)
    if pooling == "mean":
        rectangles = (states[at : at + n * length].view(n, length, -1) for at, n, length in batch.runs)
        return torch.cat([rectangle.float().mean(1) for rectangle in rectangles])
    stop = torch.from_numpy(batch.lengths).to(states.device).cumsum(0)
    at = stop - 1 if pooling == "last" else stop - torch.from_numpy(batch.lengths).to(states.device)
    return states[at].float()


def _pool_padded(states: Tensor, batch: Batch, pooling: str) -> Tensor:
    lengths = torch.from_numpy(batch.lengths).to(states.device)
    if pooling == "mean":
        kept = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        return (states.float() * kept[..., None]).sum(1) / lengths[:, None]
    at = lengths - 1 if pooling == "last" else torch.zeros_like(lengths)
    return states[torch.arange(len(states), device=states.device), at].float()


def _pool_trie(states: Tensor, batch: Batch, pooling: str) -> Tensor:
    """Pool each text's path from the root: shared nodes are summed once, depth by depth."""
    assert batch.last is not None
    last = _index(batch.last, states)
    if pooling == "last":
        return states[last].float()
    if pooling == "cls":
        roots = np.flatnonzero(batch.positions == 0)
        return states[_index(roots[np.searchsorted(roots, batch.last, side="right") - 1], states)].float()
    sums = states.float()  # a copy, or states of its own that nothing reads afterwards
    before = np.flatnonzero(batch.positions == 0)
    for depth in range(1, int(batch.positions.max()) + 1):
        here = np.flatnonzero(batch.positions == depth)
        parents = before[np.searchsorted(before, here) - 1]  # in preorder the nearest node above
        sums[_index(here, states)] += sums[_index(parents, states)]
        before = here
    counts = _index(batch.positions[batch.last] + 1, states)
    return sums[last] / counts[:, None]


def _index(nodes: object, states: Tensor) -> Tensor:
    return torch.as_tensor(nodes, device=states.device)


def dense_modules(folders: Sequence[Path], device: str) -> torch.nn.Module:
    """Return the maps of one checkpoint, float32 [texts, H] to [texts, D], on a device.

    :raises CacheError: weights that are missing, damaged, or of another shape than the settings say.
    """
    return torch.nn.Sequential(*(_read(folder, device) for folder in folders))


def _read(folder: Path, device: str) -> torch.nn.Module:
    settings = check_dense(folder)
    path = folder / "model.safetensors"
    inputs, outputs, biased = settings.count("in_features"), settings.count("out_features"), settings.flag("bias", True)
    linear = torch.nn.Linear(inputs, outputs, bias=biased)
    try:
        weights = {name.removeprefix("linear."): weight for name, weight in load_file(path).items()}
        linear.load_state_dict(weights)
    except Exception as error:  # safetensors and torch raise their own
        raise CacheError(
            f"{path} does not fit {folder / 'config.json'}: {one_line(error)}", "fetch the checkpoint again"
        ) from error
    name = settings.text("activation_function", "Tanh") or "Tanh"
    activation = getattr(torch.nn, name.rsplit(".", 1)[-1])()
    return torch.nn.Sequential(linear, activation).float().eval().requires_grad_(False).to(device)

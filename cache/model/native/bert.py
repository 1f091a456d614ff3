"""The forward pass of BERT over packed texts, on weights read here: MiniLM, BGE, E5 and other BERTs.

One product makes query, key and value, each run of texts of equal length attends without a mask, residuals are added
in place, and a CPU multiplies by oneDNN (`Linear`). On two CPU cores that is what separates this from transformers' own
layers; on any machine it saves importing them. Held to transformers' results by tests, for every text alone
(`tests/cache/model/test_encoder.py`).

A checkpoint's tensors are read from its safetensors files straight to the device, each when it is asked for. Nothing is
pickled and nothing held twice: a layer's matrices are joined as they come. The alternative, building transformers'
model first and taking it apart, costs its import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from cache.batching.packing import Batch
from cache.model.native.config import BertShape
from cache.model.pooling import pool

_PACKED_ROWS = 2048  # nodes that weights are laid out for; others may come


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

    def are(self, expected: Mapping[str, list[int]], ignored: tuple[str, ...]) -> bool:
        """Tell whether these are the tensors expected, of those shapes, and no others but `ignored` beginnings."""
        names = {name for name in self._places if not name.startswith(ignored)}
        return names == expected.keys() and all(self._shape(name) == sizes for name, sizes in expected.items())

    def __getitem__(self, name: str) -> Tensor:
        file, full = self._places[name]
        tensor: Tensor = file.get_tensor(full)
        return tensor.to(self._dtype)

    def _shape(self, name: str) -> list[int]:
        file, full = self._places[name]
        return [int(size) for size in file.get_slice(full).get_shape()]

    def joined(self, names: Sequence[str]) -> Tensor:
        """Return some tensors below one another."""
        return torch.cat([self[name] for name in names])


Affine = tuple["Tensor", "Tensor"]
_JOINED = ("attention.self.query", "attention.self.key", "attention.self.value")
_EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")


@dataclass(frozen=True)
class _Layer:
    """The maps, of which `qkv` joins three to [3 * H, H], and weight and bias of the norms."""

    qkv: Linear
    mixed: Linear
    mixed_norm: Affine
    wide: Linear
    narrow: Linear
    narrow_norm: Affine


class Bert:
    """Runs the layers on whole texts, in runs of equal length."""

    layout = "runs"
    windowed = False

    def __init__(self, weights: Weights, shape: BertShape, layers: Sequence[int], device: str, pooling: str) -> None:
        """Read the tensors that the layers need, to answer for `layers`, absolute.

        :raises KeyError: one is missing.
        """

        def affine(name: str) -> Affine:
            return weights[f"{name}.weight"], weights[f"{name}.bias"]

        def layer(number: int) -> _Layer:
            at = f"encoder.layer.{number}"
            qkv = (weights.joined([f"{at}.{name}.{kind}" for name in _JOINED]) for kind in ("weight", "bias"))
            return _Layer(
                qkv=Linear(*qkv),
                mixed=Linear(*affine(f"{at}.attention.output.dense")),
                mixed_norm=affine(f"{at}.attention.output.LayerNorm"),
                wide=Linear(*affine(f"{at}.intermediate.dense"), activated=True),
                narrow=Linear(*affine(f"{at}.output.dense")),
                narrow_norm=affine(f"{at}.output.LayerNorm"),
            )

        self._shape, self._wanted, self._device, self._pooling = shape, layers, device, pooling
        self._words, self._places, kinds = (weights[f"embeddings.{name}.weight"] for name in _EMBEDDINGS)
        self._places = self._places + kinds[0]  # a text is all of the first kind
        self._norm = affine("embeddings.LayerNorm")
        self._layers = [layer(number) for number in range(shape.layers)]

    @torch.inference_mode()
    def features(self, batch: Batch) -> Tensor:
        """Return float32 [layers, texts, H]."""
        states = self._states(batch)
        return torch.stack([pool(states[layer], batch, self._pooling) for layer in self._wanted])

    def _states(self, batch: Batch) -> dict[int, Tensor]:
        """Return the hidden states of all nodes, [nodes, H], by layer; nothing past the highest is computed."""
        ids, positions = (torch.from_numpy(array).to(self._device) for array in (batch.ids, batch.positions))
        states = self._normalised(self._words[ids].add_(self._places[positions]), self._norm)
        found = {0: states} if 0 in self._wanted else {}
        for number, layer in enumerate(self._layers[: max(self._wanted)], start=1):
            mixed = layer.mixed(self._attend(layer.qkv(states), batch.runs))
            states = self._normalised(mixed.add_(states), layer.mixed_norm)
            narrow = layer.narrow(layer.wide(states))
            states = self._normalised(narrow.add_(states), layer.narrow_norm)
            if number in self._wanted:
                found[number] = states
        return found

    def _normalised(self, states: Tensor, norm: Affine) -> Tensor:
        return layer_norm(states, (states.shape[1],), *norm, self._shape.eps)

    def _attend(self, joint: Tensor, runs: Sequence[tuple[int, int, int]]) -> Tensor:
        """Return [nodes, H] of joint queries, keys and values [nodes, 3 * H]."""
        heads, width = self._shape.heads, joint.shape[1] // 3
        out = joint.new_empty(len(joint), width)
        for first, texts, length in runs:
            part = slice(first, first + texts * length)
            query, key, value = joint[part].view(texts, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
            mixed = scaled_dot_product_attention(query, key, value)
            out[part].view(texts, length, heads, -1).copy_(mixed.transpose(1, 2))
        return out


def expected(shape: BertShape) -> dict[str, list[int]]:
    """Return the tensors that `Bert` reads: shapes by name."""
    hidden, width = shape.hidden, shape.width
    square = {name: [hidden, hidden] for name in (*_JOINED, "attention.output.dense")}
    maps = {**square, "intermediate.dense": [width, hidden], "output.dense": [hidden, width]}
    layer = {f"{name}.weight": sizes for name, sizes in maps.items()}
    layer |= {f"{name}.bias": sizes[:1] for name, sizes in maps.items()}
    norms = ("attention.output.LayerNorm", "output.LayerNorm")
    layer |= {f"{name}.{kind}": [hidden] for name in norms for kind in ("weight", "bias")}
    found = {f"embeddings.{name}.weight": [rows, hidden] for name, rows in zip(_EMBEDDINGS, shape.tables, strict=True)}
    found |= {f"embeddings.LayerNorm.{kind}": [hidden] for kind in ("weight", "bias")}
    return found | {f"encoder.layer.{i}.{name}": sizes for i in range(shape.layers) for name, sizes in layer.items()}


class Linear:
    """The map of rows [n, in] to [n, out], with GELU behind it where that is asked for: oneDNN's on a CPU that has it.

    torch multiplies float32 by MKL there, which uses half the vector width of an AMD processor: 107 GFLOP/s on a core
    of an EPYC (Zen 5), where oneDNN reaches 240. torch brings oneDNN along for bfloat16 and for what its compiler makes
    of float32; the operation is the compiler's. It reads weights packed beforehand and applies GELU while the result is
    in the cache. Adding the residual there too was tried: it costs a millisecond a call.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, activated: bool = False) -> None:
        """Pack a weight [out, in], its bias [out] beside it, where oneDNN multiplies."""
        self._weight, self._bias, self._activated = weight, bias, activated
        self._packed = weight.device.type == "cpu" and _onednn_takes(weight.dtype)
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_ROWS)

    @torch.inference_mode()
    def __call__(self, rows: Tensor) -> Tensor:
        """Return [n, out], in the dtype of the weight."""
        if self._packed:
            kind, how = ("gelu", "none") if self._activated else ("none", "")
            found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, kind, [], how)
            return found
        found = linear(rows, self._weight, self._bias)
        return gelu(found) if self._activated else found


def _onednn_takes(dtype: torch.dtype) -> bool:
    """Whether this torch has the operations of its compiler's oneDNN, and this processor the number format."""
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False  # builds for some processors have none of them
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

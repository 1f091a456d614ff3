"""A trained head: features to embeddings whose prefixes are embeddings too, and to labels on every level.

A head is its shape and one flat vector of weights. In training the vector has as many rows as seeds are trained
together; a FractalHead holds one of them. Prefix j is the truncated full vector, normalised, and nothing else.

Checkpoints: a head's tensors by name, and a configuration that a person can read.

`head.safetensors` holds the weights as float32, `config.json` all else: architecture, hierarchy, and the caller's
record. Nothing is ever unpickled. A loaded head computes the same bits: the tensors go back to the places in the flat
vector from which they came.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from heads import network
from heads.errors import HeadsError
from heads.presets import HeadShape
from heads.training import losses

FORMAT = 1
WEIGHTS, CONFIG = "head.safetensors", "config.json"


def save(head: FractalHead, folder: str | Path, record: Mapping[str, Any]) -> None:
    """Write a head into a folder, which is made if need be.

    :param record: whatever the caller wants to find again as `head.record`; must be JSON.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in head.named().items()}, folder / WEIGHTS)
    config = {
        "format": FORMAT,
        "method": head.method,
        "preset": head.preset,
        "shape": asdict(head.shape),
        "supervised": list(head.labelling.supervised),
        "parents": [parents.tolist() for parents in head.labelling.parents],
        "record": dict(record),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(folder: Path) -> FractalHead:
    """Read a head, onto the CPU.

    :raises HeadsError: if a file is missing, damaged, of another format, or the two do not belong together.
    """
    folder = Path(folder)
    config = _config(folder / CONFIG)
    try:
        shape = HeadShape(**{**config["shape"], "classes": tuple(config["shape"]["classes"])})
        labelling = Labelling(
            tuple(np.array(parents, np.int64) for parents in config["parents"]), tuple(config["supervised"])
        )
        names = {"method": config["method"], "preset": config["preset"], "record": config["record"]}
        shape.tensors()  # a number that is none shows here
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / CONFIG, f"lacks or garbles {error}") from error
    if not _fits(labelling, shape.classes):
        raise _damaged(folder / CONFIG, f"has parents or supervised that do not fit classes {list(shape.classes)}")
    return FractalHead(shape, _weights(folder / WEIGHTS, shape), labelling, **names)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise _damaged(path, f"is not of format {FORMAT}")
    return config


def _fits(labelling: Labelling, classes: tuple[int, ...]) -> bool:
    """Whether each class has one entry among the parents, which is a class of the level above, or -1."""
    return (
        [parents.shape for parents in labelling.parents] == [(count,) for count in classes[1:]]
        and all(((p >= -1) & (p < above)).all() for p, above in zip(labelling.parents, classes, strict=False))
        and len(labelling.supervised) == len(classes)
    )


def _weights(path: Path, shape: HeadShape) -> torch.Tensor:
    """Put the tensors into one flat vector, checking names, shapes and dtypes."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from error
    slots = {slot.name: slot for slot in shape.tensors()}
    if tensors.keys() != slots.keys():
        name = sorted(tensors.keys() ^ slots.keys())[0]
        raise _damaged(path, f"and {CONFIG} disagree about tensor {name}")
    flat = torch.empty(shape.parameters)
    for name, slot in slots.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != slot.shape or tensor.dtype != torch.float32:
            raise _damaged(path, f"holds {name} as {tensor.dtype} {tuple(tensor.shape)}, not float32 {slot.shape}")
        flat[slot.offset : slot.offset + slot.size] = tensor.flatten()
    return flat


def _damaged(path: Path, problem: str) -> HeadsError:
    one_line = " ".join(problem.split())
    return HeadsError(f"checkpoint {path}: {one_line}", "delete the folder and fit the head again")


_ROWS = 8192  # rows that go through the head at a time


@dataclass(frozen=True)
class Labelling:
    """What a head knows of its hierarchy.

    `parents[l]` int64 [C_{l+1}] is the parent in level l of each class of level l+1, -1 for a class never seen;
    `supervised` says of each level whether the method trains its classifier.
    """

    parents: tuple[np.ndarray, ...]
    supervised: tuple[bool, ...]


class FractalHead(torch.nn.Module):
    """Maps features [n, H] to embeddings [n, D] of `scales` blocks of `scale_dim` dimensions.

    `method` and `preset` are the names it was trained with; `record` is what a checkpoint carries besides.
    """

    weights: Tensor

    def __init__(
        self,
        shape: HeadShape,
        weights: Tensor,
        labelling: Labelling,
        *,
        method: str,
        preset: str,
        record: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Hold weights, float32 [P] in the order of `shape.tensors()`."""
        super().__init__()
        self.shape, self.labelling, self.method, self.preset, self.record = shape, labelling, method, preset, record
        self.register_buffer("weights", weights)

    @property
    def scales(self) -> int:
        """Number of blocks."""
        return self.shape.scales

    @property
    def scale_dim(self) -> int:
        """Dimensions of a block."""
        return self.shape.scale_dim

    @property
    def dims(self) -> tuple[int, ...]:
        """Lengths of the prefixes, the full embedding last."""
        return tuple(self.scale_dim * (j + 1) for j in range(self.scales))

    @property
    def levels(self) -> int:
        """Number of levels of the hierarchy, coarsest first."""
        return len(self.shape.classes)

    @property
    def parameters_count(self) -> int:
        """Number of trained parameters, classifiers included."""
        return self.shape.parameters

    def named(self) -> dict[str, Tensor]:
        """Name the weight tensors: views of the flat vector, without a seed dimension."""
        return {name: tensor[0] for name, tensor in network.Tensors(self.weights[None], self.shape).items()}

    def forward(self, features: Tensor) -> Tensor:
        """Embed features, real [n, H], on the head's device: unit vectors, float32 [n, D], without gradients."""
        units, _ = losses.normalise(features.to(self.weights.device, torch.float32))
        with torch.no_grad():
            outputs, _ = network.forward(network.Tensors(self.weights[None], self.shape), self.shape, units[None])
        return losses.normalise(outputs[0])[0]

    def embed(self, features: np.ndarray, dim: int | None = None) -> np.ndarray:
        """Embed features, on the device where the head is.

        :param features: real [n, H], raw as pooled; they are L2-normalised here.
        :param dim: length of the prefix, one of `dims`; the full vector by default.
        :returns: float32 [n, dim], unit vectors: the first `dim` dimensions of the full vector, normalised.
        :raises HeadsError: if the features do not fit the head, hold NaN or infinity, or `dim` is no prefix.
        """
        parts = [part.cpu().numpy() for part in self._prefixes(features, dim)]
        return np.concatenate(parts) if parts else np.zeros((0, dim or self.shape.dim), np.float32)

    def classify(self, features: np.ndarray, dim: int | None = None) -> list[np.ndarray | None]:
        """Label features on every level by the head's own classifiers, at a prefix.

        A level whose classifier the method never trains (level 0 under mrl) takes the sum of the probabilities of
        the nearest finer trained level over each class's descendants. A level with no finer trained level (the finest
        levels of a method that trains coarse ones alone) has no answer: None.

        :param features: real [n, H].
        :param dim: length of the prefix, one of `dims`; the full vector by default.
        :returns: a level each, coarsest first: probabilities, float32 [n, C_l].
        :raises HeadsError: as `embed`.
        """
        parts = [self._probabilities(part) for part in self._prefixes(features, dim)]
        if not parts:
            parts = [self._probabilities(self.weights.new_zeros(0, self.shape.dim))]
        return [
            None if column[0] is None else np.concatenate([part for part in column if part is not None])
            for column in zip(*parts, strict=True)
        ]

    def _prefixes(self, features: np.ndarray, dim: int | None) -> Iterator[Tensor]:
        """Normalised prefixes, some rows at a time."""
        dim = self.shape.dim if dim is None else dim
        if dim not in self.dims:
            raise HeadsError(f"dim is {dim}, which is no prefix", f"use one of {', '.join(map(str, self.dims))}")
        rows = checked_features(features, "features")
        if rows.shape[1] != self.shape.inputs:
            raise HeadsError(
                f"features have {rows.shape[1]} dimensions, the head was trained on {self.shape.inputs}",
                "use the features of the backbone and layer that the head was trained on",
            )
        for start in range(0, len(rows), _ROWS):
            full = self(torch.from_numpy(rows[start : start + _ROWS]))
            yield full if dim == self.shape.dim else losses.normalise(full[:, :dim])[0]

    def _probabilities(self, prefixes: Tensor) -> list[np.ndarray | None]:
        tensors = network.Tensors(self.weights[None], self.shape)
        levels: list[np.ndarray | None] = [None] * self.levels
        for level in reversed(range(self.levels)):
            if self.labelling.supervised[level]:
                levels[level] = network.logits(tensors, self.shape, level, prefixes[None])[0].softmax(1).cpu().numpy()
            elif level + 1 < self.levels:
                levels[level] = self._summed(level, levels[level + 1])
        return levels

    def _summed(self, level: int, finer: np.ndarray | None) -> np.ndarray | None:
        """Sum probabilities of level + 1 over the children of each class of `level`."""
        if finer is None:
            return None
        parents = self.labelling.parents[level]
        member = np.zeros((len(parents), self.shape.classes[level]), np.float32)
        seen = np.flatnonzero(parents >= 0)
        member[seen, parents[seen]] = 1
        return np.asarray(finer @ member, np.float32)


def checked_features(features: Any, name: str) -> np.ndarray:
    """Check features and bring them to float32.

    :raises HeadsError: if they are no real matrix, hold NaN or infinity, or a row so long that its length is infinite
        in float32: it would be normalised to zeros.
    """
    array = np.asarray(features)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.shape[1] == 0:
        raise HeadsError(
            f"{name} have shape {array.shape} and dtype {array.dtype}", "give real numbers of shape [n, H]"
        )
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    broken = ~np.isfinite(np.einsum("ij,ij->i", array, array))
    if broken.any():
        raise HeadsError(
            f"row {int(broken.argmax())} of {name} holds NaN, infinity or values too large for float32",
            "look for it where the features were made; `pipeline cache verify` checks a store",
        )
    return array

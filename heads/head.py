"""A trained head: features to embeddings whose prefixes are embeddings too, and to labels on every level.

A head is its shape and one flat vector of weights. In training the vector has as many rows as seeds are trained
together; a FractalHead holds one of them. Prefix j is the truncated full vector, normalised, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from heads import network
from heads.errors import HeadsError
from heads.methods import is_whole
from heads.presets import HeadShape
from heads.training.inputs import checked_features, labels_of

_ROWS = 8192  # rows that go through the head at a time


@dataclass(frozen=True)
class Labelling:
    """What a head knows of its hierarchy.

    `parents[l]` int64 [C_{l+1}] is the parent in level l of each class of level l+1, -1 for a class never seen;
    `supervised` says of each level whether the method trains its classifier; `names` the label of each class, where
    that is not its number.
    """

    parents: tuple[np.ndarray, ...]
    supervised: tuple[bool, ...]
    names: tuple[tuple[Any, ...], ...] | None = None


class Prediction(NamedTuple):
    """Label paths [n, L], labels as given in training, -1 below a path's end; and each label's probability [n, L]."""

    labels: np.ndarray
    probability: np.ndarray


class FractalHead(torch.nn.Module):
    """Maps features [n, H] to embeddings [n, D] of `scales` blocks of `scale_dim` dimensions.

    A feature goes in L2-normalised, then, where the head has a `centre`, float32 [H], less that and times `scale`.
    `method` and `preset` are the names it was trained with; `record` is what a checkpoint carries besides.
    `dims` are the lengths of the prefixes, the full embedding last; `levels` counts the hierarchy's, `parameters_count`
    the trained parameters, classifiers included.
    """

    weights: Tensor
    centre: Tensor | None

    def __init__(
        self,
        shape: HeadShape,
        weights: Tensor,
        labelling: Labelling,
        *,
        method: str,
        preset: str,
        record: Mapping[str, Any] | None = None,
        centre: Tensor | None = None,
        scale: float = 1.0,
    ) -> None:
        """Hold weights, float32 [P] in the order of `shape.tensors`."""
        super().__init__()
        self.shape, self.labelling, self.method, self.preset = shape, labelling, method, preset
        self.record, self.scale = dict(record or {}), scale
        self.scales, self.scale_dim, self.levels = shape.scales, shape.scale_dim, len(shape.classes)
        self.dims = tuple(shape.scale_dim * (j + 1) for j in range(shape.scales))
        self.parameters_count = shape.parameters
        self.register_buffer("weights", weights)
        self.register_buffer("centre", centre)

    def named(self) -> dict[str, Tensor]:
        """Name the weight tensors: views of the flat vector, without a seed dimension."""
        return network.named(self.weights, self.shape)

    def forward(self, features: Tensor) -> Tensor:
        """Embed features, real [n, H], on the head's device: unit vectors, float32 [n, D], without gradients."""
        inputs = functional.normalize(features.detach().to(self.weights.device, torch.float32), dim=1)
        if self.centre is not None:
            inputs = (inputs - self.centre.float()) * self.scale
        with torch.no_grad():
            outputs = network.forward(self._tensors(), self.shape, inputs[None])
        return functional.normalize(outputs[0], dim=1)

    def _tensors(self) -> dict[str, Tensor]:
        """Tensors to compute with: float32, also where the head was brought to another dtype."""
        return network.named(self.weights.float(), self.shape)

    def embed(self, features: Any, dim: int | None = None) -> np.ndarray:
        """Embed features, on the device where the head is.

        :param features: real [n, H], raw as pooled; they are L2-normalised here.
        :param dim: length of the prefix, one of `dims`; the full vector by default.
        :returns: float32 [n, dim], unit vectors: the first `dim` dimensions of the full vector, normalised.
        :raises HeadsError: if the features do not fit the head, hold NaN or infinity, `dim` is no prefix, or what
            comes out is not finite: the head's weights are damaged.
        """
        return np.concatenate([part.cpu().numpy() for part in self._prefixes(features, dim)])

    def classify(self, features: Any, dim: int | None = None) -> list[np.ndarray | None]:
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
        return [
            None if column[0] is None else np.concatenate([part for part in column if part is not None])
            for column in zip(*parts, strict=True)
        ]

    def predict(self, features: Any, dim: int | None = None) -> Prediction:
        """Label features by one path of the tree each: the most probable one under all levels' classifiers together.

        A path scores the sum of its classes' log probabilities, one classifier per level; a path that ends above the
        finest level counts its last class for the levels below, as an only child would. Probabilities of paths are the
        softmax of that; a class's is the sum over the paths through it. Labels are thus always ancestors of one
        another, which one argmax per level does not give.

        :param features: real [n, H].
        :param dim: length of the prefix, one of `dims`; the full vector by default.
        :raises HeadsError: as `embed`; and if no classifier of the head is trained.
        """
        paths = self._paths
        labels, confidence = [], []
        for prefix in self._prefixes(features, dim):
            likelihood = self._path_likelihood(prefix, paths)
            best, scores = likelihood.argmax(1), torch.from_numpy(likelihood).softmax(1).numpy()
            chosen = paths[best]
            through = [
                (scores * (paths[None, :, level] == chosen[:, None, level])).sum(1) for level in range(paths.shape[1])
            ]
            falling = np.minimum.accumulate(np.minimum(np.stack(through, 1), 1), axis=1)  # sums are rounded
            labels.append(chosen)
            confidence.append(np.where(chosen >= 0, falling, np.nan).astype(np.float32))
        return Prediction(labels_of(np.concatenate(labels), self.labelling.names), np.concatenate(confidence))

    def decode(self, features: Any, dim: int | None = None) -> np.ndarray:
        """The labels of `predict`, [n, L], without their confidences, which take as long.

        :param features: real [n, H].
        :param dim: length of the prefix, one of `dims`; the full vector by default.
        :raises HeadsError: as `predict`.
        """
        paths = self._paths
        labels = [paths[self._path_likelihood(prefix, paths).argmax(1)] for prefix in self._prefixes(features, dim)]
        return labels_of(np.concatenate(labels), self.labelling.names)

    @cached_property
    def _paths(self) -> np.ndarray:
        """Every path from level 0 to a class without children: int64 [K, L], -1 below its end or what is trained."""
        trained = [level for level, is_trained in enumerate(self.labelling.supervised) if is_trained]
        if not trained:
            raise HeadsError(f"{self._described()} has no trained classifier", "use neighbours, or another method")
        paths = np.arange(self.shape.classes[0])[:, None]
        for level in range(1, trained[-1] + 1):
            parents = self.labelling.parents[level - 1]
            seen = np.flatnonzero(parents >= 0)
            places = {int(path[level - 1]): at for at, path in enumerate(paths) if path[level - 1] >= 0}
            below = [[*paths[places[int(parents[child])]], child] for child in seen if int(parents[child]) in places]
            childless = ~np.isin(paths[:, level - 1], parents[seen])
            ends = np.pad(paths[childless], ((0, 0), (0, 1)), constant_values=-1)
            paths = np.concatenate([np.array(below, np.int64).reshape(-1, level + 1), ends])
        return np.pad(paths, ((0, 0), (0, self.levels - paths.shape[1])), constant_values=-1)

    def _path_likelihood(self, prefixes: Tensor, paths: np.ndarray) -> np.ndarray:
        """The sum of the log probabilities of each path's classes, float32 [n, K]."""
        total = np.zeros((len(prefixes), len(paths)), np.float32)
        last: np.ndarray | float = -np.inf
        for level, found in enumerate(self._probabilities(prefixes)):
            if found is not None and self.labelling.supervised[level]:
                own = np.log(np.maximum(found, 1e-30))[:, np.maximum(paths[:, level], 0)]
                last = np.where(paths[:, level] >= 0, own, last)
                total += last
        return total

    def _prefixes(self, features: Any, dim: int | None) -> Iterator[Tensor]:
        """Normalised prefixes, some rows at a time; of no rows one empty part."""
        dim = self.shape.dim if dim is None else dim
        if dim not in self.dims or not is_whole(dim):
            known = ", ".join(map(str, self.dims))
            raise HeadsError(f"dim is {dim!r}, which is no prefix: there are {known}", "use one of these")
        rows = checked_features(features, "features")
        if rows.shape[1] != self.shape.inputs:
            raise HeadsError(
                f"features have {rows.shape[1]} dimensions, the head was trained on {self.shape.inputs}",
                "use the features of the backbone and layer that the head was trained on",
            )
        for start in range(0, max(1, len(rows)), _ROWS):
            full = self(torch.from_numpy(rows[start : start + _ROWS]))
            if not bool(full.isfinite().all()):
                raise HeadsError(f"{self._described()} gives embeddings that are not finite", "fit the head again")
            yield full if dim == self.shape.dim else functional.normalize(full[:, :dim], dim=1)

    def _probabilities(self, prefixes: Tensor) -> list[np.ndarray | None]:
        tensors = self._tensors()
        levels: list[np.ndarray | None] = [None] * self.levels
        for level in reversed(range(self.levels)):
            if self.labelling.supervised[level]:
                scores = network.logits(tensors, self.shape, level, prefixes[None])[0].softmax(1)
                if not bool(scores.isfinite().all()):
                    problem = f"{self._described()} gives probabilities of level {level} that are not finite"
                    raise HeadsError(problem, "fit the head again")
                levels[level] = scores.cpu().numpy()
            elif level + 1 < self.levels:
                levels[level] = self._summed(level, levels[level + 1])
        return levels

    def _described(self) -> str:
        """Say which head this is."""
        run = f" of run {self.record['id']}" if "id" in self.record else ""
        return f"the {self.method} head ({self.preset}){run}"

    def _summed(self, level: int, finer: np.ndarray | None) -> np.ndarray | None:
        """Sum probabilities of level + 1 over the children of each class of `level`."""
        if finer is None:
            return None
        parents = self.labelling.parents[level]
        member = np.zeros((len(parents), self.shape.classes[level]), np.float32)
        seen = np.flatnonzero(parents >= 0)
        member[seen, parents[seen]] = 1
        return np.asarray(finer @ member, np.float32)

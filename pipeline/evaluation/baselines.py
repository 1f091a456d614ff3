"""What no training at all would reach: the backbone's features themselves, cut short in two ways.

A table of heads means little without the row beside it that cost nothing. `features` are the raw features, whose
prefixes are plain truncation, with the full width at the end. `pca` turns them first, so that a prefix holds the
directions in which the training texts vary most: the best linear truncation that looks at no label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError

Vectors = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]

DIMS = (64, 128, 192, 256)


def baseline_dims(width: int) -> tuple[int, ...]:
    """Prefixes at which features of this width are scored: 64, 128, 192, 256 as far as they reach, and in full."""
    return (*(dim for dim in DIMS if dim < width), width)


def untrained(name: str, train: Vectors) -> Callable[[Vectors], Singles]:
    """Make the embedding that a baseline is, from what the training texts are without their labels.

    :param name: a key of BASELINES.
    :param train: [n, H] features of the training split, as stored.
    :returns: a function from features [m, H] to float32 embeddings [m, H], to be scored at `baseline_dims(H)`.
    :raises PipelineError: if there is no such baseline.
    """
    if name not in BASELINES:
        raise PipelineError(f"there is no baseline {name!r}", f"choose from {', '.join(BASELINES)}")
    return BASELINES[name](train)


def _features(train: Vectors) -> Callable[[Vectors], Singles]:
    return _normalised


def _pca(train: Vectors) -> Callable[[Vectors], Singles]:
    """Principal components of the normalised features, as a head would receive them, largest variance first."""
    rows = _normalised(train).astype(np.float64)
    centre = rows.mean(axis=0)
    _, axes = np.linalg.eigh((rows - centre).T @ (rows - centre))
    axes = axes[:, ::-1]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(len(centre))] < 0, -1.0, 1.0)
    return lambda features: ((_normalised(features) - centre) @ axes).astype(np.float32)


def _normalised(features: Vectors) -> Singles:
    rows = np.asarray(features, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)


BASELINES: Mapping[str, Callable[[Vectors], Callable[[Vectors], Singles]]] = {"features": _features, "pca": _pca}
"""Baselines by name; each takes training features and gives the embedding."""

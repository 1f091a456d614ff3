"""A 2-D map of embeddings in which neighbours lie together, from numpy alone, fast enough to draw twenty of them.

The idea is t-SNE's (van der Maaten & Hinton 2008): every point is pulled to its nearest neighbours and pushed away by
all others, the push falling off as 1 / (1 + d^2)^2. The push is minus half the gradient of one potential, the sum over
all points of 1 / (1 + d^2): one convolution on a grid, done by FFT (the idea of Linderman et al. 2019), not n^2
pairs. The neighbours are the exact ones that the page shows anyway, all weighted alike: no perplexity to search.

It costs about 1.5 ms per step for 4,000 points. The alternatives: the first two principal components, free but one blob
of 150 intents; UMAP or scikit-learn's t-SNE, a dependency each and ten times the seconds. A map is for the eye:
distances in it mean little, and no figure of the report is taken from one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Points = NDArray[np.float32]
Ints = NDArray[np.int64]

STEPS, EARLY = 200, 80
"""Steps of a map from scratch, and how many of them hold clusters together (t-SNE's early exaggeration)."""
MOVES = 70
"""Steps of a map that begins at another one."""
_EARLY_PULL = 12.0
_COARSE, _FINE = 96, 192
"""Cells per side of the grid: fine ones matter once groups have found their places."""


def layout(neighbours: Ints, start: Points, steps: int = STEPS, early: int = EARLY) -> Points:
    """Lay n points out so that neighbours lie together.

    :param neighbours: int64 [n, k], the nearest others of each point.
    :param start: float32 [n, 2], where the points begin; with `early` steps their order of magnitude does not matter.
    :param early: so many steps pull more strongly; none if the start is a map already.
    :returns: float32 [n, 2], centred, in units of no meaning. The same arguments give the same bits.
    """
    n = len(start)
    edges = _edges(neighbours, n)
    points = np.asarray(start * (1e-2 / (float(start.std()) or 1.0)) if early else start, np.float32)
    speed, gains = np.zeros_like(points), np.ones_like(points)
    rate, late = np.float32(max(n / 12.0, 20.0)), _late_pull(n)
    for step in range(steps):
        pull, keeps, grid = (_EARLY_PULL, 0.5, _COARSE) if step < early else (late, 0.8, _FINE)
        gradient = np.float32(pull) * _attraction(points, *edges) - _repulsion(points, grid)
        agrees = np.sign(gradient) == np.sign(speed)
        gains = np.maximum(np.where(agrees, gains * np.float32(0.8), gains + np.float32(0.2)), np.float32(0.01))
        speed = np.float32(keeps) * speed - rate * gains * gradient
        points = points + speed
        points -= points.mean(axis=0)
    return points


def _late_pull(n: int) -> float:
    """How strongly edges pull in the end: 1, as in t-SNE, up to 1,500 points, and less for more of them.

    At 1, thousands of points with ten equal neighbours each shrink to dots on which nobody can click; at 0.3 more of
    the ten nearest are the nearest on the map too (CLINC, v5 at 64 dims: 70 % against 65 %). Few points fall apart
    there.
    """
    return min(1.0, max(0.3, 1500 / n))


def principal_plane(vectors: NDArray[np.floating[Any]]) -> Points:
    """The two directions of largest variance, float32 [n, 2]; the sign is fixed, so that the same rows give the same.

    :param vectors: [n, D].
    """
    rows = np.asarray(vectors, np.float64)
    rows = rows - rows.mean(axis=0)
    _, axes = np.linalg.eigh(rows.T @ rows)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    plane = np.zeros((len(rows), 2), np.float32)
    plane[:, : axes.shape[1]] = rows @ axes
    return plane


def rotation(points: Points, to: Points) -> Points:
    """How to turn and mirror a map to lie as well as it can on another: float32 [2, 2] (orthogonal Procrustes)."""
    left, _, right = np.linalg.svd(np.asarray(points, np.float64).T @ np.asarray(to, np.float64))
    return np.asarray(left @ right, np.float32)


def _edges(neighbours: Ints, n: int) -> tuple[Ints, Ints, Ints]:
    """Both ends of every edge, each edge in both directions, by first end, and where each point's begin.

    Every point has its own neighbours, so none is without an edge.
    """
    first = np.repeat(np.arange(n), neighbours.shape[1])
    both = np.concatenate([first * n + neighbours.ravel(), neighbours.ravel() * n + first])
    both.sort()
    return both // n, both % n, np.searchsorted(both // n, np.arange(n))


def _attraction(points: Points, first: Ints, second: Ints, starts: Ints) -> Points:
    """The mean pull of its edges on each point, [n, 2], as a share of all edges."""
    between = [axis[first] - axis[second] for axis in np.ascontiguousarray(points.T)]
    falls_off = len(first) * (1 + between[0] ** 2 + between[1] ** 2)
    return np.stack([np.add.reduceat(one / falls_off, starts) for one in between], axis=1)


def _repulsion(points: Points, cells: int) -> Points:
    """The push of all others on each point, [n, 2], normalised as t-SNE normalises it."""
    n, low = len(points), points.min(axis=0)
    cell = _cell_of(float((points.max(axis=0) - low).max()), cells)
    place = (points - low) / np.float32(cell) + 1
    corner = place.astype(np.int64)
    corners = [corner[:, 0] * cells + corner[:, 1] + offset for offset in (0, 1, cells, cells + 1)]
    x, y = (place - corner.astype(np.float32)).T
    weights = ((1 - x) * (1 - y), (1 - x) * y, x * (1 - y), x * y)  # of the four corners of a point's cell
    charge = sum(
        np.bincount(at, weights=weight, minlength=cells * cells) for at, weight in zip(corners, weights, strict=True)
    )
    potential = _potential(np.asarray(charge, np.float32).reshape(cells, cells), cell)
    found = [_read(field, corners, weights) for field in (potential, *np.gradient(potential, cell))]
    total = max(float(found[0].sum()) - n, 1e-6)
    return np.asarray(np.stack(found[1:], axis=1) * (-0.5 / total), np.float32)


def _cell_of(reach: float, cells: int) -> float:
    """A cell's width that lets the grid hold `reach`, in steps of 5 %, so that the kernel of one width serves often."""
    least = max(reach, 1e-6) / (cells - 4)
    return float(1.05 ** np.ceil(np.log(least) / np.log(1.05)))


def _potential(charge: Points, cell: float) -> Points:
    """Sum over all points of 1 / (1 + d^2) at the nodes of the grid."""
    cells = len(charge)
    padded = np.zeros((2 * cells, 2 * cells), np.float32)
    padded[:cells, :cells] = charge
    spread = scipy.fft.irfft2(scipy.fft.rfft2(padded) * _kernel(cells, cell), s=padded.shape)
    return np.asarray(spread[:cells, :cells], np.float32)


@lru_cache(maxsize=8)
def _kernel(cells: int, cell: float) -> NDArray[np.complexfloating[Any, Any]]:
    steps = np.minimum(np.arange(2 * cells), 2 * cells - np.arange(2 * cells)).astype(np.float32) * np.float32(cell)
    return np.asarray(scipy.fft.rfft2(1 / (1 + steps[:, None] ** 2 + steps[None] ** 2)))


def _read(field: Points, corners: list[Ints], weights: tuple[Points, ...]) -> Points:
    """The field at points inside its cells."""
    flat = np.ascontiguousarray(field).ravel()
    return np.asarray(sum(weight * flat[at] for at, weight in zip(corners, weights, strict=True)), np.float32)

"""Which epoch of a fit is kept: the best by nearest neighbours on held-out texts.

At most 1,000 validation texts, each labelled by the k = 5 nearest of the others on the full vector; the score is the
accuracy on level 0 plus that on the finest level, as published. The texts are the same for every seed and method.
"""

from __future__ import annotations

import numpy as np

from heads.neighbours import Array, prefix_neighbours, vote

LIMIT = 1000
NEIGHBOURS = 5


def chosen_rows(total: int) -> np.ndarray:
    """Pick the validation rows that select: all, or a fixed sample of 1,000, in order."""
    if total <= LIMIT:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).permutation(total)[:LIMIT])


def accuracies(embeddings: Array, labels: np.ndarray) -> np.ndarray:
    """Leave-one-out accuracy of full vectors [n, D] with labels [n, L], float64 [L]."""
    found = prefix_neighbours(embeddings, embeddings, embeddings.shape[1], NEIGHBOURS, exclude="same-row")
    right = vote(found.indices, found.similarities, labels)[0] == labels
    return np.asarray(right.mean(axis=0), np.float64)


def score(accuracy: np.ndarray) -> float:
    """Score an epoch by its accuracies a level."""
    return float(accuracy[0] + accuracy[-1])

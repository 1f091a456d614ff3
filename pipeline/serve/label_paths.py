"""From class probabilities level by level to one path of the label tree.

An argmax per level may name a block outside the chapter that it names. Here every node's score is the sum of the log
probabilities along its path from the root, and the scores of the finest level, made to sum to one, are the
probabilities of the paths. A class of a coarser level gets the sum of those below it, so confidences never rise with
depth. It costs one indexing per level. The alternative, the finest level's argmax with its ancestors, ignores what the
coarse classifiers know.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LEAST = 1e-12
"""Probability below which a logarithm would not be finite."""


def label_paths(
    probabilities: Sequence[NDArray[np.float32] | None], parents: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the most probable path of each text.

    :param probabilities: per level, coarsest first, float32 [n, C_l]; None for a level that no classifier answers. Such
        levels are the finest ones; the coarsest is always answered.
    :param parents: `parents[l]` int64 [C_{l+1}], the parent in level l of each class of level l + 1; -1 for a class
        that no training text has.
    :returns: classes int64 [n, levels answered], and the confidence of each, float32 of the same shape.
    """
    known = [np.asarray(level, np.float64) for level in probabilities if level is not None]
    score = np.log(np.maximum(known[0], _LEAST))
    for level in range(1, len(known)):
        above = parents[level - 1]
        score = score[:, np.maximum(above, 0)] + np.log(np.maximum(known[level], _LEAST))
        score[:, above < 0] = -np.inf
    share = np.exp(score - score.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    row = np.arange(len(share))
    node = share.argmax(axis=1)
    classes, confidences = [node], [share[row, node]]
    for level in reversed(range(len(known) - 1)):
        summed = np.zeros((len(share), known[level].shape[1]))
        above = parents[level]
        np.add.at(summed.T, above[above >= 0], share.T[above >= 0])
        share, node = summed, above[node]
        classes.append(node)
        confidences.append(share[row, node])
    confidence = np.clip(np.stack(confidences[::-1], axis=1), 0, 1)
    return np.stack(classes[::-1], axis=1).astype(np.int64), confidence.astype(np.float32)

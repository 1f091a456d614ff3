"""The losses, for many batches side by side, weighted; each is held to a slow loop over samples in the tests."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

from heads.network import linear

TEMPERATURE = 0.07
MARGIN = 0.2
NO_SCORE = -1e9  # of a row with itself: its share of a softmax is zero, and times zero it is a number, as -inf is not


def contrast(similarities: Tensor, weights: Tensor) -> Tensor:
    """InfoNCE: cross-entropy of similarities / 0.07 against the diagonal; every other column is a negative.

    :param similarities: of anchors (rows) and positives (columns), float32 [..., B, B].
    :param weights: of each batch's mean, float32 [..., 1], or of each anchor, [..., B].
    :returns: weighted losses [...].
    """
    scores = (similarities / TEMPERATURE).log_softmax(-1)
    return -(scores.diagonal(dim1=-2, dim2=-1) * (weights / scores.shape[-1])).sum(-1)


def margin(similarities: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Margin loss among anchors: relu(a.n - a.p + 0.2), a mean over negatives n, a mean over pairs (a, p).

    :param similarities: of anchors with one another, float32 [S, G, B, B].
    :param positives: weight of each pair (a, p), 0 where it is none, float32 [S, G, B, B].
    :param negatives: weight of each n for each a, 0 where it is none, float32 [S, G, B, B].
    :returns: losses [S].
    """
    excess = functional.relu(similarities[..., None, :] - similarities[..., None] + MARGIN)
    return ((excess * negatives[..., None, :]).sum(-1) * positives).sum((1, 2, 3))


def margin_of_pairs(similarities: Tensor, rows: Tensor, places: Tensor, coefficients: Tensor) -> Tensor:
    """Compute the same from a list of pairs: what `margin` costs where nearly all of [B, B, B] is zero is left out.

    :param similarities: float32 [R, B], rows of all batches one below the other.
    :param rows: of each pair, int64 [N], the row of its anchor.
    :param places: of each pair, int64 [N], row * B + column of its positive.
    :param coefficients: pair weight times negative weight, float32 [N, B].
    :returns: loss [].
    """
    own = similarities.view(-1).index_select(0, places)
    excess = functional.relu(similarities.index_select(0, rows) - own[:, None] + MARGIN)
    return (excess * coefficients).sum()


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row, float32 [..., n], 0 where it has no label.

    :param logits: float32 [..., n, C].
    :param labels: int64 [..., n], -1 where not known.
    """
    each = functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=-1, reduction="none")
    return each.view(labels.shape)


def prefix_cosines(left: Tensor, right: Tensor, scales: int, temperature: float) -> Tensor:
    """Cosines between vectors over a temperature, for all prefixes, [S, J, n, m]: products of blocks add up.

    :param left: float32 [S, n, D], D = J blocks.
    :param right: float32 [S, m, D].
    """
    if len(left) == 1 and left.device.type == "cpu":
        blocks = zip(left.chunk(scales, 2), right[0].chunk(scales, 1), strict=True)
        products = accumulate(linear(*pair) for pair in blocks)
    else:
        first, *others = zip(left.chunk(scales, 2), right.mT.chunk(scales, 1), strict=True)
        products = accumulate(others, lambda total, blocks: torch.baddbmm(total, *blocks), initial=torch.bmm(*first))
    by_left, by_right = _inverse_lengths(left, scales) / temperature, _inverse_lengths(right, scales)
    return torch.stack(list(products), 1) * by_left[..., None] * by_right[:, :, None]


def _inverse_lengths(vectors: Tensor, scales: int) -> Tensor:
    """1 / length of every prefix, [S, J, n], of vectors [S, n, D]."""
    blocks = vectors.view(*vectors.shape[:2], scales, -1).square().sum(3)
    return blocks.cumsum(2).clamp(min=1e-24).rsqrt().mT


def supervised_contrast(scores: Tensor, targets: Tensor, first: int = 0) -> Tensor:
    """Supervised contrast (Khosla et al., 2020, their L_out), with the positives' shares given, summed over all rows.

    :param scores: similarities over the temperature of n rows with all R, float32 [S, J, n, R].
    :param targets: share of each other row among a row's positives, float32 [S, n, R], 0 for itself.
    :param first: place of the first of the n rows among the R.
    :returns: losses [S].
    """
    itself = torch.zeros_like(targets)
    itself.diagonal(first, 1, 2).fill_(NO_SCORE)
    return -((scores + itself[:, None]).log_softmax(3) * targets[:, None]).sum((1, 2, 3))

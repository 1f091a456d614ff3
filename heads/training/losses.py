"""The losses and their gradients, for many batches side by side.

Each function returns the weighted loss and its gradient by what it is given, written out by hand for the reason given
in `heads/network.py`. All are held to slow loops over samples in the tests. `G` stands for any number of batches side
by side: terms of a method times seeds.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TEMPERATURE = 0.07
MARGIN = 0.2


def contrast(similarities: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE: cross-entropy of similarities / 0.07 against the diagonal; every other column is a negative.

    :param similarities: of anchors (rows) and positives (columns), float32 [G, B, B].
    :param weights: of each batch's mean, float32 [G, 1, 1], or of each anchor, [G, B, 1].
    :returns: weighted losses [G], gradient [G, B, B].
    """
    scores = (similarities / TEMPERATURE).log_softmax(2)
    share = weights / scores.shape[1]
    losses = -(scores.diagonal(dim1=1, dim2=2) * share[:, :, 0]).sum(1)
    by_similarity = scores.exp_()
    by_similarity.diagonal(dim1=1, dim2=2).sub_(1)
    return losses, by_similarity.mul_(share / TEMPERATURE)


def margin(similarities: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Margin loss among anchors: relu(a.n - a.p + 0.2), a mean over negatives n, a mean over pairs (a, p).

    :param similarities: of anchors with one another, float32 [G, B, B].
    :param positives: weight of each pair (a, p), 0 where it is none, float32 [G, B, B].
    :param negatives: weight of each n for each a, 0 where it is none, float32 [G, B, B].
    :returns: losses [G], gradient [G, B, B].
    """
    excess = similarities[:, :, None, :] - similarities[:, :, :, None] + MARGIN
    active = (excess > 0) * positives[:, :, :, None] * negatives[:, :, None, :]
    losses = (active * excess).sum((1, 2, 3))
    return losses, active.sum(2) - active.sum(3)


def margin_of_pairs(similarities: Tensor, rows: Tensor, places: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the same from a list of pairs: what `margin` costs where nearly all of [B, B, B] is zero is left out.

    :param similarities: float32 [R, B], rows of all batches one below the other.
    :param rows: of each pair, int64 [N], the row of its anchor.
    :param places: of each pair, int64 [N], row * B + column of its positive.
    :param coefficients: pair weight times negative weight, float32 [N, B].
    :returns: loss [], gradient [R, B].
    """
    excess = similarities.index_select(0, rows)
    excess.sub_(similarities.take(places).sub_(MARGIN)[:, None])
    active = coefficients * (excess > 0)
    loss = torch.dot(active.flatten(), excess.flatten())
    gradient = torch.zeros_like(similarities).index_add_(0, rows, active)
    gradient.view(-1).index_add_(0, places, active.sum(1), alpha=-1)
    return loss, gradient


def classification(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy.

    :param logits: float32 [S, N, C].
    :param labels: int64 [S, N].
    :param weights: of each sample, float32 [S, N].
    :returns: losses [S], gradient [S, N, C].
    """
    scores = logits.log_softmax(2)
    own = labels[:, :, None]
    losses = -(scores.gather(2, own)[:, :, 0] * weights).sum(1)
    by_logit = scores.exp_()
    by_logit.scatter_add_(2, own, by_logit.new_full((), -1.0).expand(own.shape))
    return losses, by_logit.mul_(weights[:, :, None])


def normalise(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Scale to unit length; returns unit vectors and 1 / length [..., 1]. A zero vector stays zero."""
    inverse = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_(min=1e-12).reciprocal_()
    return vectors * inverse, inverse


def normalise_backward(units: Tensor, inverse: Tensor, upstream: Tensor) -> Tensor:
    """Gradient by the vectors that `normalise` was given."""
    along = (units * upstream).sum(-1, keepdim=True)
    return torch.addcmul(upstream, units, along, value=-1).mul_(inverse)


class Cosines(NamedTuple):
    """Cosines of every prefix over a temperature, [S, J, n, m], and what blocks' products were multiplied by for them.

    `left` is 1 / (length of the prefix * temperature), [S, J, n, 1]; `right` 1 / length, [S, J, 1, m].
    """

    scores: Tensor
    left: Tensor
    right: Tensor


def prefix_cosines(left: Tensor, right: Tensor, temperature: float) -> Cosines:
    """Cosines between vectors over a temperature, for all prefixes: products of blocks add up.

    :param left: blocks, float32 [S, J, n, d].
    :param right: blocks, float32 [S, J, m, d].
    """
    products = torch.matmul(left, right.mT)
    lengths = [blocks.square().sum(3).cumsum(1).clamp_(min=1e-24).rsqrt_() for blocks in (left, right)]
    by_left, by_right = lengths[0][..., None] / temperature, lengths[1][..., None, :]
    return Cosines(products.cumsum(1).mul_(by_left).mul_(by_right), by_left, by_right)


def prefix_cosines_backward(
    left: Tensor, right: Tensor, found: Cosines, upstream: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Gradients by the blocks that `prefix_cosines` was given; block i counts in every prefix from i on.

    :param upstream: gradient by the scores, float32 [S, J, n, m]; overwritten.
    """
    radial = upstream * found.scores
    from_left = _from_there_on(radial.sum(3, keepdim=True) * (found.left * temperature).square())
    from_right = _from_there_on(radial.sum(2)[..., None] * found.right.mT.square())
    by_products = _from_there_on(upstream.mul_(found.left).mul_(found.right))
    return (
        torch.matmul(by_products, right).addcmul_(left, from_left, value=-1),
        torch.matmul(by_products.mT, left).addcmul_(right, from_right, value=-1),
    )


def _from_there_on(values: Tensor) -> Tensor:
    """Sum over prefixes j >= i, for each i, where they stand."""
    for j in reversed(range(values.shape[1] - 1)):
        values[:, j] += values[:, j + 1]
    return values


def supervised_contrast(scores: Tensor, targets: Tensor, weights: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
    """Supervised contrast (Khosla et al., 2020, their L_out), with the positives' shares given.

    :param scores: similarities over the temperature of n rows with all R, float32 [S, J, n, R]; those of a
        row with itself are overwritten, with what is finite and has no gradient.
    :param targets: share of each other row among a row's positives, float32 [S, 1 or J, n, R], 0 for itself.
    :param weights: of each prefix's rows, float32 [J, 1, 1].
    :param first: place of the first of the n rows among the R.
    :returns: losses [S], gradient [S, J, n, R].
    """
    scores.diagonal(first, -2, -1).fill_(-1e9)  # a row is not its own rival; 0 * infinity would be no number
    scores = scores.log_softmax(3)
    losses = -((scores * targets).sum((2, 3)) * weights[:, 0, 0]).sum(1)
    by_score = scores.exp_().mul_(targets.sum(3, keepdim=True)).sub_(targets)
    return losses, by_score.mul_(weights)

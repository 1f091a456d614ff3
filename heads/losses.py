"""The losses of section 7 of DESIGN.md and their gradients, for many batches side by side.

Each function returns the weighted loss and its gradient by what it is given, written out by hand for the reason given
in `heads/network.py`. All are held to slow loops over samples in the tests. `G` stands for any number of batches side
by side: terms of a method times seeds.
"""

from __future__ import annotations

import torch
from torch import Tensor

TEMPERATURE = 0.07
MARGIN = 0.2


def contrast(similarities: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE: cross-entropy of similarities / 0.07 against the diagonal; every other column is a negative.

    :param similarities: of anchors (rows) and positives (columns), float32 [G, B, B].
    :param weights: of each batch's mean, float32 [G, 1, 1].
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

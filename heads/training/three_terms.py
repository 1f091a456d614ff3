"""From a method's table to a loss with its gradient: the terms of a step, all in one go.

What does not depend on the weights (who is whose positive, which pairs the margin compares, how much each sample
weighs) is worked out for many steps at once; a step then only multiplies. Views of the anchors are one tensor
[S, T, B, D] over the T terms of the method, so that five terms start as many operations as one.

The margin is computed on all [B, B, B] triples on a GPU, where operations are dear and shapes must not change, and on
the list of pairs that exist on a CPU, where arithmetic is dear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from heads.methods import Supervision, Term, View
from heads.network import Tensors, classify, classify_backward
from heads.presets import HeadShape
from heads.training import losses
from heads.training.sampling import Classes, Draws

MARGIN_WEIGHT = 0.5  # of the three terms: contrast + 0.5 margin + classification


class Pairs(NamedTuple):
    """Margin pairs of one step, see `losses.margin_of_pairs`."""

    rows: Tensor
    places: Tensor
    coefficients: Tensor


class Batch(NamedTuple):
    """One step's data, or with one more axis in front (a list, of pairs) that of some steps.

    `rows` int64 [S, R] of the features (anchors, then positives kind by kind), `labels` int64 [S, B, L], `masks`
    float32 [S, T, B, J] of blocks seen, `weights` float32 [S, Q, B] of each sample in each comparison, and the
    margin's comparisons: pairs, or weights [S, Q, B, B] of positives and negatives; `known` float32 [S, T, B], 1 where
    an anchor has the label that its positive was to share, None where all have.
    """

    rows: Tensor
    labels: Tensor
    masks: Tensor
    weights: Tensor
    pairs: list[Pairs] | Pairs | None
    positives: Tensor | None
    negatives: Tensor | None
    dropout: Tensor | None
    known: Tensor | None = None


@dataclass(frozen=True)
class _Comparison:
    """One term on the labels of one level; `weights` are the level's weights at each prefix."""

    term: int
    level: int
    weights: tuple[float, ...]


class ThreeTerms:
    """Contrast + 0.5 margin + classification on every term of a method's table."""

    def __init__(self, supervision: Supervision, shape: HeadShape, labels: Tensor, classes: Classes) -> None:
        """Lay the table out.

        :param labels: int64 [n, L] of the training rows, on the device.
        """
        self._terms, self._shape, self._labels, self._classes = supervision, shape, labels, classes
        device, scales = labels.device, shape.scales
        rules = [term.positive_levels(scales) for term in supervision]
        kinds = list(dict.fromkeys(rules))
        self.positives = len(kinds)
        self._kinds = torch.tensor(kinds, device=device)
        self._kind_of_term = torch.tensor([kinds.index(rule) for rule in rules], device=device)
        self._kinds_of_terms = _one_hot(self._kind_of_term, len(kinds))
        self._term_weights = torch.tensor([term.weight for term in supervision], device=device)
        self._comparisons = [
            _Comparison(t, level, weights)
            for t, term in enumerate(supervision)
            for level, weights in _weighted_levels(term, scales)
        ]
        self._weights = torch.tensor([one.weights for one in self._comparisons], device=device)
        self._level_of = torch.tensor([one.level for one in self._comparisons], device=device)
        self._of_term = torch.tensor([one.term for one in self._comparisons], device=device)
        self._terms_of_comparisons = _one_hot(self._of_term, len(supervision))
        self._of_level = {
            level: torch.tensor([q for q, one in enumerate(self._comparisons) if one.level == level], device=device)
            for level in sorted({one.level for one in self._comparisons})
        }

    @property
    def supervised(self) -> tuple[bool, ...]:
        """Whether each level's classifier is trained."""
        return tuple(level in self._of_level for level in range(len(self._shape.classes)))

    def rows_for(self, batch: int) -> int:
        """Rows that go through the head in a step."""
        return batch * (1 + self.positives)

    def prepare(self, draws: Draws) -> Batch:
        """Work out all of some steps that does not depend on the weights."""
        steps, seeds, _ = draws.anchors.shape
        labels = self._labels[draws.anchors]
        levels = self._kinds.T[draws.prefixes].permute(0, 1, 3, 2)
        others = self._classes.partners(draws.anchors[:, :, None].expand_as(levels), levels, draws.uniform)
        rows = torch.cat([draws.anchors[:, :, None], others], 2).view(steps, seeds, -1)
        weights = self._weights.T[draws.prefixes].permute(0, 1, 3, 2).contiguous()
        masks, known = self._masks(draws), None
        if not self._classes.complete:
            deep = (labels >= 0).sum(-1)[:, :, None] > levels
            known = deep.index_select(2, self._kind_of_term).float()
            weights = weights * (labels.permute(0, 1, 3, 2)[:, :, self._level_of] >= 0)
        positives, negatives = self._comparing(labels, weights)
        pairs: list[Pairs] | None = None
        if labels.device.type == "cpu" and seeds == 1:
            pairs = self._pairs(positives[:, 0], negatives[:, 0])
        if pairs is not None:
            return Batch(rows, labels, masks, weights, pairs, None, None, draws.dropout, known)
        return Batch(rows, labels, masks, weights, None, positives, negatives, draws.dropout, known)

    def gradient(self, weights: Tensors, grads: Tensors, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the loss; write the classifiers' gradients.

        :param outputs: concatenated blocks of the batch's rows, float32 [S, R, D].
        :returns: losses [S], gradient by `outputs` [S, R, D].
        """
        seeds, terms, size, _ = batch.masks.shape
        dim, batches = outputs.shape[2], seeds * terms
        masks = batch.masks.repeat_interleave(self._shape.scale_dim, 3)
        anchors, inverse = losses.normalise(outputs[:, None, :size] * masks)
        partners, partners_inverse = losses.normalise(outputs[:, size:].view(seeds, self.positives, size, dim))

        both = torch.cat([anchors, partners.index_select(1, self._kind_of_term)], 2).view(batches, 2 * size, dim)
        flat = both[:, :size]
        similarities = torch.bmm(flat, both.mT)
        share = self._term_weights.repeat(seeds)[:, None, None]
        if batch.known is not None:
            share = share * batch.known.view(batches, size, 1)
        by_similarity = torch.empty_like(similarities)
        loss, by_similarity[:, :, size:] = losses.contrast(similarities[:, :, size:], share)
        total, by_similarity[:, :, :size] = self._margin(similarities[:, :, :size], batch)
        total += loss.view(seeds, terms).sum(1)

        by_both = torch.bmm(by_similarity.mT, flat)
        by_anchors = torch.bmm(by_similarity, both).add_(by_both[:, :size]).view(seeds, terms, size, dim)
        total += self._classification(weights, grads, anchors, batch, by_anchors)

        by_partners = torch.matmul(self._kinds_of_terms, by_both[:, size:].reshape(seeds, terms, size * dim))
        by_outputs = torch.empty_like(outputs)
        by_views = losses.normalise_backward(anchors, inverse, by_anchors).mul_(masks)
        torch.sum(by_views, 1, out=by_outputs[:, :size])
        by_outputs[:, size:] = losses.normalise_backward(
            partners, partners_inverse, by_partners.view_as(partners)
        ).view(seeds, -1, dim)
        return total, by_outputs

    def _masks(self, draws: Draws) -> Tensor:
        """Blocks that each term sees of each anchor, [N, S, T, B, J]."""
        places = torch.arange(self._shape.scales, device=draws.kept.device)
        seen = []
        for term in self._terms:
            if term.view is View.DROPPED:
                seen.append(draws.kept)
            elif term.view is View.SAMPLED:
                seen.append(places <= draws.prefixes[..., None])
            else:
                seen.append((places < term.view).expand_as(draws.kept))
        return torch.stack(seen, 2).float()

    def _comparing(self, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of positives and negatives in the margin, both [N, S, Q, B, B].

        A term's mean runs over the pairs of all its comparisons, each pair as heavy as its anchor's level weight.
        """
        own = labels.permute(0, 1, 3, 2)[:, :, self._level_of]
        same = own[..., :, None] == own[..., None, :]
        other = ~same
        if not self._classes.complete:  # who has no label at a level is neither a positive nor a negative there
            known = own >= 0
            other &= known[..., :, None] & known[..., None, :]
        negatives = other.float()
        counts = negatives.sum(-1, keepdim=True)
        negatives /= counts.clamp(min=1)
        apart = ~torch.eye(own.shape[-1], dtype=torch.bool, device=labels.device)
        positives = (same & apart & (counts > 0)) * weights[..., None]
        mass = positives.new_zeros(*positives.shape[:2], len(self._terms)).index_add_(
            2, self._of_term, positives.sum((3, 4))
        )
        scale = (MARGIN_WEIGHT * self._term_weights / mass.clamp(min=1e-12)).index_select(2, self._of_term)
        return positives * scale[..., None, None], negatives

    def _pairs(self, positives: Tensor, negatives: Tensor) -> list[Pairs]:
        """List the pairs of each step, from weights [N, Q, B, B]."""
        steps, _, size, _ = positives.shape
        step, comparison, anchor, other = positives.nonzero(as_tuple=True)
        rows = self._of_term[comparison] * size + anchor
        coefficients = negatives[step, comparison, anchor] * positives[step, comparison, anchor, other][:, None]
        parts = step.bincount(minlength=steps).tolist()
        split = (torch.split(tensor, parts) for tensor in (rows, rows * size + other, coefficients))
        return [Pairs(*one) for one in zip(*split, strict=True)]

    def _margin(self, similarities: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Margin losses [S] and their gradient [S * T, B, B]."""
        if isinstance(batch.pairs, Pairs):
            flat = similarities.reshape(-1, similarities.shape[2])
            loss, gradient = losses.margin_of_pairs(flat, *batch.pairs)
            return loss[None], gradient.view(similarities.shape)
        assert batch.positives is not None and batch.negatives is not None
        seeds, comparisons, size, _ = batch.positives.shape
        of_comparison = similarities.view(seeds, -1, size, size).index_select(1, self._of_term)
        loss, gradient = losses.margin(
            of_comparison.view(-1, size, size),
            batch.positives.view(-1, size, size),
            batch.negatives.view(-1, size, size),
        )
        by_term = torch.matmul(self._terms_of_comparisons, gradient.view(seeds, comparisons, size * size))
        return loss.view(seeds, -1).sum(1), by_term.view(similarities.shape)

    def _classification(
        self, weights: Tensors, grads: Tensors, anchors: Tensor, batch: Batch, by_anchors: Tensor
    ) -> Tensor:
        """Cross-entropies [S] of every level's classifier; adds their gradient to `by_anchors` [S, T, B, D]."""
        seeds, _, size, dim = anchors.shape
        total = anchors.new_zeros(seeds)
        for level, comparisons in self._of_level.items():
            terms = self._of_term[comparisons]
            seen = anchors.index_select(1, terms).view(seeds, -1, dim)
            logits, tape = classify(weights, level, seen)
            own = batch.labels[:, :, level].clamp(min=0).repeat(1, len(comparisons))
            share = batch.weights.index_select(1, comparisons) * (self._term_weights[terms] / size)[:, None]
            loss, by_logits = losses.classification(logits, own, share.view(seeds, -1))
            by_seen = classify_backward(weights, grads, level, tape, by_logits)
            by_anchors.index_add_(1, terms, by_seen.view(seeds, -1, size, dim))
            total += loss
        return total


def _one_hot(groups: Tensor, count: int) -> Tensor:
    """Membership [count, n] of n things in groups: a product with it sums by group, in the same order every time."""
    return (groups == torch.arange(count, device=groups.device)[:, None]).float()


def _weighted_levels(term: Term, scales: int) -> list[tuple[int, tuple[float, ...]]]:
    """Levels that weigh in a term, each with its weight at each prefix that a sample may have."""
    rows = term.levels
    if term.view is not View.SAMPLED:
        rows = (rows[scales - 1 if term.view is View.DROPPED else term.view - 1],) * scales
    return [(level, column) for level, column in enumerate(zip(*rows, strict=True)) if any(column)]

"""From a method's table to a loss: the terms of a step, all in one go.

What does not depend on the weights (who is whose positive, which pairs the margin compares, how much each sample
weighs) is worked out for many steps at once; a step then only multiplies. Views of the anchors are one tensor
[S, T, B, D] over the T terms of the method, so that five terms start as many operations as one.

The margin is computed on all [B, B, B] triples on a GPU, where operations are dear and shapes must not change, and on
the list of pairs that exist on a CPU, where arithmetic is dear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from heads.methods import Supervision, Term, View
from heads.network import classify
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
    float32 [S, T, B, J] of blocks seen, `weights` float32 [S, Q, B] of each sample's classification in each comparison,
    and the margin's comparisons: pairs, or weights [S, Q, B, B] of positives and negatives; `known` float32 [S, T, B],
    1 where an anchor has the label that its positive was to share, None where all have.
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
    """Contrast + 0.5 margin + classification on every term of a method's table; its members are those of `Joint`."""

    by_rows = False

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
        self._kind_of_term = [kinds.index(rule) for rule in rules]
        self._term_weights = torch.tensor([term.weight for term in supervision], device=device)
        comparisons = [
            _Comparison(t, level, weights)
            for t, term in enumerate(supervision)
            for level, weights in _weighted_levels(term, scales)
        ]
        comparisons.sort(key=lambda one: one.level)
        self._weights = torch.tensor([one.weights for one in comparisons], device=device)
        self._levels = torch.tensor([one.level for one in comparisons], device=device)
        self._of_term = [one.term for one in comparisons]
        self._term_of = torch.tensor(self._of_term, device=device)
        self._of_level = {
            level: [one.term for one in comparisons if one.level == level]
            for level in sorted({one.level for one in comparisons})
        }
        self.supervised = tuple(level in self._of_level for level in range(len(shape.classes)))

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
            known = _picked(deep, self._kind_of_term, 2).float()
            weights = weights * (labels.permute(0, 1, 3, 2)[:, :, self._levels] >= 0)
        positives, negatives = self._comparing(labels, weights)
        weights *= (self._term_weights[self._term_of] / labels.shape[2])[:, None]
        if labels.device.type == "cpu" and seeds == 1:
            pairs = self._pairs(positives[:, 0], negatives[:, 0])
            return Batch(rows, labels, masks, weights, pairs, None, None, draws.dropout, known)
        return Batch(rows, labels, masks, weights, None, positives, negatives, draws.dropout, known)

    def losses(self, weights: Mapping[str, Tensor], outputs: Tensor, batch: Batch, rows: slice) -> Tensor:
        """Compute the losses [S]; `rows` are all.

        :param outputs: concatenated blocks of the batch's rows, float32 [S, R, D].
        """
        seeds, _, size, scales = batch.masks.shape
        blocks = outputs[:, None, :size].view(seeds, 1, size, scales, -1)
        anchors = functional.normalize((blocks * batch.masks[..., None]).flatten(3), dim=3)
        partners = functional.normalize(outputs[:, size:].view(seeds, self.positives, size, -1), dim=3)
        partners = _picked(partners, self._kind_of_term, 1)
        share = self._term_weights[:, None]
        if batch.known is not None:
            share = share * batch.known
        total = losses.contrast(anchors @ partners.mT, share).sum(1) + self._margin(anchors @ anchors.mT, batch)
        views = anchors.unbind(1)
        heavy = torch.split(batch.weights, [len(terms) for terms in self._of_level.values()], 1)
        for (level, terms), share in zip(self._of_level.items(), heavy, strict=True):
            logits = classify(weights, level, torch.cat([views[term] for term in terms], 1))
            each = losses.classification(logits, batch.labels[:, :, level].repeat(1, len(terms)))
            total = total + (each * share.flatten(1)).sum(1)
        return total

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
        own = labels.permute(0, 1, 3, 2)[:, :, self._levels]
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
            2, self._term_of, positives.sum((3, 4))
        )
        scale = (MARGIN_WEIGHT * self._term_weights / mass.clamp(min=1e-12)).index_select(2, self._term_of)
        return positives * scale[..., None, None], negatives

    def _pairs(self, positives: Tensor, negatives: Tensor) -> list[Pairs]:
        """List the pairs of each step, from weights [N, Q, B, B]."""
        steps, _, size, _ = positives.shape
        step, comparison, anchor, other = positives.nonzero(as_tuple=True)
        rows = self._term_of[comparison] * size + anchor
        coefficients = negatives[step, comparison, anchor] * positives[step, comparison, anchor, other][:, None]
        parts = step.bincount(minlength=steps).tolist()
        split = (torch.split(tensor, parts) for tensor in (rows, rows * size + other, coefficients))
        return [Pairs(*one) for one in zip(*split, strict=True)]

    def _margin(self, similarities: Tensor, batch: Batch) -> Tensor:
        """Margin losses [S] of similarities among anchors, [S, T, B, B]."""
        if isinstance(batch.pairs, Pairs):
            return losses.margin_of_pairs(similarities.flatten(0, 2), *batch.pairs)[None]
        assert batch.positives is not None and batch.negatives is not None
        return losses.margin(_picked(similarities, self._of_term, 1), batch.positives, batch.negatives)


def _picked(parts: Tensor, places: Sequence[int], dim: int) -> Tensor:
    """Pick parts along a dimension, some of them several times; gradients add up in the same order every time."""
    each = parts.unbind(dim)
    return torch.stack([each[place] for place in places], dim)


def _weighted_levels(term: Term, scales: int) -> list[tuple[int, tuple[float, ...]]]:
    """Levels that weigh in a term, each with its weight at each prefix that a sample may have."""
    rows = term.levels
    if term.view is not View.SAMPLED:
        rows = (rows[scales - 1 if term.view is View.DROPPED else term.view - 1],) * scales
    return [(level, column) for level, column in enumerate(zip(*rows, strict=True)) if any(column)]

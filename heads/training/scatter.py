"""Second moments of features by class, summed in one pass: all that closed forms know of the data (`Scatter`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_ROWS = 4096  # added to a scatter at a time


@dataclass(frozen=True)
class ClassSums:
    """Sum of the features, float64 [C, H], and number of rows, float64 [C], of each class of one kind."""

    totals: Tensor
    counts: Tensor

    def outer(self) -> Tensor:
        """Sum over classes of count * mean mean^T, [H, H]."""
        scaled = self.totals * self.counts.clamp(min=1).rsqrt()[:, None]
        return scaled.T @ scaled


@dataclass(frozen=True)
class Scatter:
    """Sums over rows: their number, the features' sum [H] and second moment [H, H], and sums by class.

    `levels` holds each level's classes, a row counting at the levels at which its label is known; `deepest` each row
    once, in the class of the deepest level at which it has one. All float64, on the device of the features.
    """

    rows: int
    total: Tensor
    moment: Tensor
    levels: tuple[ClassSums, ...]
    deepest: ClassSums

    def minus(self, other: Scatter) -> Scatter:
        """Take some of the rows away."""
        return Scatter(
            self.rows - other.rows,
            self.total - other.total,
            self.moment - other.moment,
            tuple(_minus(one, part) for one, part in zip(self.levels, other.levels, strict=True)),
            _minus(self.deepest, other.deepest),
        )

    @cached_property
    def mean(self) -> Tensor:
        """Mean of all rows, [H]."""
        return self.total / self.rows

    @cached_property
    def covariance(self) -> Tensor:
        """Covariance of all rows, [H, H]."""
        return self.moment / self.rows - torch.outer(self.mean, self.mean)

    @cached_property
    def within(self) -> Tensor:
        """Mean covariance within the deepest known classes, each row as heavy as another."""
        return (self.moment - self.deepest.outer()) / self.rows

    @cached_property
    def between(self) -> Tensor:
        """Covariance of the class means about the mean of their rows, summed over levels."""
        summed = torch.zeros_like(self.moment)
        for level in self.levels:
            known = level.counts.sum().clamp(min=1)
            mean = level.totals.sum(0) / known
            summed += level.outer() / known - torch.outer(mean, mean)
        return summed


def _minus(one: ClassSums, part: ClassSums) -> ClassSums:
    return ClassSums(one.totals - part.totals, one.counts - part.counts)


def scatter_of(features: Tensor, labels: Tensor, classes: Sequence[int]) -> Scatter:
    """Sum up rows.

    :param features: real [n, H], as the head receives them.
    :param labels: int64 [n, L], -1 where a row's label is not known at a level, and below it.
    :param classes: the number of classes per level.
    """
    width, device = features.shape[1], features.device
    total = torch.zeros(width, dtype=torch.float64, device=device)
    moment = total.new_zeros(width, width)
    offsets = torch.tensor([0, *classes], device=device).cumsum(0)
    by_class = total.new_zeros(int(offsets[-1]), width)
    deepest = torch.zeros_like(by_class)
    for start in range(0, len(features), _ROWS):
        block, own = features[start : start + _ROWS].double(), labels[start : start + _ROWS]
        total += block.sum(0)
        moment.addmm_(block.T, block)
        depth = (own >= 0).sum(1) - 1
        place = own.gather(1, depth.clamp(min=0)[:, None])[:, 0] + offsets[depth.clamp(min=0)]
        _add(deepest, place, block, depth >= 0)
        for level in range(len(classes)):
            _add(by_class, own[:, level] + offsets[level], block, own[:, level] >= 0)
    counts = [_counts(labels[:, level], count) for level, count in enumerate(classes)]
    depth = (labels >= 0).sum(1) - 1
    known = (depth >= 0).nonzero()[:, 0]
    places = labels[known].gather(1, depth[known, None])[:, 0] + offsets[depth[known]]
    return Scatter(
        len(features),
        total,
        moment,
        tuple(ClassSums(by_class[offsets[level] : offsets[level + 1]], counts[level]) for level in range(len(classes))),
        ClassSums(deepest, places.bincount(minlength=len(deepest)).double()),
    )


def _add(sums: Tensor, places: Tensor, rows: Tensor, known: Tensor) -> None:
    if bool(known.all()):
        sums.index_add_(0, places, rows)
    else:
        sums.index_add_(0, places[known], rows[known])


def _counts(labels: Tensor, classes: int) -> Tensor:
    return labels[labels >= 0].bincount(minlength=classes).double()

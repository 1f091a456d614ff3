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

    def minus(self, other: ClassSums) -> ClassSums:
        """Take some of the rows away."""
        return ClassSums(self.totals - other.totals, self.counts - other.counts)


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
            tuple(one.minus(part) for one, part in zip(self.levels, other.levels, strict=True)),
            self.deepest.minus(other.deepest),
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

    @cached_property
    def separations(self) -> Tensor:
        """Variances of `between` along its principal components, [H]: as many are not zero as classes can be told by.

        One less than there are classes, but fewer where rows lack labels or are fewer than classes.
        """
        found: Tensor = torch.linalg.eigvalsh(self.between)
        return found


def scatter_of(features: Tensor, labels: Tensor, classes: Sequence[int]) -> Scatter:
    """Sum up rows.

    :param features: real [n, H], as the head receives them.
    :param labels: int64 [n, L], -1 where a row's label is not known at a level, and below it.
    :param classes: the number of classes per level.
    """
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    moment = total.new_zeros(len(total), len(total))
    offsets = torch.tensor([0, *classes], device=features.device).cumsum(0)
    depth = (labels >= 0).sum(1) - 1
    deepest = labels.gather(1, depth.clamp(min=0)[:, None])[:, 0] + offsets[depth.clamp(min=0)]
    kinds = [*labels.T, deepest.where(depth >= 0, -1)]
    sizes = [*classes, int(offsets[-1])]
    sums = [total.new_zeros(size, len(total)) for size in sizes]
    for start in range(0, len(features), _ROWS):
        block = features[start : start + _ROWS].double()
        total += block.sum(0)
        moment.addmm_(block.T, block)
        for own, found in zip(kinds, sums, strict=True):
            places = own[start : start + _ROWS]
            known = places >= 0
            if bool(known.all()):
                found.index_add_(0, places, block)
            else:
                found.index_add_(0, places[known], block[known])
    counts = [own[own >= 0].bincount(minlength=size).double() for own, size in zip(kinds, sizes, strict=True)]
    *levels, last = (ClassSums(*both) for both in zip(sums, counts, strict=True))
    return Scatter(len(features), total, moment, tuple(levels), last)

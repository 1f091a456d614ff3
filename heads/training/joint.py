"""The joint objective: every prefix learns every level, by supervised contrast and by class proxies.

A batch is pairs: anchors, and for each another text of its finest class, so that however many classes there are each
row has a positive; or, for a share of the anchors, of the class above, which a batch would hardly hold either. Two
losses look at every prefix: supervised contrast, where every other row of the batch is a positive at the levels that
it shares (no false negatives), and a cosine softmax over one learned vector a class, the proxies, which brings in the
classes that the batch lacks. The coarser a level, the less it weighs.

Two things make it cheap. The cosines of all prefixes come from the products of blocks, which add up. And the contrast's
positives of all levels fold into one matrix of target shares, so that levels cost nothing: the loss is the
cross-entropy between that matrix and one softmax a prefix. On a CPU two halves of the rows are compared with all rows
and proxies at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from heads.network import Tensors
from heads.presets import HeadShape
from heads.training import losses
from heads.training.sampling import Classes, Draws

_SCORES, _FEWEST_ROWS = 1 << 18, 16  # of some rows at all prefixes, a megabyte; fewer rows cost more than they save


class PairBatch(NamedTuple):
    """One step's data, or with one more axis in front that of some steps.

    `rows` int64 [S, R] of the features, `labels` int64 [S, R, L], `targets` float32 [S, R, R], what share each other
    row has in a row's positives over all levels.
    """

    rows: Tensor
    labels: Tensor
    targets: Tensor
    dropout: Tensor | None


class _Part(NamedTuple):
    """What some rows add: losses [S], gradients by their blocks [S, J, n, d], by all rows' blocks, by the proxies'."""

    loss: Tensor
    by_own: Tensor
    by_rows: Tensor
    by_proxies: list[Tensor]


Both: TypeAlias = Callable[[Callable[[], _Part], Callable[[], _Part]], tuple[_Part, _Part]]
"""Does two things and returns what each gives."""


class Joint:
    """Supervised contrast + cosine proxies at every prefix on every level."""

    positives = 1

    def __init__(
        self,
        settings: Mapping[str, float],
        shape: HeadShape,
        labels: Tensor,
        classes: Classes,
        both: Both | None = None,
    ) -> None:
        """Lay out the weights.

        :param settings: of the method: temperatures, weights.
        :param labels: int64 [n, L] of the training rows, on the device.
        :param both: does the two halves of a step's rows; without it they are one.
        """
        self._shape, self._labels, self._classes, self._both = shape, labels, classes, both
        self._temperature, self._proxy_temperature = settings["temperature"], settings["proxy_temperature"]
        self._proxy_weight, self._near_pairs = settings["proxy_weight"], settings["near_pairs"]
        self._level_weights = np.linspace(1.0, settings["coarse_weight"], labels.shape[1])[::-1].tolist()
        if settings.get("finest_only"):
            self._level_weights[:-1] = [0.0] * (labels.shape[1] - 1)
        self._prefix_weights = torch.full((shape.scales, 1, 1), 1 / shape.scales, device=labels.device)

    @property
    def supervised(self) -> tuple[bool, ...]:
        """Whether each level's classifier is trained."""
        return tuple(weight * self._proxy_weight > 0 for weight in self._level_weights)

    def rows_for(self, batch: int) -> int:
        """Rows that go through the head in a step."""
        return 2 * batch

    def prepare(self, draws: Draws) -> PairBatch:
        """Work out all of some steps that does not depend on the weights.

        The order of anchors is random, so that the first of a batch may be those whose partner is of the class above.
        """
        finest = self._labels.shape[1] - 1
        levels = torch.full_like(draws.anchors, finest)
        levels[..., : round(self._near_pairs * levels.shape[-1])] = max(0, finest - 1)
        partners = self._classes.partners(draws.anchors, levels, draws.uniform[:, :, 0])
        rows = torch.cat([draws.anchors, partners], 2)
        labels = self._labels[rows]
        return PairBatch(rows, labels, self._targets(labels), draws.dropout)

    def gradient(self, weights: Tensors, grads: Tensors, outputs: Tensor, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Compute the loss; write the proxies' gradients.

        :param outputs: concatenated blocks of the batch's rows, float32 [S, R, D].
        :returns: losses [S], gradient by `outputs` [S, R, D].
        """
        names = [f"proxies.{level}" for level in range(len(self._level_weights))]
        blocks, proxies = self._blocks(outputs), [self._blocks(weights[name]) for name in names]
        rows = outputs.shape[1]
        if self._both is None:
            whole = self._part(blocks, proxies, batch, slice(0, rows))
        else:
            whole = _together(
                self._both(
                    lambda: self._some(blocks, proxies, batch, range(rows // 2)),
                    lambda: self._some(blocks, proxies, batch, range(rows // 2, rows)),
                )
            )
        for name, by_proxies in zip(names, whole.by_proxies, strict=True):
            grads[name].copy_(self._whole(by_proxies))
        return whole.loss, self._whole(whole.by_own.add_(whole.by_rows))

    def _some(self, blocks: Tensor, proxies: list[Tensor], batch: PairBatch, rows: range) -> _Part:
        """Compare rows with all rows and all proxies, as many at a time as stay in a core's cache."""
        most = max(blocks.shape[2], *(level.shape[2] for level in proxies))
        count = max(_FEWEST_ROWS, _SCORES // (blocks.shape[1] * most))
        starts = range(rows.start, rows.stop, count)
        return _together(
            [self._part(blocks, proxies, batch, slice(start, min(start + count, rows.stop))) for start in starts]
        )

    def _part(self, blocks: Tensor, proxies: list[Tensor], batch: PairBatch, part: slice) -> _Part:
        """Compare some rows with all rows and all proxies."""
        own, share, by_proxies = blocks[:, :, part].contiguous(), self._prefix_weights / blocks.shape[2], []
        found = losses.prefix_cosines(own, blocks, self._temperature)
        targets = batch.targets[:, None, part]
        total, by_scores = losses.supervised_contrast(found.scores, targets, share, part.start)
        by_own, by_rows = losses.prefix_cosines_backward(own, blocks, found, by_scores, self._temperature)
        for level, weight in enumerate(self._level_weights):
            if not weight * self._proxy_weight:
                by_proxies.append(torch.zeros_like(proxies[level]))
                continue
            found = losses.prefix_cosines(own, proxies[level], self._proxy_temperature)
            labels = batch.labels[:, None, part, level].expand(-1, self._shape.scales, -1).flatten(1)
            heavy = (share * (weight * self._proxy_weight)).expand(-1, own.shape[2], 1).reshape(1, -1)
            if not self._classes.complete:
                heavy, labels = heavy * (labels >= 0), labels.clamp(min=0)
            loss, by_scores = losses.classification(found.scores.flatten(1, 2), labels, heavy)
            more, by_level = losses.prefix_cosines_backward(
                own, proxies[level], found, by_scores.view_as(found.scores), self._proxy_temperature
            )
            total += loss
            by_own += more
            by_proxies.append(by_level)
        return _Part(total, by_own, by_rows, by_proxies)

    def _targets(self, labels: Tensor) -> Tensor:
        """Share of each row in the positives of each other, over all levels, [..., R, R]; no row shares with itself."""
        apart = ~torch.eye(labels.shape[-2], dtype=torch.bool, device=labels.device)
        targets = torch.zeros(*labels.shape[:-1], labels.shape[-2], device=labels.device)
        for level, weight in enumerate(self._level_weights):
            own = labels[..., level]
            same = (own[..., :, None] == own[..., None, :]) & apart
            if not self._classes.complete:
                same &= (own >= 0)[..., None]
            same = same.float()
            targets += same * (weight / same.sum(-1, keepdim=True).clamp_(min=1))
        return targets

    def _blocks(self, vectors: Tensor) -> Tensor:
        """Split [S, n, D] into [S, J, n, d]."""
        return vectors.view(*vectors.shape[:2], self._shape.scales, -1).permute(0, 2, 1, 3).contiguous()

    def _whole(self, blocks: Tensor) -> Tensor:
        """Put [S, J, n, d] back together as [S, n, D]."""
        return blocks.permute(0, 2, 1, 3).flatten(2)


def _together(parts: Sequence[_Part]) -> _Part:
    """Put parts of the rows together, in the tensors of the first."""
    first, *others = parts
    for part in others:
        first.loss.add_(part.loss)
        first.by_rows.add_(part.by_rows)
        for total, more in zip(first.by_proxies, part.by_proxies, strict=True):
            total.add_(more)
    return first if not others else first._replace(by_own=torch.cat([part.by_own for part in parts], 2))

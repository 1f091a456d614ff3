"""The joint objective: every prefix learns every level, by supervised contrast and by class proxies.

A batch is pairs: anchors, and for each another text of its finest class, so that however many classes there are each
row has a positive. Two losses look at every prefix: supervised contrast, where every other row of the batch is a
positive at the levels that it shares (no false negatives), and a cosine softmax over one learned vector a class, the
proxies, which brings in the classes that the batch lacks. Coarse levels weigh less than the finest.

Two things make it cheap. The cosines of all prefixes come from the products of blocks, which add up. And the contrast's
positives of all levels fold into one matrix of target shares, so that levels cost nothing: the loss is the
cross-entropy between that matrix and one softmax a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from heads import losses
from heads.network import Tensors
from heads.presets import HeadShape
from heads.sampling import Classes, Draws


class PairBatch(NamedTuple):
    """One step's data, or with one more axis in front that of some steps.

    `rows` int64 [S, R] of the features, `labels` int64 [S, R, L], `targets` float32 [S, R, R], what share each other
    row has in a row's positives over all levels.
    """

    rows: Tensor
    labels: Tensor
    targets: Tensor
    dropout: Tensor | None


class Joint:
    """Supervised contrast + cosine proxies at every prefix on every level."""

    positives = 1

    def __init__(self, settings: Mapping[str, float], shape: HeadShape, labels: Tensor, classes: Classes) -> None:
        """Lay out the weights.

        :param settings: of the method: temperatures, weights.
        :param labels: int64 [n, L] of the training rows, on the device.
        """
        self._shape, self._labels, self._classes = shape, labels, classes
        self._temperature, self._proxy_temperature = settings["temperature"], settings["proxy_temperature"]
        self._proxy_weight = settings["proxy_weight"]
        levels = labels.shape[1]
        self._level_weights = [settings["coarse_weight"]] * (levels - 1) + [1.0]
        short = settings["short_weight"]
        spread = [short] * (shape.scales - 1) + [1.0]
        self._prefix_weights = torch.tensor([w / sum(spread) for w in spread], device=labels.device)

    @property
    def supervised(self) -> tuple[bool, ...]:
        """Whether each level's classifier is trained: all are."""
        return (True,) * len(self._shape.classes)

    def rows_for(self, batch: int) -> int:
        """Rows that go through the head in a step."""
        return 2 * batch

    def prepare(self, draws: Draws) -> PairBatch:
        """Work out all of some steps that does not depend on the weights."""
        finest = torch.full_like(draws.anchors, self._labels.shape[1] - 1)
        partners = self._classes.partners(draws.anchors, finest, draws.uniform[:, :, 0])
        rows = torch.cat([draws.anchors, partners], 2)
        labels = self._labels[rows]
        return PairBatch(rows, labels, self._targets(labels), draws.dropout)

    def gradient(self, weights: Tensors, grads: Tensors, outputs: Tensor, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Compute the loss; write the proxies' gradients.

        :param outputs: concatenated blocks of the batch's rows, float32 [S, R, D].
        :returns: losses [S], gradient by `outputs` [S, R, D].
        """
        seeds, rows, _ = outputs.shape
        blocks = self._blocks(outputs)
        found = losses.prefix_cosines(blocks, blocks)
        share = self._prefix_weights.repeat(seeds)[:, None, None] / rows
        targets = batch.targets[:, None].expand_as(found.cosines)
        loss, by_cosines = losses.supervised_contrast(
            found.cosines.flatten(0, 1), targets.flatten(0, 1), share, self._temperature
        )
        total = loss.view(seeds, -1).sum(1)
        left, right = losses.prefix_cosines_backward(blocks, blocks, found, by_cosines.view_as(found.cosines))
        by_blocks = left.add_(right)
        for level, weight in enumerate(self._level_weights):
            proxies = self._blocks(weights[f"proxies.{level}"])
            found = losses.prefix_cosines(blocks, proxies)
            own = batch.labels[:, None, :, level].expand(-1, self._shape.scales, -1).reshape(seeds, -1)
            each = (self._prefix_weights * (weight * self._proxy_weight / rows)).repeat_interleave(rows)
            loss, by_logits = losses.classification(
                found.cosines.view(seeds, -1, found.cosines.shape[3]) / self._proxy_temperature,
                own,
                each.expand(seeds, -1),
            )
            total = total + loss
            by_cosines = by_logits.view_as(found.cosines).div_(self._proxy_temperature)
            left, right = losses.prefix_cosines_backward(blocks, proxies, found, by_cosines)
            by_blocks.add_(left)
            grads[f"proxies.{level}"].copy_(self._whole(right))
        return total, self._whole(by_blocks)

    def _targets(self, labels: Tensor) -> Tensor:
        """Share of each row in the positives of each other, over all levels, [..., R, R]; no row shares with itself."""
        apart = ~torch.eye(labels.shape[-2], dtype=torch.bool, device=labels.device)
        targets = torch.zeros(*labels.shape[:-1], labels.shape[-2], device=labels.device)
        for level, weight in enumerate(self._level_weights):
            own = labels[..., level]
            same = ((own[..., :, None] == own[..., None, :]) & apart).float()
            targets += same * (weight / same.sum(-1, keepdim=True).clamp_(min=1))
        return targets

    def _blocks(self, vectors: Tensor) -> Tensor:
        """Split [S, n, D] into [S, J, n, d]."""
        return vectors.view(*vectors.shape[:2], self._shape.scales, -1).permute(0, 2, 1, 3).contiguous()

    def _whole(self, blocks: Tensor) -> Tensor:
        """Put [S, J, n, d] back together as [S, n, D]."""
        return blocks.permute(0, 2, 1, 3).flatten(2)

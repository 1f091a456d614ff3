"""The joint objective: every prefix learns every level, by supervised contrast and by class proxies.

A batch is pairs: anchors, and for each another text of its finest class, so that however many classes there are each
row has a positive; or, for a share of the anchors, of the class above, which a batch would hardly hold either. Two
losses look at every prefix: supervised contrast, where every other row of the batch is a positive at the levels that
it shares (no false negatives), and a cosine softmax over one learned vector a class, the proxies, which brings in the
classes that the batch lacks. The coarser a level, the less it weighs.

Two things make it cheap. The cosines of all prefixes come from the products of blocks, which add up. And the contrast's
positives of all levels fold into one matrix of target shares, so that levels cost nothing: the loss is the
cross-entropy between that matrix and one softmax a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from heads.presets import HeadShape
from heads.training import losses
from heads.training.sampling import Classes, Draws


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
    """Supervised contrast + cosine proxies at every prefix on every level.

    `positives` are drawn per anchor; `by_rows`: its losses are a sum over rows, so that some rows' share can be asked;
    `supervised`: whether each level's classifier is trained.
    """

    positives, by_rows = 1, True

    def __init__(self, settings: Mapping[str, float], shape: HeadShape, labels: Tensor, classes: Classes) -> None:
        """Lay out the weights.

        :param settings: of the method: temperatures, weights.
        :param labels: int64 [n, L] of the training rows, on the device.
        """
        self._shape, self._labels, self._classes = shape, labels, classes
        self._temperature, self._proxy_temperature = settings["temperature"], settings["proxy_temperature"]
        self._proxy_weight, self._near_pairs = settings["proxy_weight"], settings["near_pairs"]
        self._level_weights = np.linspace(1.0, settings["coarse_weight"], labels.shape[1])[::-1].tolist()
        if settings.get("finest_only"):
            self._level_weights[:-1] = [0.0] * (labels.shape[1] - 1)
        self.supervised = tuple(weight * self._proxy_weight > 0 for weight in self._level_weights)

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

    def losses(self, weights: Mapping[str, Tensor], outputs: Tensor, batch: PairBatch, rows: slice) -> Tensor:
        """Compute what `rows` add to the losses [S], compared with all rows and all proxies.

        :param outputs: concatenated blocks of the batch's rows, float32 [S, R, D].
        """
        own, scales = outputs[:, rows], self._shape.scales
        cosines = losses.prefix_cosines(own, outputs, scales, self._temperature)
        total = losses.supervised_contrast(cosines, batch.targets[:, rows], rows.start)
        for level, weight in enumerate(self._level_weights):
            if weight * self._proxy_weight:
                proxies = weights[f"proxies.{level}"].expand(len(own), -1, -1)
                cosines = losses.prefix_cosines(own, proxies, scales, self._proxy_temperature)
                labels = batch.labels[:, None, rows, level].expand(-1, scales, -1)
                each = losses.classification(cosines, labels)
                total = total + each.sum((1, 2)) * (weight * self._proxy_weight)
        return total / (scales * outputs.shape[1])

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
